"""Records in columns, as `send_many` gets them."""

from collections.abc import Iterable, Sequence
from operator import add, length_hint
from typing import Any, NamedTuple

from tailrace.client.serializers import Serializer
from tailrace.protocol.record import Headers

from .arguments import check_length, column_of, header_column_of, timestamps_of
from .batch import RECORD_OVERHEAD_BYTES


class Columns(NamedTuple):
    """Records in columns. `sizes` are the bytes of key, value and headers of each."""

    values: Sequence[bytes | None]
    keys: Sequence[bytes | None] | None
    headers: Sequence[Headers] | None
    timestamps: int | Sequence[int] | None
    sizes: Sequence[int]

    def cut(self, start: int, stop: int) -> "Columns":
        """The records from `start` to before `stop`."""
        stamps = self.timestamps
        return Columns(
            self.values[start:stop],
            None if self.keys is None else self.keys[start:stop],
            None if self.headers is None else self.headers[start:stop],
            stamps if stamps is None or isinstance(stamps, int) else stamps[start:stop],
            self.sizes[start:stop],
        )

    @property
    def memory(self) -> int:
        """Bytes that the records take in batches, at most."""
        return sum(self.sizes) + RECORD_OVERHEAD_BYTES * len(self.sizes)


def columns_of(
    values: Iterable[Any],
    keys: Iterable[Any] | None,
    headers: Iterable[Headers | None] | None,
    timestamps_ms: int | Iterable[int] | None,
    *,
    serializers: tuple[Serializer | None, Serializer | None],
) -> Columns:
    """What `send_many` was given, checked; `serializers` are those of keys and of values.

    Raises InvalidArgumentError or SerializationError that name the first thing that does not fit.
    """
    key_serializer, value_serializer = serializers
    value_column = column_of("values", values, value_serializer)
    count = len(value_column)
    key_column = None
    if keys is not None:
        key_column = column_of("keys", keys, key_serializer)
        check_length("keys", key_column, count)
    header_column, header_sizes = (None, None) if headers is None else header_column_of(headers, count)
    stamps = timestamps_of(timestamps_ms, count)
    return Columns(
        value_column, key_column, header_column, stamps, _sizes(value_column, key_column, header_sizes)
    )


def _sizes(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None,
    header_sizes: Sequence[int] | None,
) -> list[int]:
    """The bytes of key, value and headers of each record."""
    sizes = _lengths(values)
    if keys is not None:
        sizes = list(map(add, sizes, _lengths(keys)))
    if header_sizes is not None:
        sizes = list(map(add, sizes, header_sizes))
    return sizes


def _lengths(items: Sequence[bytes | None]) -> list[int]:
    try:
        return list(map(len, items))  # type: ignore[arg-type]
    except TypeError:  # there are nulls, whose hint is 0
        return list(map(length_hint, items))
