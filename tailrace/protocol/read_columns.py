"""The native body (magic 0x54), whose grammar stands in columns.py. Reading, without trusting any length."""

import struct
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Final, NamedTuple

from .batch import ALL_KEYS, COLUMNS_AT, COMPRESSION_MASK, HEADER_BYTES, BatchHeader
from .buffers import (
    check_bitmap,
    check_offsets,
    even_items,
    even_width,
    items_between,
    unpack_bitmap,
    unpack_offsets,
    with_nulls,
)
from .columns import SIZE_PREFIX, Kind
from .compression import decompress
from .errors import CorruptBatchError
from .layout import BinarySpans, HeaderSpans, Span, layout_of
from .record import Headers

_PADDING: Final = bytes(COLUMNS_AT - HEADER_BYTES)


class BinaryColumn:
    """A checked column of bytes or nulls; decoded when asked for."""

    def __init__(self, body: bytes, spans: BinarySpans, count: int) -> None:
        self.offsets, self.data, self.validity, name = spans
        self.body = body
        self.count = count
        self.width = even_width(body, self.offsets.start, count, self.data.length)
        """The length of every item, if that was seen at a glance; else 0."""
        self._ends: list[int] = []
        if not self.width:
            self._ends = check_offsets(body, self.offsets.start, count, self.data.length, name)
        if self.validity is not None:
            check_bitmap(self._bitmap(), count, name)

    def items(self) -> list[bytes | None]:
        """The values, in order."""
        if self.width:
            items = even_items(self.body, self.data.start, self.count, self.width)
        else:
            items = items_between(self.body, self.data.start, self._unpacked())
        if self.validity is None:
            return items
        return with_nulls(unpack_bitmap(self._bitmap(), self.count), items)

    @property
    def has_nulls(self) -> bool:
        """Is any item null?"""
        if self.validity is None:
            return False
        return int.from_bytes(self._bitmap(), "little").bit_count() < self.count

    def _unpacked(self) -> list[int]:
        if not self._ends:
            self._ends = list(struct.unpack_from(f"<{self.count + 1}i", self.body, self.offsets.start))
        return self._ends

    def _bitmap(self) -> bytes:
        assert self.validity is not None
        return self.body[self.validity.start : self.validity.end]


class HeaderColumns(NamedTuple):
    """The headers of all records in a row; those of record i are at `starts[i]` up to `starts[i + 1]`."""

    starts: list[int]
    names: BinaryColumn
    values: BinaryColumn


class Columns:
    """The columns of one batch, all lengths checked. `body` holds the buffers that the layout names.

    `front` is the header with its padding, `body` what follows it.
    """

    def __init__(self, header: BatchHeader, front: bytes, body: bytes) -> None:
        self.header = header
        self.count = count = header.record_count
        if front[HEADER_BYTES:] != _PADDING:
            raise CorruptBatchError("the header is not padded to 64 bytes with zeros")
        if header.attributes & COMPRESSION_MASK:
            body = _decompressed(body, header)
        self.body = body
        self.layout = layout = layout_of(body, count)
        self.value_column = BinaryColumn(body, layout.values, count)
        self.key_column = None if layout.keys is None else BinaryColumn(body, layout.keys, count)
        all_keys = layout.keys is not None and layout.keys.validity is None
        if all_keys != bool(header.attributes & ALL_KEYS):
            raise CorruptBatchError(f"attribute bit {ALL_KEYS:#x} does not agree with the key column")
        if (
            layout.timestamps is None
            and header.base_timestamp != header.max_timestamp
            and not header.log_append_time
        ):
            raise CorruptBatchError("no timestamp column, but base and max timestamp differ")
        base, deltas = header.base_offset, layout.offset_deltas
        if deltas is None and header.last_offset_delta != count - 1:
            raise CorruptBatchError(f"{count} records up to {header.last_offset_delta} without offset deltas")
        self.offsets: Sequence[int] = (
            range(base, base + count) if deltas is None else self._read_offsets(deltas)
        )
        self.header_columns = None if layout.headers is None else self._read_headers(layout.headers)

    def values(self) -> list[bytes | None]:
        """Every record's value."""
        return self.value_column.items()

    def keys(self) -> list[bytes | None]:
        """Every record's key."""
        return [None] * self.count if self.key_column is None else self.key_column.items()

    def timestamps(self) -> list[int]:
        """Every record's timestamp."""
        span = self.layout.timestamps
        if span is None or self.header.log_append_time:
            return [self.header.max_timestamp] * self.count
        return list(struct.unpack_from(f"<{self.count}q", self.body, span.start))

    def headers(self) -> list[Headers]:
        """Every record's headers."""
        if self.header_columns is None:
            return [()] * self.count
        starts, names, values = self.header_columns
        pairs = tuple(zip(map(bytes.decode, names.items()), values.items(), strict=True))  # type: ignore[arg-type]
        return list(map(pairs.__getitem__, map(slice, starts, starts[1:])))

    def fields(self) -> tuple[Iterable[object], ...]:
        """Timestamps, keys, values and headers, to go through once. What all share has no end."""
        header = self.header
        one_timestamp = self.layout.timestamps is None or header.log_append_time
        return (
            repeat(header.max_timestamp) if one_timestamp else self.timestamps(),
            repeat(None) if self.key_column is None else self.key_column.items(),
            self.value_column.items(),
            repeat(()) if self.header_columns is None else self.headers(),
        )

    def _read_offsets(self, span: Span) -> list[int]:
        base, last = self.header.base_offset, self.header.last_offset_delta
        deltas = struct.unpack_from(f"<{self.count}i", self.body, span.start)
        if (
            deltas[0] < 0
            or deltas[-1] != last
            or len(set(deltas)) != self.count
            or sorted(deltas) != list(deltas)
        ):
            raise CorruptBatchError(f"offset deltas do not ascend to {last}")
        return list(map(base.__add__, deltas))

    def _read_headers(self, spans: HeaderSpans) -> HeaderColumns:
        starts = unpack_offsets(
            self.body, spans.counts.start, self.count, spans.total, Kind.HEADER_COUNTS.name
        )
        names = BinaryColumn(self.body, spans.names, spans.total)
        if not self.body[names.data.start : names.data.end].isascii():
            _check_texts(names)
        return HeaderColumns(starts, names, BinaryColumn(self.body, spans.values, spans.total))


def _check_texts(column: BinaryColumn) -> None:
    """Each item is UTF-8 by itself, not only all of them in a row."""
    try:
        deque(map(bytes.decode, column.items()), maxlen=0)  # type: ignore[arg-type]
    except UnicodeDecodeError as error:
        raise CorruptBatchError(f"header key: {error}") from None


def _decompressed(body: bytes, header: BatchHeader) -> bytes:
    at = SIZE_PREFIX.size
    if len(body) < at:
        raise CorruptBatchError("a compressed body without its size")
    (size,) = SIZE_PREFIX.unpack_from(body)
    return decompress(header.compression, memoryview(body)[at:], size)
