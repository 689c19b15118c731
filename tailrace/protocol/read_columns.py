"""The native body (magic 0x54), whose grammar stands in columns.py. Reading, without trusting any length."""

import struct
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from .batch import ALL_KEYS, COLUMNS_AT, COMPRESSION_MASK, HEADER_BYTES, BatchHeader
from .buffers import (
    check_bitmap,
    check_offsets,
    even_items,
    even_width,
    items_between,
    padding,
    unpack_bitmap,
    unpack_offsets,
    with_nulls,
)
from .columns import (
    DIRECTORY_ENTRY,
    DIRECTORY_HEAD,
    HEADER_KEYS,
    HEADER_VALUES,
    KEYS,
    SIZE_PREFIX,
    VALUES,
    BinaryKinds,
    Kind,
)
from .compression import decompress
from .errors import CorruptBatchError
from .limits import BATCH_HEADERS_MAX
from .record import Headers

_LAST_KIND: Final = max(Kind)
_KINDS: Final = len(Kind)
_PADDING: Final = bytes(COLUMNS_AT - HEADER_BYTES)
_KEY_KINDS: Final = frozenset((Kind.KEY_OFFSETS, Kind.KEY_DATA, Kind.KEY_VALIDITY))
_HEADER_KINDS: Final = frozenset(kind for kind in Kind if kind.name.startswith("HEADER_"))


class Span(NamedTuple):
    """Where a buffer lies in the body. `length` is without its padding."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """Where its padding begins."""
        return self.start + self.length


class Layout(NamedTuple):
    """Where everything is in a body that ends at `end`: buffers by kind, and the padding between them."""

    spans: Mapping[int, Span]
    paddings: Sequence[slice]
    end: int


class BinaryColumn:
    """A checked column of bytes or nulls; decoded when asked for."""

    def __init__(self, body: bytes, spans: Mapping[int, Span], kinds: BinaryKinds, count: int) -> None:
        what = kinds.data._name_
        self.offsets = _sized(spans, kinds.offsets, 4 * (count + 1))
        self.data = _sized(spans, kinds.data, None)
        self.validity = None if kinds.validity is None else spans.get(kinds.validity)
        self.body = body
        self.count = count
        self.width = even_width(body, self.offsets.start, count, self.data.length)
        """The length of every item, if that was seen at a glance; else 0."""
        self._ends: list[int] = []
        if not self.width:
            self._ends = check_offsets(body, self.offsets.start, count, self.data.length, what)
        if self.validity is not None:
            check_bitmap(self._bitmap(), count, what)

    def items(self) -> list[bytes | None]:
        """The values, in order."""
        items: list[bytes]
        if self.width:
            items = even_items(self.body, self.data.start, self.count, self.width)
        else:
            items = items_between(self.body, self.data.start, self._unpacked())
        if self.validity is None:
            return list[bytes | None](items)
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
    """The columns of one batch, all lengths checked. `body` holds the buffers that the spans name.

    `front` is the header with its padding, `body` what follows it.
    """

    def __init__(self, header: BatchHeader, front: bytes, body: bytes) -> None:
        self.header = header
        self.count = count = header.record_count
        if front[HEADER_BYTES:] != _PADDING:
            raise CorruptBatchError("the header is not padded to 64 bytes with zeros")
        self.body = _plain(body, header) if header.attributes & COMPRESSION_MASK else body
        self.spans = spans = _read_directory(self.body)
        self.value_column = BinaryColumn(self.body, spans, VALUES, count)
        self.key_column: BinaryColumn | None = None
        if not spans.keys().isdisjoint(_KEY_KINDS):
            self.key_column = BinaryColumn(self.body, spans, KEYS, count)
        all_keys = self.key_column is not None and self.key_column.validity is None
        if all_keys != bool(header.attributes & ALL_KEYS):
            raise CorruptBatchError(f"attribute bit {ALL_KEYS:#x} does not agree with the key column")
        self._check_timestamps()
        self.offsets = self._read_offsets()
        self.header_columns = None if spans.keys().isdisjoint(_HEADER_KINDS) else self._read_headers()

    def values(self) -> list[bytes | None]:
        """Every record's value."""
        return self.value_column.items()

    def keys(self) -> list[bytes | None]:
        """Every record's key."""
        return [None] * self.count if self.key_column is None else self.key_column.items()

    def timestamps(self) -> list[int]:
        """Every record's timestamp."""
        span = self.spans.get(Kind.TIMESTAMPS)
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

    def _check_timestamps(self) -> None:
        if Kind.TIMESTAMPS in self.spans:
            _sized(self.spans, Kind.TIMESTAMPS, 8 * self.count)
        elif self.header.base_timestamp != self.header.max_timestamp and not self.header.log_append_time:
            raise CorruptBatchError("no timestamp column, but base and max timestamp differ")

    def _read_offsets(self) -> Sequence[int]:
        base, last = self.header.base_offset, self.header.last_offset_delta
        if Kind.OFFSET_DELTAS not in self.spans:
            if last != self.count - 1:
                raise CorruptBatchError(
                    f"{self.count} records up to offset delta {last}, but no offset deltas"
                )
            return range(base, base + self.count)
        span = _sized(self.spans, Kind.OFFSET_DELTAS, 4 * self.count)
        deltas = struct.unpack_from(f"<{self.count}i", self.body, span.start)
        if (
            deltas[0] < 0
            or deltas[-1] != last
            or len(set(deltas)) != self.count
            or sorted(deltas) != list(deltas)
        ):
            raise CorruptBatchError(f"offset deltas do not ascend to {last}")
        return list(map(base.__add__, deltas))

    def _read_headers(self) -> HeaderColumns:
        counts = _sized(self.spans, Kind.HEADER_COUNTS, 4 * (self.count + 1))
        total = _sized(self.spans, Kind.HEADER_KEY_OFFSETS, None).length // 4 - 1
        if not 0 < total <= BATCH_HEADERS_MAX:
            raise CorruptBatchError(f"header columns for {total} headers, 1 to {BATCH_HEADERS_MAX} a batch")
        starts = unpack_offsets(self.body, counts.start, self.count, total, Kind.HEADER_COUNTS.name)
        names = BinaryColumn(self.body, self.spans, HEADER_KEYS, total)
        if not self.body[names.data.start : names.data.end].isascii():
            _check_texts(names)
        return HeaderColumns(starts, names, BinaryColumn(self.body, self.spans, HEADER_VALUES, total))


def _check_texts(column: BinaryColumn) -> None:
    """Each item is UTF-8 by itself, not only all of them in a row."""
    try:
        deque(map(bytes.decode, column.items()), maxlen=0)  # type: ignore[arg-type]
    except UnicodeDecodeError as error:
        raise CorruptBatchError(f"header key: {error}") from None


def _plain(body: bytes, header: BatchHeader) -> bytes:
    """The body without its compression."""
    at = SIZE_PREFIX.size
    if len(body) < at:
        raise CorruptBatchError("a compressed body without its size")
    (size,) = SIZE_PREFIX.unpack_from(body)
    return decompress(header.compression, memoryview(body)[at:], size)


def _read_directory(body: bytes) -> Mapping[int, Span]:
    """The spans of all buffers: known kinds, ascending, within the body, padded with zeros, to its end."""
    at = DIRECTORY_HEAD.size
    if len(body) < at:
        raise CorruptBatchError("the column directory is cut off")
    count, *reserved = DIRECTORY_HEAD.unpack_from(body)
    end = at + count * DIRECTORY_ENTRY.size
    if any(reserved) or count > _KINDS or end > len(body):
        raise CorruptBatchError(f"a column directory of {count} entries that does not fit")
    layout = _layout(body[at:end], end)
    if layout.end != len(body):
        raise CorruptBatchError(f"columns of {layout.end} bytes in a body of {len(body)}")
    for between in layout.paddings:
        if any(body[between]):
            raise CorruptBatchError(f"a column that ends at {between.start} is not padded with zeros")
    return layout.spans


@lru_cache(maxsize=64)
def _layout(entries: bytes, end: int) -> Layout:
    """That of the buffers that lie from `end` on.

    Kept, since the batches of one producer often have the same.
    """
    spans: dict[int, Span] = {}
    paddings: list[slice] = []
    last_kind = 0
    for kind, zeros, length in DIRECTORY_ENTRY.iter_unpack(entries):
        if not last_kind < kind <= _LAST_KIND or any(zeros):
            raise CorruptBatchError(f"column kind {kind} after {last_kind}")
        spans[kind] = Span(end, length)
        stop = end + length
        last_kind, end = kind, stop + padding(length)
        if stop < end:
            paddings.append(slice(stop, end))
    return Layout(MappingProxyType(spans), tuple(paddings), end)


def _sized(spans: Mapping[int, Span], kind: Kind, length: int | None) -> Span:
    """The span of a column that must be there, of this length if one is given."""
    span = spans.get(kind)
    if span is None or (length is not None and span.length != length):
        found = "is missing" if span is None else f"has {span.length} bytes, not {length}"
        raise CorruptBatchError(f"column {kind.name} {found}")
    return span
