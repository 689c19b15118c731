"""Serializers and deserializers by name, and the check of those that are functions.

| name | to bytes | from bytes |
|---|---|---|
| json | any value that msgspec knows, as JSON in UTF-8 | dicts, lists, str, int, float, bool, None |
| str | a str, as UTF-8 | a str |
| msgpack | as json, and bytes | as json, and bytes |
| pickle | anything, functions and classes of `__main__` too (cloudpickle) | **runs what the bytes say** |

JSON has fewer kinds than Python: tuples and sets are read back as lists, bytes as base64, the keys of a dict,
Decimals, UUIDs, dates and times (ISO 8601) as str. msgpack keeps bytes, and keys that are numbers. NaN and
infinity, which JSON does not have, raise SerializationError. Subclasses of these kinds count as what they are
made of: numpy's float64 and str_, pandas' Timestamp (to the microsecond).

Bytes are unpickled only by a consumer that names "pickle": who can write to its topics can run code in it.
"""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec import json, msgpack, to_builtins

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.similar import did_you_mean

Serializer: TypeAlias = Callable[[Any], bytes | None]
Deserializer: TypeAlias = Callable[[bytes], Any]


class _Codec(NamedTuple):
    to_bytes: Serializer
    from_bytes: Deserializer


def _pickled(value: object) -> bytes:
    import cloudpickle

    data: bytes = cloudpickle.dumps(value)
    return data


def _unpickled(data: bytes) -> object:
    import pickle

    return pickle.loads(data)


def _datetime_of(value: datetime) -> datetime:
    if value != value:
        raise ValueError(f"{value!r} is no time: give None for what is missing")
    return datetime.combine(value.date(), value.timetz())


_KINDS: Final[tuple[tuple[type, Callable[[Any], object]], ...]] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (datetime, _datetime_of),  # a date, too
    (date, lambda value: date(value.year, value.month, value.day)),
    (time, lambda value: time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo)),
    (timedelta, lambda value: timedelta(value.days, value.seconds, value.microseconds)),
    (Decimal, Decimal),
    (bytes, bytes.__bytes__),
)
"""What msgspec takes itself, but no subclasses of; and how one of those becomes what it is made of."""


def _plain(value: object) -> object:
    """Called with what msgspec does not know. Raises TypeError for what is no subclass of what it does."""
    if value is None or isinstance(value, tuple | frozenset | bool):  # known, but not as a key in JSON
        raise TypeError("Only dicts with str-like or number-like keys are supported")
    for kind, of in _KINDS:
        if isinstance(value, kind):
            return of(value)
    raise TypeError(f"Encoding objects of type {type(value).__qualname__} is unsupported")


_encoded: Final = json.Encoder(enc_hook=_plain).encode


def _json(value: object) -> bytes:
    """Raises ValueError for NaN and infinity, of which the encoder makes a null."""
    data = _encoded(value)
    if b"null" in data and not _is_finite(to_builtins(value, enc_hook=_plain)):
        raise ValueError("JSON has no NaN and no infinity: give None for what is missing")
    return data


def _is_finite(value: Any) -> bool:
    """Are all numbers in it? Of the kinds that `to_builtins` gives."""
    kind = type(value)
    if kind is float:
        return isfinite(value)
    if kind is dict:
        value = value.values()
    elif kind is not list and kind is not tuple:
        return True
    return all(map(_is_finite, value))


_CODECS: Final = {
    "json": _Codec(_json, json.Decoder().decode),
    "str": _Codec(str.encode, bytes.decode),
    "msgpack": _Codec(msgpack.Encoder(enc_hook=_plain).encode, msgpack.Decoder().decode),
    "pickle": _Codec(_pickled, _unpickled),
}


NAMES: Final = tuple(_CODECS)
"""What can be given by name."""


def serializer_of(option: str, given: str | Serializer | None) -> Serializer | None:
    """What the option stands for; None for bytes as they are.

    Raises InvalidArgumentError for what is neither a function nor a name that is known.
    """
    if given is None:
        return None
    return _codec(option, given).to_bytes if isinstance(given, str) else _function(option, given)


def deserializer_of(option: str, given: str | Deserializer | None) -> Deserializer | None:
    """As `serializer_of`, from bytes."""
    if given is None:
        return None
    return _codec(option, given).from_bytes if isinstance(given, str) else _function(option, given)


def _codec(option: str, name: str) -> _Codec:
    if name not in _CODECS:
        names = ", ".join(map(repr, _CODECS))
        raise InvalidArgumentError(
            f"{option}={name!r} is not known{did_you_mean(name, _CODECS)}; it is a function, one of {names}, "
            "or None"
        )
    return _CODECS[name]


def _function(option: str, given: object) -> Callable[[Any], Any]:
    if callable(given):
        return given
    names = ", ".join(map(repr, _CODECS))
    raise InvalidArgumentError(f"{option} is {given!r:.100}; it is a function, one of {names}, or None")
