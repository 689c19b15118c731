"""Deletes a removed partition in slices: its batches, then all that the tables hold of it."""

from typing import TYPE_CHECKING, Final

from . import schema
from .partition_log import PartitionLog
from .retention import SLICE_BATCHES, SLICE_BYTES
from .space import live_pages
from .tables import Tables

if TYPE_CHECKING:
    from lmdb import Transaction
    from lmdb import _Database as Database

SLICE_ROWS: Final = 4_096


def delete_slice(tables: Tables, log: PartitionLog) -> tuple[bool, int]:
    """(is more left?, freed pages). The first slice marks the partition, so that it never comes back."""
    row = log.row()._replace(flags=schema.PARTITION_DELETING)
    with tables.environment.begin(write=True) as transaction:
        more = not _delete_batches(transaction, log.database)
        if not more:
            more = not all(
                _delete_rows(transaction, table, log.partition_id)
                for table in (tables.time_index, tables.epochs, tables.producers, tables.aborted_transactions)
            )
        if more:
            transaction.put(schema.partition_key(log.partition_id), row.pack(), db=tables.partitions)
            pages = live_pages(transaction, log.database)
        else:
            transaction.delete(schema.partition_key(log.partition_id), db=tables.partitions)
            transaction.drop(log.database)
            pages = 0
    freed = log.live_pages - pages
    log.live_pages = pages
    return more, freed


def _delete_batches(transaction: "Transaction[bytes]", database: "Database") -> bool:
    """One slice of the log from its head; True once it is empty."""
    doomed: list[bytes] = []
    size = 0
    cursor = transaction.cursor(db=database)
    positioned = cursor.first()
    while positioned and len(doomed) < SLICE_BATCHES and size < SLICE_BYTES:
        doomed.append(cursor.key())
        size += len(cursor.value())
        positioned = cursor.next()
    for key in doomed:
        transaction.delete(key, db=database)
    return not positioned


def _delete_rows(transaction: "Transaction[bytes]", table: "Database", partition_id: int) -> bool:
    """One slice of the partition's rows in a shared table; True once there are none."""
    prefix = schema.partition_key(partition_id)
    doomed: list[bytes] = []
    cursor = transaction.cursor(db=table)
    positioned = cursor.set_range(prefix)
    while positioned and len(doomed) < SLICE_ROWS and cursor.key()[: len(prefix)] == prefix:
        doomed.append(cursor.key())
        positioned = cursor.next()
    for key in doomed:
        transaction.delete(key, db=table)
    return len(doomed) < SLICE_ROWS
