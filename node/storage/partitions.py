"""The partitions table and the leader epochs: transactions on them, without effect on memory."""

from collections.abc import Sequence

from . import epochs, schema
from .folder import damaged
from .partition_log import PartitionKey, PartitionLog
from .schema import PartitionRow
from .space import live_pages
from .tables import DAMAGE, Tables


def load(tables: Tables) -> list[PartitionLog]:
    """All partitions, also those that are being deleted. Touches no batch. Raises DataFolderError."""
    try:
        return _load(tables)
    except DAMAGE as error:
        raise damaged(tables.folder.path, f"a log's table cannot be read ({error})") from error


def _load(tables: Tables) -> list[PartitionLog]:
    logs: list[PartitionLog] = []
    # A handle lasts only if the transaction that opened it commits, so this one writes, though nothing.
    with tables.environment.begin(write=True) as transaction:
        known = epochs.read_all(transaction, tables.epochs)
        for key, value in list(transaction.cursor(db=tables.partitions)):
            partition_id = schema.read_partition_key(key)
            row = schema.read_partition_row(value)
            database = tables.log_database(transaction, partition_id, create=False)
            pages = live_pages(transaction, database)
            log = PartitionLog(partition_id, row, database, pages, known.get(partition_id, ()))
            log.removed = bool(row.flags & schema.PARTITION_DELETING)
            logs.append(log)
    return logs


def create(tables: Tables, keys: Sequence[PartitionKey]) -> list[PartitionLog]:
    """New empty logs."""
    logs: list[PartitionLog] = []
    with tables.environment.begin(write=True) as transaction:
        first = tables.number(transaction, schema.NODE_NEXT_PARTITION_ID)
        for partition_id, (topic_id, partition) in enumerate(keys, first):
            row = PartitionRow(topic_id, partition, 0, 0, 0, 0, -1, schema.NO_TIMESTAMP, 0)
            transaction.put(schema.partition_key(partition_id), row.pack(), db=tables.partitions)
            database = tables.log_database(transaction, partition_id, create=True)
            logs.append(PartitionLog(partition_id, row, database, live_pages(transaction, database)))
        tables.put_number(transaction, schema.NODE_NEXT_PARTITION_ID, first + len(keys))
        tables.measure(transaction)
    return logs


def mark_deleting(tables: Tables, logs: Sequence[PartitionLog]) -> None:
    """These partitions never come back, also if the process is killed before they are deleted."""
    with tables.environment.begin(write=True) as transaction:
        for log in logs:
            row = log.row()._replace(flags=schema.PARTITION_DELETING)
            transaction.put(schema.partition_key(log.partition_id), row.pack(), db=tables.partitions)


def put_epochs(tables: Tables, rows: Sequence[tuple[PartitionLog, PartitionRow]]) -> None:
    """Store the rows, whose leader epochs are new and start at the logs' ends."""
    with tables.environment.begin(write=True) as transaction:
        for log, row in rows:
            key = schema.epoch_key(log.partition_id, row.leader_epoch)
            transaction.put(key, schema.pack_number(row.log_end_offset), db=tables.epochs)
            transaction.put(schema.partition_key(log.partition_id), row.pack(), db=tables.partitions)
        tables.measure(transaction)


def put_rows(tables: Tables, logs: Sequence[PartitionLog]) -> None:
    """Store the rows of these logs as memory has them."""
    with tables.environment.begin(write=True) as transaction:
        for log in logs:
            transaction.put(schema.partition_key(log.partition_id), log.row().pack(), db=tables.partitions)
