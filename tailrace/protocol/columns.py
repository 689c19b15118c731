"""The native body (magic 0x54): the columns of a batch as buffers, in Arrow's layout. Writing.

    batch        := header (61 bytes, batch.py), 3 zero bytes, body
    body         := columns                              when the compression bits are 0
                  | size u64, codec(columns)             else; `size` is that of the columns
    columns      := directory, buffer*
    directory    := count u16, zero u16, zero u32, entry{count}
    entry        := kind u8, zero u8[3], length u32      kinds ascend
    buffer       := byte{length}, zero bytes up to a multiple of 8

Little endian; buffers in the order of the directory. The kinds, where n is the record count and h the
number of all headers:

     1  key offsets             i32[n+1]   1, 2 absent: no record has a key
     2  key data
     3  key validity            bit[n]     absent: every record has a key (attribute bit 0x100)
     4  value offsets           i32[n+1]   always there
     5  value data
     6  value validity          bit[n]     absent: no value is null
     7  timestamps              i64[n]     absent: all equal the base timestamp
     8  header counts           i32[n+1]   headers before record i; 8-12 absent: no record has headers
     9  header key offsets      i32[h+1]
    10  header key data         UTF-8, each key by itself
    11  header value offsets    i32[h+1]
    12  header value data
    13  header value validity   bit[h]     absent: no header value is null
    14  offset deltas           i32[n]     absent: 0, 1, ... n-1; else ascending to the last offset delta

A bit is 1 where there is a value; bitmaps start at the least significant bit and end in zero bits.
Whatever deviates is corrupt, unknown kinds included: an extension needs another magic or attribute bit.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import accumulate, chain, repeat
from operator import add, is_not, itemgetter, length_hint, sub
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from .batch import ALL_KEYS, COLUMNS_AT, HEADER_BYTES, MAGIC_COLUMNS, seal
from .buffers import ALIGNMENT, PackedItems, PackedTimestamps, pack_bitmap, pack_offsets, padding
from .compression import Compression, compress
from .errors import BatchTooLargeError, InvalidArgumentError
from .limits import (
    BATCH_BODY_BYTES_MAX,
    BATCH_HEADERS_MAX,
    BATCH_RECORDS_MAX,
    HEADERS_PER_RECORD_MAX,
    RECORD_BYTES_MAX,
)
from .parts import SMALL_PART_BYTES, Parts, in_parts, joined
from .record import Headers


class Kind(IntEnum):
    """The buffers of a body, in their order."""

    KEY_OFFSETS = 1
    KEY_DATA = 2
    KEY_VALIDITY = 3
    VALUE_OFFSETS = 4
    VALUE_DATA = 5
    VALUE_VALIDITY = 6
    TIMESTAMPS = 7
    HEADER_COUNTS = 8
    HEADER_KEY_OFFSETS = 9
    HEADER_KEY_DATA = 10
    HEADER_VALUE_OFFSETS = 11
    HEADER_VALUE_DATA = 12
    HEADER_VALUE_VALIDITY = 13
    OFFSET_DELTAS = 14


class BinaryKinds(NamedTuple):
    """The buffers of one column of bytes. Without `validity` it holds no nulls."""

    offsets: Kind
    data: Kind
    validity: Kind | None


KEYS: Final = BinaryKinds(Kind.KEY_OFFSETS, Kind.KEY_DATA, Kind.KEY_VALIDITY)
VALUES: Final = BinaryKinds(Kind.VALUE_OFFSETS, Kind.VALUE_DATA, Kind.VALUE_VALIDITY)
HEADER_KEYS: Final = BinaryKinds(Kind.HEADER_KEY_OFFSETS, Kind.HEADER_KEY_DATA, None)
HEADER_VALUES: Final = BinaryKinds(
    Kind.HEADER_VALUE_OFFSETS, Kind.HEADER_VALUE_DATA, Kind.HEADER_VALUE_VALIDITY
)

DIRECTORY_HEAD: Final = struct.Struct("<HHI")
DIRECTORY_ENTRY: Final = struct.Struct("<B3sI")
_DIRECTORIES: Final = [struct.Struct("<HHI" + "B3xI" * entries) for entries in range(len(Kind) + 1)]
"""By the number of entries."""
SIZE_PREFIX: Final = struct.Struct("<Q")

Items: TypeAlias = Sequence[bytes | None]
C = TypeVar("C", bound=Sequence[Any] | PackedItems)
_Buffer: TypeAlias = tuple[Kind, int, Sequence[Any]]
"""Its kind, its length, and the bytes-like objects that make it up."""

_GAP: Final = bytes(COLUMNS_AT - HEADER_BYTES)
_PADDING: Final = [bytes(padding(length)) for length in range(ALIGNMENT)]
"""By a buffer's length modulo ALIGNMENT."""
_NULLABLE_BYTES: Final = (bytes, bytearray, memoryview, type(None))
_EXACT_TYPES: Final = frozenset(_NULLABLE_BYTES)
_SEQUENCES: Final = (list, tuple, PackedItems)


class _Column(msgspec.Struct, frozen=True, gc=False):
    """The buffers of a column, and the length of every item; of header columns also how many a record has."""

    buffers: list[_Buffer]
    lengths: Sequence[int] | None
    has_nulls: bool
    counts: Sequence[int] = ()
    packed: PackedItems | None = None
    """Where `lengths` are still to be read from."""


def encode(
    values: Items | PackedItems,
    keys: Items | PackedItems | None = None,
    timestamps: int | Sequence[int] | PackedTimestamps = 0,
    headers: Sequence[Headers] | None = None,
    **options: Any,
) -> bytes:
    """`encode_parts`, joined."""
    return bytes(joined(encode_parts(values, keys, timestamps, headers, **options)))


def encode_parts(
    values: Items | PackedItems,
    keys: Items | PackedItems | None = None,
    timestamps: int | Sequence[int] | PackedTimestamps = 0,
    headers: Sequence[Headers] | None = None,
    *,
    compression: Compression = Compression.NONE,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    room: memoryview | None = None,
) -> bytes | Parts:
    """One whole native batch of at least one record, base offset 0.

    Values and keys are bytes or None, or bytes-like objects, whose bytes are copied; large bytes are not.
    `timestamps` are milliseconds since 1970, one for all or one for each. A body that its codec does not
    make smaller is stored plain. A batch that fits is written into `room`, if there is one. Raises
    InvalidArgumentError, BatchTooLargeError.
    """
    values = _sequence("values", values)
    count = len(values)
    keys = None if keys is None else _sequence("keys", keys, count)
    headers = None if headers is None else _sequence("headers", headers, count)

    key_column = None if keys is None else _key_column(keys)
    value_column = _binary("values", values, VALUES)
    header_column = _headers(headers) if headers is not None and any(headers) else None
    base_timestamp, max_timestamp, stamps = _timestamps(timestamps, count)

    attributes = ALL_KEYS if key_column is not None and not key_column.has_nulls else 0
    try:
        parts, size = _body(key_column, value_column, stamps, header_column)
        if compression is not Compression.NONE:
            compression, parts, size = _compressed(compression, parts, size)
        return seal(
            MAGIC_COLUMNS,
            (attributes | compression, count - 1, base_timestamp, max_timestamp,
             producer_id, producer_epoch, base_sequence, count),
            chain((_GAP,), parts),
            len(_GAP) + size,
            room if room is not None and COLUMNS_AT + size <= len(room) else None,
        )  # fmt: skip
    except TypeError:
        for name, items in (("values", values), ("keys", keys or ())):
            if not isinstance(items, PackedItems):
                _check_types(name, items)
        _check_types("header values", [value for pairs in headers or () for _, value in pairs])
        raise InvalidArgumentError("values, keys and header values are bytes or None") from None


def _sequence(name: str, column: C, count: int | None = None) -> C:
    """The column as a list or tuple, if it is not packed; of this length if one is given."""
    try:
        found = len(column)
        if not isinstance(column, _SEQUENCES):
            column = list(column)  # type: ignore[assignment]
    except TypeError:
        raise InvalidArgumentError(f"{name} is {type(column).__name__}, not a sequence") from None
    if count is not None and found != count:
        raise InvalidArgumentError(f"{found} {name} for {count} values")
    if found < 1:
        raise InvalidArgumentError("a batch has at least one record")
    if found > BATCH_RECORDS_MAX:
        raise BatchTooLargeError(f"{found} records, at most {BATCH_RECORDS_MAX} a batch")
    return column


def _key_column(keys: Items | PackedItems) -> _Column | None:
    """None if no record has a key. Looked for last: comparing with None is slow where there are keys."""
    column = _binary("keys", keys, KEYS)
    if not column.has_nulls:
        return column
    nulls = keys.nulls if isinstance(keys, PackedItems) else keys.count(None)
    return None if nulls == len(keys) else column


def _packed(items: PackedItems, kinds: BinaryKinds) -> _Column:
    buffers: list[_Buffer] = [
        (kinds.offsets, len(items.offsets), (items.offsets,)),
        (kinds.data, items.size, items.data),
    ]
    if items.validity is not None:
        assert kinds.validity is not None
        buffers.append((kinds.validity, len(items.validity), (items.validity,)))
    return _Column(buffers, None, items.validity is not None, packed=items)


def _binary(name: str, items: Items | PackedItems, kinds: BinaryKinds) -> _Column:
    if isinstance(items, PackedItems):
        return _packed(items, kinds)
    try:
        lengths = list(map(len, items))  # type: ignore[arg-type]
    except TypeError:
        return _nullable(name, items, kinds)
    offsets, size = pack_offsets(lengths)
    buffers: list[_Buffer] = [(kinds.offsets, len(offsets), (offsets,)), (kinds.data, size, items)]
    return _Column(buffers, lengths, False)


def _nullable(name: str, items: Items, kinds: BinaryKinds) -> _Column:
    """A column with nulls, which are of length 0, and a validity bitmap."""
    _check_types(name, items)
    assert kinds.validity is not None
    lengths = list(map(length_hint, items))
    offsets, size = pack_offsets(lengths)
    validity = pack_bitmap(map(is_not, items, repeat(None)))
    buffers: list[_Buffer] = [
        (kinds.offsets, len(offsets), (offsets,)),
        (kinds.data, size, list(filter(None, items))),
        (kinds.validity, len(validity), (validity,)),
    ]
    return _Column(buffers, lengths, True)


def _check_types(name: str, items: Sequence[object]) -> None:
    """Raises InvalidArgumentError that names the first item that is neither bytes-like nor None."""
    if set(map(type, items)) <= _EXACT_TYPES:
        return
    for place, item in enumerate(items):
        if not isinstance(item, _NULLABLE_BYTES):
            raise InvalidArgumentError(f"{name}[{place}] is {type(item).__name__}, not bytes or None")


def _timestamps(
    timestamps: int | Sequence[int] | PackedTimestamps, count: int
) -> tuple[int, int, _Column | None]:
    """Base, maximum, and the column unless all are equal."""
    buffer = b""
    try:
        if isinstance(timestamps, int):
            base = last = timestamps
        elif isinstance(timestamps, PackedTimestamps):
            base, last, buffer = timestamps
        else:
            timestamps = _sequence("timestamps", timestamps, count)
            base = last = timestamps[0]
            if timestamps.count(base) != len(timestamps):
                buffer, last = struct.pack(f"<{len(timestamps)}q", *timestamps), max(timestamps)
        struct.pack("<q", base)
    except (struct.error, TypeError) as error:
        raise InvalidArgumentError(f"timestamps are int64 milliseconds: {error}") from None
    column = _Column([(Kind.TIMESTAMPS, len(buffer), (buffer,))], None, False) if buffer else None
    return base, last, column


def _headers(headers: Sequence[Headers]) -> _Column:
    try:
        counts = list(map(len, headers))
        pairs = list(chain.from_iterable(headers))
        if set(map(len, pairs)) != {2}:
            raise ValueError("not a pair")
        key_column = _texts(list(map(itemgetter(0), pairs)))
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidArgumentError(f"headers are lists of (str, bytes or None) pairs: {error}") from None
    if max(counts) > HEADERS_PER_RECORD_MAX:
        raise BatchTooLargeError(f"{max(counts)} headers in a record, at most {HEADERS_PER_RECORD_MAX}")
    if len(pairs) > BATCH_HEADERS_MAX:
        raise BatchTooLargeError(f"{len(pairs)} headers, at most {BATCH_HEADERS_MAX} a batch")
    starts, _ = pack_offsets(counts)
    value_column = _binary("header values", list(map(itemgetter(1), pairs)), HEADER_VALUES)
    buffers = [(Kind.HEADER_COUNTS, len(starts), (starts,)), *key_column.buffers, *value_column.buffers]
    assert key_column.lengths is not None
    assert value_column.lengths is not None
    return _Column(buffers, list(map(add, key_column.lengths, value_column.lengths)), False, counts)


def _texts(names: list[str]) -> _Column:
    """The names of all headers. Raises TypeError, UnicodeEncodeError."""
    joined = "".join(names)
    if not joined.isascii():
        return _binary("header keys", list(map(str.encode, names)), HEADER_KEYS)
    lengths = list(map(len, names))
    offsets, size = pack_offsets(lengths)
    buffers: list[_Buffer] = [
        (HEADER_KEYS.offsets, len(offsets), (offsets,)),
        (HEADER_KEYS.data, size, (joined.encode(),)),
    ]
    return _Column(buffers, lengths, False)


def _body(*columns: _Column | None) -> tuple[Iterable[bytes], int]:
    """The parts of an uncompressed body, and their size. Several are made when asked for.

    TypeError comes now or then.
    """
    buffers: list[_Buffer] = []
    for column in columns:
        if column is not None:
            buffers += column.buffers
    count = len(buffers)
    entries: list[int] = []
    size = DIRECTORY_HEAD.size + DIRECTORY_ENTRY.size * count
    for kind, length, _ in buffers:
        entries += (kind, length)
        size += length + -length % ALIGNMENT
    directory = _DIRECTORIES[count].pack(count, 0, 0, *entries)
    if size < SMALL_PART_BYTES:
        return (_small(directory, buffers),), size
    if size > RECORD_BYTES_MAX:
        _check_sizes(size, [column for column in columns if column and (column.lengths or column.packed)])
    return _parts(directory, buffers), size


def _small(directory: bytes, buffers: list[_Buffer]) -> bytes:
    """All of a body."""
    pieces: list[Any] = [directory]
    for _, length, items in buffers:
        pieces += items
        pieces.append(_PADDING[length % ALIGNMENT])
    return b"".join(pieces)


def _parts(directory: bytes, buffers: list[_Buffer]) -> Iterator[bytes]:
    yield directory
    for _, length, items in buffers:
        yield from in_parts(items, length)
        if length % ALIGNMENT:
            yield _PADDING[length % ALIGNMENT]


def _check_sizes(size: int, columns: list[_Column]) -> None:
    """Only for batches large enough to hold a record over its bound."""
    largest = max(map(sum, zip(*map(_record_lengths, columns), strict=True)))
    if largest > RECORD_BYTES_MAX:
        raise BatchTooLargeError(f"a record of {largest} bytes, at most {RECORD_BYTES_MAX}")
    if size > BATCH_BODY_BYTES_MAX:
        raise BatchTooLargeError(f"{size} bytes of records, at most {BATCH_BODY_BYTES_MAX} a batch")


def _record_lengths(column: _Column) -> Sequence[int]:
    if column.packed is not None:
        return column.packed.lengths()
    assert column.lengths is not None
    if not column.counts:
        return column.lengths
    ends = list(accumulate(column.lengths, initial=0))
    marks = list(map(ends.__getitem__, accumulate(column.counts, initial=0)))
    return list(map(sub, marks[1:], marks))


def _compressed(
    codec: Compression, parts: Iterable[bytes], size: int
) -> tuple[Compression, Iterable[bytes], int]:
    """The compressed body, or the plain one where that is not larger."""
    plain = b"".join(parts)
    if len(plain) != size:
        raise InvalidArgumentError(
            f"{len(plain)} bytes where {size} were counted: items have changed meanwhile"
        )
    packed = compress(codec, plain)
    if SIZE_PREFIX.size + len(packed) >= size:
        return Compression.NONE, [plain], size
    return codec, [SIZE_PREFIX.pack(len(plain)), packed], SIZE_PREFIX.size + len(packed)
