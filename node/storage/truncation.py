"""Cuts the end off a follower's log, where it and its leader's part; or empties it, to start elsewhere.

What is cut off is gone from every table, as if it had never been appended.
"""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from tailrace.protocol.batch import BatchHeader, header_of
from tailrace.protocol.errors import CorruptBatchError

from . import deletion, epochs, retention, schema
from .partition_log import PartitionLog
from .producer_table import ProducerTable
from .producers import Rebuilt, rolled_back
from .reading import check_place, reads_of, refuse_out_of_range, refuse_removed
from .schema import PartitionRow, ProducerRow
from .space import live_pages
from .tables import Tables

if TYPE_CHECKING:
    from lmdb import Transaction

logger: Final = logging.getLogger(__name__)


class Tail(NamedTuple):
    """What is to be cut off: all batches from `end_offset` on."""

    end_offset: int
    last_offsets: list[int]
    size_bytes: int
    first_headers: dict[int, BatchHeader]
    """By producer id: its first batch of the tail."""


def truncate(tables: Tables, producers: ProducerTable, log: PartitionLog, offset: int) -> None:
    """See `Storage.truncate`.

    One transaction, since an offset, an epoch or a sequence that outlives its batch makes replicas differ.
    So its cost is not bounded: about 10 us a batch, and the first page of each has to be read; LMDB lists
    the freed pages in memory, 8 bytes each, and stores that list in adjacent pages. What is cut off is what
    a leader had not replicated, and that is little; only under an unclean leader a log loses much.
    """
    refuse_removed(log)
    if offset < log.log_start_offset:
        refuse_out_of_range(log, offset)
    tail = _find_tail(tables, log, offset)
    if tail.last_offsets or epochs.before(log.epochs, tail.end_offset) != log.epochs:
        _cut_off(tables, producers, log, tail)


def reset_slice(tables: Tables, producers: ProducerTable, log: PartitionLog, start_offset: int) -> bool:
    """See `Storage.reset`. Between its slices the log is a valid one, that starts ever later."""
    refuse_removed(log)
    if log.log_start_offset <= start_offset < log.log_end_offset and log.high_watermark <= start_offset:
        # What was never committed goes first, so that the high watermark is not dragged along by the rest.
        truncate(tables, producers, log, start_offset)
        return True
    if log.log_start_offset < log.log_end_offset:
        retention.advance_start(tables, log, log.log_end_offset)
        return True
    row = log.row()._replace(
        log_start_offset=start_offset,
        log_end_offset=start_offset,
        high_watermark=start_offset,
        leader_epoch=epochs.NO_EPOCH,
        max_timestamp=schema.NO_TIMESTAMP,
    )
    with tables.environment.begin(write=True) as transaction:
        more = deletion.delete_rows(transaction, (tables.time_index, tables.producers), log.partition_id)
        if not more:
            _refuse_leftovers(transaction, log)
            epochs.replace(transaction, tables.epochs, log.partition_id, log.epochs, ())
            transaction.put(schema.partition_key(log.partition_id), row.pack(), db=tables.partitions)
        tables.measure(transaction)
    producers.forget(log)
    if not more:
        _adopt(log, row, ())
    return more


def _refuse_leftovers(transaction: "Transaction[bytes]", log: PartitionLog) -> None:
    """An emptied log that is not empty is faulty: going on behind what is left would take it in."""
    if transaction.stat(log.database)["entries"]:
        raise CorruptBatchError(f"partition {log.name}: something is left beyond its end")


def _adopt(log: PartitionLog, row: PartitionRow, kept_epochs: epochs.Epochs) -> None:
    if row.high_watermark < log.high_watermark:
        logger.warning(
            "partition %s: its leader lacks what was committed, offsets %d to %d are lost",
            log.name, row.high_watermark, log.high_watermark - 1,
        )  # fmt: skip
    log.hot_offset = min(max(log.hot_offset, row.log_start_offset), row.log_end_offset)
    log.adopt(row, kept_epochs)
    log.high_watermark = row.high_watermark


def _find_tail(tables: Tables, log: PartitionLog, offset: int) -> Tail:
    """A batch that holds `offset` goes as a whole."""
    end_offset = min(offset, log.log_end_offset)
    last_offsets: list[int] = []
    size = 0
    first_headers: dict[int, BatchHeader] = {}
    with reads_of(log), tables.environment.begin(db=log.database, buffers=True) as transaction:
        cursor = transaction.cursor()
        positioned = cursor.set_range(schema.offset_key(end_offset))
        while positioned:
            last_offset, header = _header(log, *cursor.item())
            end_offset = min(end_offset, header.base_offset)
            last_offsets.append(last_offset)
            size += header.size
            if header.producer_id >= 0:
                first_headers.setdefault(header.producer_id, header)
            positioned = cursor.next()
    return Tail(end_offset, last_offsets, size, first_headers)


def _header(log: PartitionLog, key: memoryview, batch: memoryview) -> tuple[int, BatchHeader]:
    last_offset = schema.read_offset_key(key)
    check_place(log.name, last_offset, batch)
    return last_offset, header_of(batch)


def _cut_off(tables: Tables, producers: ProducerTable, log: PartitionLog, tail: Tail) -> None:
    """One transaction, then publish."""
    end = tail.end_offset
    kept_rows, dropped = _roll_back(tables, producers, log, tail)
    kept_epochs = epochs.before(log.epochs, end)
    with tables.environment.begin(write=True) as transaction:
        for last_offset in tail.last_offsets:
            transaction.delete(schema.offset_key(last_offset), db=log.database)
        epochs.replace(transaction, tables.epochs, log.partition_id, log.epochs, kept_epochs)
        producers.put(transaction, log, kept_rows)
        producers.delete(transaction, log, dropped)
        row = log.row()._replace(
            log_end_offset=end,
            high_watermark=min(log.high_watermark, end),
            leader_epoch=epochs.latest(kept_epochs),
            max_timestamp=_cut_time_index(tables, transaction, log, end),
            size_bytes=log.size_bytes - tail.size_bytes,
        )
        transaction.put(schema.partition_key(log.partition_id), row.pack(), db=tables.partitions)
        pages = live_pages(transaction, log.database)
        tables.measure(transaction)
    producers.committed(log, kept_rows)
    producers.forget(log, dropped)
    if log.head is not None and log.head.last_offset >= end:
        log.head = None
    log.live_pages = pages
    _adopt(log, row, kept_epochs)


def _cut_time_index(tables: Tables, transaction: "Transaction[bytes]", log: PartitionLog, end: int) -> int:
    """Drop the entries from `end` on, all of them if nothing is left of the log; the highest time left."""
    floor = end if end > log.log_start_offset else 0
    doomed: list[bytes] = []
    newest = schema.NO_TIMESTAMP
    cursor = transaction.cursor(db=tables.time_index)
    beyond = cursor.set_range(schema.partition_key(log.partition_id + 1))
    positioned = cursor.prev() if beyond else cursor.last()
    while positioned and schema.read_partition_key(cursor.key()) == log.partition_id:
        if schema.read_number(cursor.value()) < floor:
            newest = schema.read_time_key(cursor.key())[1]
            break
        doomed.append(cursor.key())
        positioned = cursor.prev()
    for key in doomed:
        transaction.delete(key, db=tables.time_index)
    return newest


def _roll_back(
    tables: Tables, producers: ProducerTable, log: PartitionLog, tail: Tail
) -> tuple[dict[int, ProducerRow], list[int]]:
    """(rows as they are without the tail, producer ids that are then unknown)."""
    kept: dict[int, ProducerRow] = {}
    dropped: list[int] = []
    emptied: dict[int, Rebuilt] = {}
    for producer_id, first in tail.first_headers.items():
        row = producers.lookup(log, producer_id)
        if row is None:  # expired
            continue
        left = rolled_back(row, tail.end_offset)
        if left is not None:
            kept[producer_id] = left
        elif first.producer_epoch == 0 and first.base_sequence == 0:
            dropped.append(producer_id)  # nothing can come before this
        else:
            emptied[producer_id] = Rebuilt(row)
    if emptied:
        _rebuild(tables, log, tail.end_offset, dict(emptied))
    for producer_id, rebuilt in emptied.items():
        old = rebuilt.row()
        if old is None:
            dropped.append(producer_id)
        else:
            kept[producer_id] = old
    return kept, dropped


def _rebuild(tables: Tables, log: PartitionLog, end: int, wanted: dict[int, Rebuilt]) -> None:
    """Look for these producers' batches from `end` back, in the worst case through all of the log.

    It takes a producer with a new epoch, or 64 batches or more, in the tail alone to come here.
    """
    for header in _backwards(tables, log, end):
        rebuilt = wanted.get(header.producer_id)
        if rebuilt is not None and not rebuilt.take(header):
            del wanted[header.producer_id]
            if not wanted:
                break


def _backwards(tables: Tables, log: PartitionLog, end: int) -> Iterator[BatchHeader]:
    with reads_of(log), tables.environment.begin(db=log.database, buffers=True) as transaction:
        cursor = transaction.cursor()
        positioned = cursor.prev() if cursor.set_range(schema.offset_key(end)) else cursor.last()
        while positioned:
            yield _header(log, *cursor.item())[1]
            positioned = cursor.prev()
