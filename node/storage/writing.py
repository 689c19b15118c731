"""Carries a plan out: one LMDB transaction, one fsync, then the new state becomes visible."""

from typing import TYPE_CHECKING

from tailrace.protocol.batch import BatchHeader, check_crc, header_of, stamp
from tailrace.protocol.errors import CorruptBatchError, StorageFaultError

from . import epochs, schema
from .hot import HotTail
from .log_plan import LogPlan
from .planner import Plan
from .producer_table import ProducerTable
from .schema import PartitionRow
from .space import live_pages
from .tables import Tables

if TYPE_CHECKING:
    from lmdb import Transaction


class PlanWriter:
    """Writes plans. Belongs to the writer thread."""

    def __init__(self, tables: Tables, producers: ProducerTable) -> None:
        self._tables = tables
        self._producers = producers
        self._hot = HotTail()

    def write(self, plan: Plan) -> int:
        """Store the plan, all or nothing; then publish it. Returns by how many pages the logs grew.

        Raises lmdb.Error, StorageFaultError if a log does not end where it should, CorruptBatchError if a
        batch in shared memory is not what its header says; after each, nothing of the plan is stored.
        """
        with self._tables.environment.begin(write=True, buffers=True) as transaction:
            written = [(log_plan, *self._put(transaction, log_plan)) for log_plan in plan.logs.values()]
            self._tables.measure_sometimes(transaction)
        grown = 0
        for log_plan, row, pages in written:
            log = log_plan.log
            grown += pages - log.live_pages
            appended = row.size_bytes - log.size_bytes
            self._producers.committed(log, log_plan.producers)
            log.live_pages = pages
            log.adopt(row, log_plan.epochs, log_plan.last_batch())
            self._hot.appended(log, appended)
        return grown

    def _put(self, transaction: "Transaction[memoryview]", plan: LogPlan) -> tuple[PartitionRow, int]:
        """All of one log; returns its new row, and the pages it then has."""
        log, tables = plan.log, self._tables
        for batch, base_offset, leader_epoch in plan.stamps:
            stamp(batch, base_offset, leader_epoch)
        with transaction.cursor(db=log.database) as cursor:
            entries = [(schema.offset_key(last_offset), batch) for last_offset, batch in plan.batches]
            _, added = cursor.putmulti(entries, append=True)
        if added != len(entries):
            raise StorageFaultError(
                f"the log of partition {log.name} does not end at {log.log_end_offset - 1}"
            )
        for last_offset, header in plan.shared:
            stored = transaction.get(schema.offset_key(last_offset), db=log.database)
            check_stored(log.name, header, stored)
        for timestamp, last_offset in plan.index:
            key = schema.time_key(log.partition_id, timestamp)
            transaction.put(key, schema.pack_number(last_offset), db=tables.time_index)
        if plan.epochs is not log.epochs:
            epochs.replace(transaction, tables.epochs, log.partition_id, log.epochs, plan.epochs)
        self._producers.put(transaction, log, plan.producers)
        row = plan.row()
        transaction.put(schema.partition_key(log.partition_id), row.pack(), db=tables.partitions)
        return row, live_pages(transaction, log.database)


def check_stored(partition: str, header: BatchHeader, stored: memoryview | None) -> None:
    """Raises CorruptBatchError unless `stored` is, byte for byte, what the header speaks of."""
    if stored is None or len(stored) != header.size or header_of(stored) != header:
        raise CorruptBatchError(f"a batch for {partition} was changed by its client while it was stored")
    check_crc(stored, header)
