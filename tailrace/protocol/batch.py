"""The envelope of a batch: byte for byte the header of Kafka's record batch v2, big endian.

     0  base offset         i64   stamped by the leader, outside the CRC
     8  length              i32   bytes after this field
    12  leader epoch        i32   stamped by the leader, outside the CRC
    16  magic               i8    2: Kafka's rows from byte 61; 0x54: columns from byte 64
    17  CRC-32C             u32   of everything from byte 21 to the end
    21  attributes          u16   bits below
    23  last offset delta   i32   last offset - base offset
    27  base timestamp      i64   of the first record, in milliseconds since 1970
    35  max timestamp       i64
    43  producer id         i64   -1: none
    51  producer epoch      i16
    53  base sequence       i32
    57  record count        i32
    61  records

Storage, replication and idempotence read this header only, never the records.
"""

import struct
from collections.abc import Callable, Iterable
from functools import partial, reduce
from itertools import chain
from typing import Final, NamedTuple

from .compression import Compression
from .crc import Buffer, crc32c_from, crc32c_of_parts, extend_bytes
from .errors import BatchTooLargeError, CorruptBatchError, InvalidArgumentError
from .limits import BATCH_BYTES_MAX, BATCH_RECORDS_MAX
from .parts import SMALL_PART_BYTES, Parts, Payload, parts_of

HEADER_BYTES: Final = 61
COLUMNS_AT: Final = 64
MAGIC_ROWS: Final = 2
MAGIC_COLUMNS: Final = 0x54

COMPRESSION_MASK: Final = 0x07
LOG_APPEND_TIME: Final = 0x08
"""Every record's timestamp is the max timestamp."""
TRANSACTIONAL: Final = 0x10
CONTROL: Final = 0x20
ALL_KEYS: Final = 0x100
"""Columns only: every record has a key."""

INT64_MAX: Final = 2**63 - 1

_CODECS: Final = tuple(Compression)
_LENGTH_END: Final = 12
_CRC_END: Final = 21
_HEADER: Final = struct.Struct(">qiibIHiqqqhii")
_FRONT: Final = struct.Struct(">qiibI")
_BACK: Final = struct.Struct(">Hiqqqhii")
_OFFSET: Final = struct.Struct(">q")
_EPOCH: Final = struct.Struct(">i")
_EPOCH_AT: Final = 12
_PRODUCER: Final = struct.Struct(">qhi")
_PRODUCER_AT: Final = 43

assert list(_CODECS) == list(range(len(_CODECS)))
assert _HEADER.size == HEADER_BYTES
assert _FRONT.size == _CRC_END


class BatchHeader(NamedTuple):
    """The fields of the envelope. `length` counts the bytes after itself, `size` all of them."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def last_offset(self) -> int:
        """The highest offset that belongs to the batch."""
        return self.base_offset + self.last_offset_delta

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + _LENGTH_END

    @property
    def compression(self) -> Compression:
        """The codec of the body."""
        return _CODECS[self.attributes & COMPRESSION_MASK]

    @property
    def log_append_time(self) -> bool:
        """Do all records carry the max timestamp?"""
        return bool(self.attributes & LOG_APPEND_TIME)


_from_fields: Final[Callable[[tuple[int, ...]], BatchHeader]] = partial(tuple.__new__, BatchHeader)
"""`BatchHeader._make`, in C: it is done for each batch wherever one passes."""
assert len(BatchHeader._fields) == len(_HEADER.unpack(bytes(HEADER_BYTES)))


def parse_header(batch: Buffer) -> BatchHeader:
    """The header of one whole batch, its fields checked against each other and the batch's size.

    Raises BatchTooLargeError if it really is too large, CorruptBatchError for all that it only says.
    The CRC is `check_crc`'s.
    """
    size = len(batch)
    if size < HEADER_BYTES:
        raise CorruptBatchError(f"a batch of {size} bytes, its header alone has {HEADER_BYTES}")
    if size > BATCH_BYTES_MAX:
        raise BatchTooLargeError(f"a batch of {size} bytes, at most {BATCH_BYTES_MAX}")
    header = _from_fields(_HEADER.unpack_from(batch))
    if header.length != size - _LENGTH_END:
        raise CorruptBatchError(f"a batch of {size} bytes that says {header.length} + {_LENGTH_END}")
    if header.magic not in (MAGIC_COLUMNS, MAGIC_ROWS):
        raise CorruptBatchError(f"magic {header.magic} is neither {MAGIC_ROWS} nor {MAGIC_COLUMNS}")
    if header.attributes & COMPRESSION_MASK > Compression.ZSTD:
        raise CorruptBatchError(f"unknown compression {header.attributes & COMPRESSION_MASK}")
    count, delta = header.record_count, header.last_offset_delta
    if not 1 <= count <= BATCH_RECORDS_MAX:
        raise CorruptBatchError(f"a batch of {count} records, 1 to {BATCH_RECORDS_MAX} are possible")
    if delta < count - 1:
        raise CorruptBatchError(f"{count} records up to offset delta {delta}")
    if not 0 <= header.base_offset <= INT64_MAX - delta:
        raise CorruptBatchError(f"base offset {header.base_offset} with delta {delta}")
    return header


def header_of(batch: Buffer) -> BatchHeader:
    """The header of what was a whole batch when it was checked."""
    return _from_fields(_HEADER.unpack_from(batch))


def check_crc(batch: Buffer, header: BatchHeader) -> None:
    """Raises CorruptBatchError if the CRC-32C does not hold. Costs 3 us for 100 KB."""
    actual = crc32c_from(batch, _CRC_END)
    if actual != header.crc:
        raise _wrong_crc(actual, header)


def copy_of(batch: Buffer, header: BatchHeader, *, verify_crc: bool = True) -> tuple[bytes, bytes]:
    """Copies of the header, with its padding if there is room for it, and of the body behind it.

    Raises CorruptBatchError if the CRC-32C of the copies does not hold: there its check needs no others.
    """
    at = COLUMNS_AT if header.magic == MAGIC_COLUMNS else HEADER_BYTES
    front, body = bytes(batch[:at]), bytes(batch[at:])
    if verify_crc:
        actual = extend_bytes(extend_bytes(0, front[_CRC_END:]), body)
        if actual != header.crc:
            raise _wrong_crc(actual, header)
    return front, body


def _wrong_crc(actual: int, header: BatchHeader) -> CorruptBatchError:
    return CorruptBatchError(f"CRC-32C {actual:#010x}, the batch says {header.crc:#010x}")


def stamp(batch: memoryview, base_offset: int, leader_epoch: int) -> None:
    """Write the leader's two fields in place; they lie outside the CRC."""
    _OFFSET.pack_into(batch, 0, base_offset)
    _EPOCH.pack_into(batch, _EPOCH_AT, leader_epoch)


def base_offset_of(batch: bytes | memoryview) -> int:
    """What `stamp` has written."""
    offset: int = _OFFSET.unpack_from(batch)[0]
    return offset


def with_producer(batch: Payload, producer_id: int, producer_epoch: int, base_sequence: int) -> Parts:
    """The batch under another producer id, epoch and sequence, with its new CRC. Only its header is copied.

    `batch` is what `seal` gave. Raises InvalidArgumentError for a number that its field cannot hold.
    """
    try:
        producer = _PRODUCER.pack(producer_id, producer_epoch, base_sequence)
    except struct.error as error:
        raise InvalidArgumentError(
            f"producer {producer_id}, {producer_epoch}, {base_sequence}: {error}"
        ) from None
    first, *others = parts_of(batch)
    base_offset, length, leader_epoch, magic, _ = _FRONT.unpack_from(first)
    header = bytes(first[:HEADER_BYTES])
    head = header[_CRC_END:_PRODUCER_AT] + producer + header[_PRODUCER_AT + _PRODUCER.size :]
    others.insert(0, memoryview(first)[HEADER_BYTES:])
    front = _FRONT.pack(base_offset, length, leader_epoch, magic, crc32c_of_parts((head, *others)))
    return Parts((front + head, *others))


def seal(
    magic: int, fields: tuple[int, ...], body: Iterable[bytes], size: int, room: memoryview | None = None
) -> bytes | Parts:
    """One whole batch of base offset 0: the header around the parts of a body, of `size` bytes together.

    `fields` are the header's from the attributes on. What is small is joined; the first part of what is not
    holds all of the header. With `room`, the batch lies in there. Raises BatchTooLargeError;
    InvalidArgumentError for a field out of its range; TypeError when the parts have another size.
    """
    if HEADER_BYTES + size > BATCH_BYTES_MAX:
        raise BatchTooLargeError(f"a batch of {HEADER_BYTES + size} bytes, at most {BATCH_BYTES_MAX}")
    try:
        back = _BACK.pack(*fields)
    except struct.error as error:
        raise InvalidArgumentError(f"batch header: {error}") from None
    length = HEADER_BYTES - _LENGTH_END + size
    if room is not None:
        crc = _write(chain((back,), body), room[_CRC_END : HEADER_BYTES + size])
        _FRONT.pack_into(room, 0, 0, length, -1, magic, crc)
        return Parts((room[: HEADER_BYTES + size],))
    parts = [back, *body]
    if size < SMALL_PART_BYTES * len(parts):
        parts = [b"".join(parts)]
    parts[0] = _FRONT.pack(0, length, -1, magic, reduce(extend_bytes, parts, 0)) + parts[0]
    batch = parts[0] if len(parts) == 1 else Parts(parts)
    if len(batch) != HEADER_BYTES + size:
        raise TypeError(f"parts of {len(batch) - HEADER_BYTES} bytes that were counted as {size}")
    return batch


def _write(parts: Iterable[bytes], room: memoryview) -> int:
    """Fill `room` with the parts, and sum each while it is in the processor's caches. The CRC-32C of all.

    Raises TypeError if they have another size.
    """
    crc = at = end = 0
    for part in parts:
        crc = extend_bytes(crc, part)
        end = at + len(part)
        if end > len(room):
            break
        room[at:end] = part
        at = end
    if end != len(room):
        raise TypeError(f"parts of at least {end} bytes for {len(room)}")
    return crc
