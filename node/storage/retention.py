"""Deletes from the head of a log what is too old or too much, in small slices."""

from typing import TYPE_CHECKING, Final, NamedTuple

from tailrace.protocol.batch import parse_header
from tailrace.protocol.limits import MIB

from . import schema
from .partition_log import Head, PartitionLog
from .reading import check_place, reads_of
from .space import live_pages
from .tables import Tables

if TYPE_CHECKING:
    from lmdb import Cursor, Transaction

SLICE_BATCHES: Final = 256
SLICE_BYTES: Final = 16 * MIB
"""What one slice deletes at most: a produce request waits no longer than such a transaction takes."""


class Cut(NamedTuple):
    """What a slice deletes: the first batches of a log."""

    last_offsets: list[int]
    size_bytes: int
    more: bool


def find_cut(tables: Tables, log: PartitionLog, retention_ms: int, retention_bytes: int, now_ms: int) -> Cut:
    """The batches at the head that may go now. -1: no bound.

    By time: a batch goes when its max timestamp is more than `retention_ms` ago. By bytes: a batch
    goes while at least `retention_bytes` remain without it. Nothing at or above the high
    watermark goes.
    """
    oldest = now_ms - retention_ms if retention_ms >= 0 else None
    surplus = log.size_bytes - retention_bytes if retention_bytes >= 0 else 0
    cut: list[int] = []
    size = 0
    if oldest is None and surplus <= 0:
        return Cut(cut, size, more=False)
    if log.head is not None and not _goes(log.head, oldest, surplus):
        return Cut(cut, size, more=False)
    with reads_of(log), tables.environment.begin(db=log.database, buffers=True) as transaction:
        cursor = transaction.cursor()
        positioned = cursor.first()
        while positioned:
            head = _head(log, cursor)
            if not cut:
                log.head = head
            if not _goes(head, oldest, surplus - size) or head.last_offset >= log.high_watermark:
                return Cut(cut, size, more=False)
            if cut and (len(cut) == SLICE_BATCHES or size + head.size > SLICE_BYTES):
                return Cut(cut, size, more=True)
            cut.append(head.last_offset)
            size += head.size
            positioned = cursor.next()
    return Cut(cut, size, more=False)


def _goes(head: Head, oldest: int | None, surplus: int) -> bool:
    return (oldest is not None and head.max_timestamp < oldest) or head.size <= surplus


def _head(log: PartitionLog, cursor: "Cursor[memoryview]") -> Head:
    key, batch = cursor.item()
    last_offset = schema.read_offset_key(key)
    check_place(log.name, last_offset, batch)
    return Head(last_offset, parse_header(batch).max_timestamp, len(batch))


def advance_start(tables: Tables, log: PartitionLog, offset: int) -> bool:
    """Delete one slice of the batches that end below `offset`, whatever they hold; True if more is left."""
    cut: list[int] = []
    size, more = 0, False
    with reads_of(log), tables.environment.begin(db=log.database, buffers=True) as transaction:
        cursor = transaction.cursor()
        positioned = cursor.first()
        while positioned:
            last_offset, batch_bytes = schema.read_offset_key(cursor.key()), len(cursor.value())
            if last_offset >= offset:
                break
            more = bool(cut) and (len(cut) == SLICE_BATCHES or size + batch_bytes > SLICE_BYTES)
            if more:
                break
            cut.append(last_offset)
            size += batch_bytes
            positioned = cursor.next()
    if cut:
        cut_off(tables, log, Cut(cut, size, more))
    return more


def cut_off(tables: Tables, log: PartitionLog, cut: Cut) -> None:
    """Delete the batches and what pointed to them; then publish."""
    start = cut.last_offsets[-1] + 1
    row = log.row()._replace(
        log_start_offset=start,
        high_watermark=max(log.high_watermark, start),
        size_bytes=log.size_bytes - cut.size_bytes,
    )
    with tables.environment.begin(write=True) as transaction:
        for last_offset in cut.last_offsets:
            transaction.delete(schema.offset_key(last_offset), db=log.database)
        if start == row.log_end_offset:
            prune_time_index(tables, transaction, log, start, keep_newest=False)
            row = row._replace(max_timestamp=schema.NO_TIMESTAMP)
        else:
            prune_time_index(tables, transaction, log, start, keep_newest=True)
        transaction.put(schema.partition_key(log.partition_id), row.pack(), db=tables.partitions)
        pages = live_pages(transaction, log.database)
        tables.measure(transaction)
    log.head = None  # not before: what there is no room to delete stays the head
    log.live_pages = pages
    log.adopt(row)
    log.hot_offset = max(log.hot_offset, start)


def prune_time_index(
    tables: Tables, transaction: "Transaction[bytes]", log: PartitionLog, start: int, *, keep_newest: bool
) -> None:
    """Drop the entries below the log start, but the newest of them.

    That one is still needed: a lookup between it and the next entry must begin at the log start.
    """
    doomed: list[bytes] = []
    cursor = transaction.cursor(db=tables.time_index)
    positioned = cursor.set_range(schema.partition_key(log.partition_id))
    while positioned:
        key, value = cursor.item()
        if schema.read_partition_key(key) != log.partition_id or schema.read_number(value) >= start:
            break
        doomed.append(key)
        positioned = cursor.next()
    for key in doomed[:-1] if keep_newest else doomed:
        transaction.delete(key, db=tables.time_index)
