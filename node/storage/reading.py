"""Reads of a log: MVCC snapshots of microseconds, copied out. From any thread."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import lmdb

from tailrace.protocol.batch import HEADER_BYTES, check_crc, parse_header
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import (
    CorruptBatchError,
    OffsetOutOfRangeError,
    StorageFaultError,
    TailraceError,
    UnknownPartitionError,
)

from . import schema
from .partition_log import PartitionLog
from .tables import Tables

if TYPE_CHECKING:
    from lmdb import Cursor, Transaction

B = TypeVar("B")
Keep: TypeAlias = Callable[[memoryview | bytes], B | None]
"""Copies a batch, which stands only during the call; None: it is not wanted, nor what follows it."""

_PLACE: Final = Struct(">qi11xi")
"""Base offset, length and last offset delta of a batch's header."""
_TIMES: Final = Struct(">27xqq")
_LENGTH_END: Final = 12
SCAN_SLICE_BATCHES: Final = 256
"""Headers looked at in one read transaction."""

_read_key = Struct("=Q").unpack


def read(
    tables: Tables, log: PartitionLog, offset: int, max_bytes: int, upto: int, *, keep: Keep[B]
) -> list[B]:
    """Whole batches from the one that holds `offset`, up to `max_bytes` but at least one, while `keep` does.

    Only batches that end below `upto`. Raises OffsetOutOfRangeError, CorruptBatchError,
    UnknownPartitionError, StorageFaultError.
    """
    refuse_out_of_range(log, offset)
    last = log.last_batch
    if last is not None and last.base_offset <= offset <= last.last_offset < upto:
        refuse_removed(log)
        kept = keep(last.batch)
        return [] if kept is None else [kept]
    batches: list[B] = []
    try:
        with tables.environment.begin(db=log.database, buffers=True) as transaction:
            cursor = transaction.cursor()
            room = max_bytes
            positioned = cursor.set_range(schema.offset_key(offset))
            while positioned:
                key, batch = cursor.item()
                (last_offset,) = _read_key(key)
                room -= len(batch)
                if last_offset >= upto or (room < 0 and batches):
                    break
                check_place(log.name, last_offset, batch)
                if not batches and _PLACE.unpack_from(batch)[0] > offset:
                    _refuse_cut_off(tables, transaction, log, offset)
                kept = keep(batch)
                if kept is None:
                    break
                batches.append(kept)
                positioned = room > 0 and cursor.next()
            if not batches:
                _refuse_cut_off(tables, transaction, log, offset)
    except lmdb.Error as error:
        raise read_error(log, error) from error
    refuse_removed(log)
    return batches


def checked(log: PartitionLog, keep: Keep[B]) -> Keep[B]:
    """Gives `keep` only batches whose CRC holds. One that does not ends the read, or fails as its first."""
    before = False

    def keep_whole(batch: memoryview | bytes) -> B | None:
        nonlocal before
        try:
            check_crc(batch, parse_header(batch))
        except CorruptBatchError as error:
            if before:
                return None
            raise CorruptBatchError(f"partition {log.name}, a batch on disk: {error}") from error
        before = True
        return keep(batch)

    return keep_whole


def refuse_out_of_range(log: PartitionLog, offset: int) -> None:
    """Raises OffsetOutOfRangeError; the log's end itself is in range."""
    _refuse_outside(log, offset, log.log_start_offset, log.log_end_offset)


def _refuse_cut_off(
    tables: Tables, transaction: "Transaction[memoryview]", log: PartitionLog, offset: int
) -> None:
    """Raises OffsetOutOfRangeError if the log has begun behind `offset` since that was found to be in range.

    Asked where no batch holds the offset: what comes next would be taken for what follows it.
    """
    stored = transaction.get(schema.partition_key(log.partition_id), db=tables.partitions)
    if stored is not None:
        row = schema.read_partition_row(stored)
        _refuse_outside(log, offset, row.log_start_offset, row.log_end_offset)


def _refuse_outside(log: PartitionLog, offset: int, start: int, end: int) -> None:
    if not start <= offset <= end:
        raise OffsetOutOfRangeError(f"offset {offset} of partition {log.name}, which holds {start} to {end}")


def refuse_removed(log: PartitionLog) -> None:
    """Asked after a read: LMDB may have given a deleted log's handle to another log meanwhile."""
    if log.removed:
        raise UnknownPartitionError(f"partition {log.name} was removed")


def check_place(partition: str, last_offset: int, batch: bytes | memoryview) -> None:
    """Raises CorruptBatchError if what is stored under `last_offset` cannot be that batch."""
    complaint = misplaced(last_offset, batch)
    if complaint is not None:
        raise CorruptBatchError(f"partition {partition}, offset {last_offset}: {complaint}")


def misplaced(last_offset: int, batch: bytes | memoryview) -> str | None:
    """Why this cannot be the batch that ends at `last_offset`; None: it may be."""
    size = len(batch)
    if size < HEADER_BYTES:
        return f"{size} bytes are no batch"
    base_offset, length, delta = _PLACE.unpack_from(batch)
    if base_offset + delta != last_offset or length != size - _LENGTH_END or delta < 0:
        return f"{size} bytes that say {length} + {_LENGTH_END} bytes, offsets {base_offset} + {delta}"
    return None


def offset_for_timestamp(tables: Tables, log: PartitionLog, timestamp: int) -> tuple[int, int] | None:
    """The first (offset, timestamp) at or after `timestamp`, below the high watermark; None: there is none.

    Raises CorruptBatchError, UnknownPartitionError, StorageFaultError.
    """
    try:
        start = _index_entry(tables, log, timestamp)
        while start is not None:
            start, batch = _scan(tables, log, max(start, log.log_start_offset), timestamp)
            found = None if batch is None else _first_record(log, batch, timestamp)
            if found is not None:
                refuse_removed(log)
                return found
    except lmdb.Error as error:
        raise read_error(log, error) from error
    refuse_removed(log)
    return None


def _index_entry(tables: Tables, log: PartitionLog, timestamp: int) -> int | None:
    """Last offset of the first batch ever whose max timestamp was at or after `timestamp`."""
    with tables.environment.begin(db=tables.time_index) as transaction:
        cursor = transaction.cursor()
        if not cursor.set_range(schema.time_key(log.partition_id, max(timestamp, 0))):
            return None
        partition_id, _ = schema.read_time_key(cursor.key())
        return schema.read_number(cursor.value()) if partition_id == log.partition_id else None


def _scan(tables: Tables, log: PartitionLog, start: int, timestamp: int) -> tuple[int | None, bytes | None]:
    """(where to go on, the next batch whose max timestamp is at or after `timestamp`)."""
    high_watermark = log.high_watermark
    last_offset = start - 1
    with tables.environment.begin(db=log.database, buffers=True) as transaction:
        for last_offset, batch in _walk(transaction.cursor(), start, SCAN_SLICE_BATCHES):
            check_place(log.name, last_offset, batch)
            if _PLACE.unpack_from(batch)[0] >= high_watermark:
                return None, None
            if _TIMES.unpack_from(batch)[1] >= timestamp:
                return last_offset + 1, bytes(batch)
    return (None if last_offset < start else last_offset + 1), None


def _walk(cursor: "Cursor[memoryview]", start: int, count: int) -> Iterator[tuple[int, memoryview]]:
    positioned = cursor.set_range(schema.offset_key(start))
    while positioned and count > 0:
        key, batch = cursor.item()
        yield _read_key(key)[0], batch
        positioned = cursor.next()
        count -= 1


def _first_record(log: PartitionLog, batch: bytes, timestamp: int) -> tuple[int, int] | None:
    start, end = log.log_start_offset, log.high_watermark
    decoded = decode(batch)
    for offset, time in zip(decoded.offsets, decoded.timestamps, strict=True):
        if time >= timestamp and start <= offset < end:
            return offset, time
    return None


@contextmanager
def reads_of(log: PartitionLog) -> Iterator[None]:
    """What fails within is told as an error of this log, if it is one: see `read_error`."""
    try:
        yield
    except lmdb.Error as error:
        raise read_error(log, error) from error


def read_error(log: PartitionLog, error: lmdb.Error) -> TailraceError:
    """Pages that do not fit are a fault of this log; anything else is none that is known of it."""
    if log.removed:
        return UnknownPartitionError(f"partition {log.name} was removed")
    if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError):
        return CorruptBatchError(f"reading partition {log.name}: {error}")
    return StorageFaultError(f"reading partition {log.name}: {error}")
