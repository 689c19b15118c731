"""What the application hands over, checked: topics, keys, values, headers, timestamps."""

import warnings
from collections.abc import Iterable, Sequence, Set, Sized
from contextlib import suppress
from operator import index
from typing import Any, Final

from tailrace.client.serializers import Serializer
from tailrace.protocol.errors import InvalidArgumentError, SerializationError
from tailrace.protocol.limits import HEADERS_PER_RECORD_MAX
from tailrace.protocol.record import Headers

from .batch import HEADER_OVERHEAD_BYTES

_BYTES_LIKE: Final = (bytes, bytearray, memoryview)
_ARRAY_MARKS: Final = ("__arrow_c_array__", "__arrow_c_stream__", "isna")
_PLAIN: Final = frozenset({bytes, type(None)})
_MISSING: Final = frozenset({"NAType", "NaTType"})
_TIMESTAMP_END: Final = 2**63
_SECONDS: Final = range(10**9, 2**32)
"""From 2001 to 2106 in seconds; in milliseconds a few weeks of 1970."""


def topic_of(topic: object) -> str:
    """A topic's name. Raises InvalidArgumentError."""
    if not isinstance(topic, str):
        raise InvalidArgumentError(f"topic is {_described(topic)}; it is a topic's name, a str")
    return topic


def bytes_of(name: str, item: object) -> bytes | None:
    """A key or value as bytes, copied if it could change; text as UTF-8. Raises InvalidArgumentError."""
    if item is None or type(item) is bytes:
        return item
    if isinstance(item, _BYTES_LIKE):
        return bytes(item)
    if isinstance(item, str):
        return _encoded(name, item)
    kind = name.partition("s[")[0]
    raise InvalidArgumentError(
        f"{name} is {_described(item)}, and a record holds bytes or text: encode it, or make the producer"
        f" with {kind}_serializer=<a function that gives bytes>"
    )


def serialized(name: str, item: object, serializer: Serializer | None) -> bytes | None:
    """A key or value through its serializer; None stays None. Raises SerializationError."""
    if serializer is None:
        return bytes_of(name, item)
    if item is None:
        return None
    kind = name.partition("s[")[0]
    try:
        result = serializer(item)
    except Exception as error:
        told = repr(error)
        if serializer is str.encode and not isinstance(item, str):
            told = (
                f"it takes str, and this is {type(item).__name__}: give str(...), or name another serializer"
            )
        raise SerializationError(f"{kind}_serializer failed for {name}={item!r:.100}: {told}") from error
    if result is not None and not isinstance(result, _BYTES_LIKE):
        raise SerializationError(
            f"{kind}_serializer gave {_described(result)} for {name}; it must give bytes"
        )
    return bytes_of(name, result)


def is_array(column: object) -> bool:
    """Is it an array of numpy, or of Arrow, or one that shows itself as such, or a column of pandas?"""
    kind = type(column)
    if hasattr(kind, "__array_interface__"):
        return hasattr(kind, "__len__")  # which numpy's single numbers have not
    return any(hasattr(kind, mark) for mark in _ARRAY_MARKS)


def column_of(name: str, items: Iterable[Any], serializer: Serializer | None) -> Sequence[bytes | None]:
    """A column of keys or values (`name` is "keys" or "values") as bytes and None, which is what it misses.

    Raises InvalidArgumentError or SerializationError that name the first item that does not fit.
    """
    if not isinstance(items, list | tuple):
        if isinstance(items, str | bytes | bytearray | memoryview | Set):
            raise InvalidArgumentError(f"{name} is {_described(items)}; it is a sequence of records' {name}")
        if serializer is None and is_array(items):
            from .arrays import packed_of

            return packed_of(name, items).items()
        items = _listed(name, items)
    kinds = set(map(type, items))
    missing = set(filter(_is_missing, kinds))
    if missing:
        items = [None if type(item) in missing else item for item in items]
        kinds = kinds - missing | {type(None)}
    if serializer is not None:
        return [serialized(f"{name}[{at}]", item, serializer) for at, item in enumerate(items)]
    if kinds <= _PLAIN:
        return items
    if kinds == {str}:
        with suppress(UnicodeEncodeError):  # below, it is told with its place
            return list(map(str.encode, items))
    return [bytes_of(f"{name}[{at}]", item) for at, item in enumerate(items)]


def texts_of(values: Iterable[Any]) -> Sequence[str] | None:
    """The values as they are, if all are text: then many are encoded at once. Else None."""
    if not (isinstance(values, list | tuple) and values and type(values[0]) is str):
        return None  # at a glance
    return values if set(map(type, values)) == {str} else None


def check_unnamed(name: str, items: object) -> None:
    """Raises InvalidArgumentError for what iterates over names or columns, not over records.

    That is a mapping, or a table of any kind: what has `keys` and is no array, or `columns` and a `shape`.
    """
    kind = type(items)
    if hasattr(kind, "columns") and hasattr(kind, "shape"):
        raise InvalidArgumentError(
            f"{name} is a {kind.__name__}: give one column of it, such as table['price'], or a list of its"
            " rows, in pandas df.to_dict('records')"
        )
    if hasattr(kind, "keys") and not is_array(items):
        raise InvalidArgumentError(
            f"{name} is {_described(items)}: give a sequence of records' {name}, as list({name}.values())"
        )


def timestamp_of(name: str, timestamp: object) -> int:
    """Milliseconds since 1970. Raises InvalidArgumentError."""
    number = _whole(timestamp)
    if number is None or not 0 <= number < _TIMESTAMP_END:
        instead = ": int(when.timestamp() * 1000)" if hasattr(timestamp, "timestamp") else ""
        raise InvalidArgumentError(
            f"{name} is {timestamp!r:.100}; it is a whole number of milliseconds since 1970{instead}"
        )
    look_for_seconds(name, number)
    return number


def look_for_seconds(name: str, timestamp: int) -> None:
    """Warns of what looks like seconds. Retention would delete such a record at once, in milliseconds."""
    if timestamp in _SECONDS:
        warnings.warn(
            f"{name.partition('[')[0]} of early 1970: for seconds give milliseconds, int(time.time() * 1000)",
            stacklevel=2,
        )


def timestamps_of(timestamps: int | Iterable[int] | None, count: int) -> int | Sequence[int] | None:
    """One for all records, or one for each. Raises InvalidArgumentError."""
    if timestamps is None:
        return None
    if not hasattr(type(timestamps), "__iter__"):
        return timestamp_of("timestamps_ms", timestamps)
    if is_array(timestamps):
        from .arrays import times_of

        numbers: list[int] = times_of(timestamps, count).tolist()
        return numbers
    stamps = _listed("timestamps_ms", timestamps)
    check_length("timestamps_ms", stamps, count)
    if stamps and not (
        {int}.issuperset(map(type, stamps)) and 0 <= min(stamps) <= max(stamps) < _TIMESTAMP_END
    ):
        return [timestamp_of(f"timestamps_ms[{at}]", stamp) for at, stamp in enumerate(stamps)]
    if stamps:
        look_for_seconds("timestamps_ms", stamps[0])
    return stamps


def headers_of(name: str, headers: object) -> tuple[tuple[tuple[str, bytes | None], ...], int]:
    """Headers that cannot change any more, and the bytes they take. Raises InvalidArgumentError."""
    if isinstance(headers, str | bytes | dict) or not isinstance(headers, Iterable):
        raise InvalidArgumentError(
            f"{name} is {_described(headers)}; headers are a list of (str, bytes or None) pairs"
        )
    checked = tuple(_header(name, at, header) for at, header in enumerate(headers))
    if len(checked) > HEADERS_PER_RECORD_MAX:
        raise InvalidArgumentError(f"{name} has {len(checked)} headers; at most {HEADERS_PER_RECORD_MAX} fit")
    size = sum(HEADER_OVERHEAD_BYTES + len(key.encode()) + len(value or b"") for key, value in checked)
    return checked, size


def header_column_of(headers: Iterable[Any], count: int) -> tuple[list[Headers], list[int]]:
    """One record's headers each, and the bytes that they take. Raises InvalidArgumentError."""
    rows = _listed("headers", headers)
    check_length("headers", rows, count)
    checked = [headers_of(f"headers[{at}]", row or ()) for at, row in enumerate(rows)]
    return [row for row, _ in checked], [size for _, size in checked]


def partition_of(partition: object) -> int | None:
    """A partition's number, which the topic may not have. Raises InvalidArgumentError."""
    if partition is None:
        return None
    number = _whole(partition)
    if number is None or number < 0:
        raise InvalidArgumentError(
            f"partition is {partition!r:.100}; it is a whole number, 0 or more, or None"
        )
    return number


def check_length(name: str, items: Sized, count: int) -> None:
    """Raises InvalidArgumentError unless there is one item for each value."""
    if len(items) != count:
        raise InvalidArgumentError(f"{len(items)} {name} for {count} values")


def _header(name: str, at: int, header: Any) -> tuple[str, bytes | None]:
    if isinstance(header, dict) and header.keys() == {"key", "value"}:  # as `to_arrow` has them
        header = header["key"], header["value"]
    try:
        key, value = header
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f"{name}[{at}] is {_described(header)}; it is a (str, bytes) pair"
        ) from None
    if not isinstance(key, str) or not _is_utf8(key):
        raise InvalidArgumentError(f"{name}[{at}] has {_described(key)} for its name; it is a str in UTF-8")
    if value is not None and not isinstance(value, _BYTES_LIKE):
        raise InvalidArgumentError(f"{name}[{at}] has {_described(value)} for its value; it is bytes or None")
    return key, None if value is None else bytes(value)


def _whole(number: object) -> int | None:
    """An int of anything that is one, numpy's too."""
    if isinstance(number, bool):
        return None
    try:
        return index(number)  # type: ignore[arg-type]
    except TypeError:
        return None


def _is_missing(kind: type) -> bool:
    """Is it the kind of pandas' NA or NaT? Only pandas makes them, which is not imported for that."""
    return kind.__name__ in _MISSING and kind.__module__.startswith("pandas.")


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{name} is {_described(text)}, which UTF-8 cannot hold: {error}"
        ) from None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed(name: str, items: Any) -> list[Any]:
    """Arrays give Python's own numbers and bytes."""
    if isinstance(items, list):
        return items.copy()
    check_unnamed(name, items)
    try:
        if is_array(items):
            from .objects import objects_of

            return objects_of(name, items)
        return list(items.tolist() if hasattr(items, "tolist") else items)
    except TypeError:
        raise InvalidArgumentError(f"{name} is {_described(items)}; it is a sequence") from None


def _described(item: object) -> str:
    return f"{type(item).__name__} {item!r:.60}"
