"""Deletes a removed partition in slices: its batches, then all that the tables hold of it."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import lmdb

from . import schema
from .partition_log import PartitionLog
from .retention import SLICE_BATCHES, SLICE_BYTES
from .space import live_pages
from .tables import Tables

if TYPE_CHECKING:
    from lmdb import Transaction
    from lmdb import _Database as Database

SLICE_ROWS: Final = 4_096
"""Rows of the shared tables that one slice deletes at most."""

logger: Final = logging.getLogger(__name__)


def delete_slice(tables: Tables, log: PartitionLog) -> bool:
    """Delete one slice; is more left? The partition's row goes last, together with the empty log.

    A log with damaged pages stays as it is, which is logged, and keeps its space: nobody asks for it.
    """
    try:
        return _delete_slice(tables, log)
    except (lmdb.CorruptedError, lmdb.PageNotFoundError) as error:
        logger.error("%s is damaged and cannot be deleted, its space is lost: %s", log.name, error)
        return False


def _delete_slice(tables: Tables, log: PartitionLog) -> bool:
    shared = (tables.time_index, tables.epochs, tables.producers, tables.aborted_transactions)
    with tables.environment.begin(write=True) as transaction:
        more = _delete_batches(transaction, log.database) or delete_rows(
            transaction, shared, log.partition_id
        )
        pages = live_pages(transaction, log.database)
        tables.measure(transaction)
    log.live_pages = pages
    if not more:
        _drop(tables, log)
    return more


def _delete_batches(transaction: "Transaction[bytes]", database: "Database") -> bool:
    """One slice of the log from its head; True if batches are left."""
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
    return positioned


def delete_rows(
    transaction: "Transaction[bytes]", shared_tables: "Sequence[Database]", partition_id: int
) -> bool:
    """One slice of the partition's rows in these tables; True if rows may be left."""
    prefix = schema.partition_key(partition_id)
    room = SLICE_ROWS
    for table in shared_tables:
        doomed: list[bytes] = []
        cursor = transaction.cursor(db=table)
        positioned = cursor.set_range(prefix)
        while positioned and len(doomed) < room and cursor.key()[: len(prefix)] == prefix:
            doomed.append(cursor.key())
            positioned = cursor.next()
        for key in doomed:
            transaction.delete(key, db=table)
        room -= len(doomed)
    return room == 0


def _drop(tables: Tables, log: PartitionLog) -> None:
    try:
        with tables.environment.begin(write=True) as transaction:
            transaction.delete(schema.partition_key(log.partition_id), db=tables.partitions)
            transaction.drop(log.database)
            tables.measure(transaction)
    except lmdb.Error:
        # LMDB closes a dropped database's handle at once, also if the transaction then fails.
        with tables.environment.begin(write=True) as transaction:
            log.database = tables.log_database(transaction, log.partition_id, create=False)
        raise
    log.live_pages = 0
