"""A node's storage: all partition logs in one LMDB environment.

The writer thread owns every method that changes something; `read`, `offset_for_timestamp` and
the properties are for any thread. Every change is one transaction with one fsync, and memory
follows only once it is through, so that a process that is killed anywhere finds on the next
start what it had acknowledged, at once and without a scan.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import lmdb

from tailrace.protocol.errors import (
    FencedLeaderEpochError,
    LimitExceededError,
    StorageFaultError,
    StorageFullError,
    TailraceError,
)
from tailrace.protocol.limits import PARTITIONS_PER_NODE_MAX

from . import deletion, reading, retention, schema
from .ballast import Ballast
from .faults import storage_error
from .folder import DATA, DataFolder
from .partition_log import PartitionKey, PartitionLog
from .planner import Append, Appended, Plan, Planner
from .producer_table import ProducerTable
from .schema import PartitionRow
from .space import PAGE_BYTES, Space, live_pages
from .tables import Flush, Tables
from .writing import PlanWriter

T = TypeVar("T")


class Storage:
    """Open with `Storage.open`, close with `close`."""

    def __init__(self, folder: DataFolder, tables: Tables) -> None:
        self._folder = folder
        self._tables = tables
        self._space = tables.space
        self._ballast = Ballast(folder, tables.space)
        self._producers = ProducerTable(tables)
        self._writer = PlanWriter(tables, self._producers)
        self._fault: StorageFaultError | None = None
        self.storage_id = tables.storage_id
        self.clean = tables.clean
        """Was the last stop clean? True for new storage."""
        self.logs: dict[PartitionKey, PartitionLog] = {}
        """Replaced as a whole when partitions come or go, so that any thread may iterate."""
        self.removed: dict[PartitionKey, PartitionLog] = {}
        """Partitions whose deletion has begun, before the last stop maybe: call `delete_slice`."""
        self._live_pages = 0
        self._load()
        self._ballast.restore()

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        quota_bytes: int,
        reserve_bytes: int,
        flush: Flush = "commit",
        ephemeral: bool = False,
    ) -> "Storage":
        """Open a node's folder, made if it is not there. Takes constant time whatever the logs' size.

        `flush="relaxed"`: a power loss may take the last commit, and nothing else. `ephemeral`:
        nothing is synced, and after a stop that was not clean the storage starts empty, under a
        new id. Raises DataFolderError (in use, newer, foreign), InvalidConfigError,
        StorageFullError, StorageFaultError.
        """
        data_folder = DataFolder(folder)
        try:
            space = Space(data_folder.file(DATA), quota_bytes, reserve_bytes)
            tables = Tables(data_folder, space, flush, ephemeral)
        except BaseException:
            data_folder.close()
            raise
        try:
            return cls(data_folder, tables)
        except BaseException:
            tables.close(clean=False)
            data_folder.close()
            raise

    def _load(self) -> None:
        tables = self._tables
        # Handles that a transaction opens last only if it commits, so this one writes, though nothing.
        with tables.environment.begin(write=True) as transaction:
            rows = list(transaction.cursor(db=tables.partitions))
            for key, value in rows:
                partition_id = schema.read_partition_key(key)
                row = schema.read_partition_row(value)
                database = tables.log_database(transaction, partition_id, create=False)
                log = PartitionLog(partition_id, row, database, live_pages(transaction, database))
                log.removed = bool(row.flags & schema.PARTITION_DELETING)
                (self.removed if log.removed else self.logs)[log.key] = log
                self._live_pages += log.live_pages
            self._controller_epoch = tables.number(transaction, schema.NODE_CONTROLLER_EPOCH)

    # ------------------------------------------------------------- partitions

    def create(self, keys: Sequence[PartitionKey]) -> None:
        """Make empty logs, in one transaction; those that are there stay as they are.

        Raises LimitExceededError, StorageFullError, StorageFaultError.
        """
        for key in keys:
            while key in self.removed:
                self.delete_slice(key)
        new = [key for key in dict.fromkeys(keys) if key not in self.logs]
        if not new:
            return
        if len(self.logs) + len(self.removed) + len(new) > PARTITIONS_PER_NODE_MAX:
            raise LimitExceededError(
                f"{len(new)} more partitions on a node of {len(self.logs)}, at most {PARTITIONS_PER_NODE_MAX}"
            )
        created = self._change("creating partitions", lambda: self._create(new))
        self.logs = {**self.logs, **{log.key: log for log in created}}

    def _create(self, keys: Sequence[PartitionKey]) -> list[PartitionLog]:
        tables = self._tables
        logs: list[PartitionLog] = []
        with tables.environment.begin(write=True) as transaction:
            first = tables.number(transaction, schema.NODE_NEXT_PARTITION_ID)
            for partition_id, (topic_id, partition) in enumerate(keys, first):
                row = PartitionRow(topic_id, partition, 0, 0, 0, 0, -1, schema.NO_TIMESTAMP, 0)
                transaction.put(schema.partition_key(partition_id), row.pack(), db=tables.partitions)
                database = tables.log_database(transaction, partition_id, create=True)
                logs.append(PartitionLog(partition_id, row, database, 0))
            tables.put_number(transaction, schema.NODE_NEXT_PARTITION_ID, first + len(keys))
        return logs

    def begin_epoch(self, log: PartitionLog, leader_epoch: int) -> None:
        """See `begin_epochs`."""
        self.begin_epochs([(log, leader_epoch)])

    def begin_epochs(self, epochs: Sequence[tuple[PartitionLog, int]]) -> None:
        """Record that these leader epochs start at the logs' ends, in one transaction.

        An epoch that is recorded already is left alone. Raises FencedLeaderEpochError for one
        that is older than the log's, StorageFullError, StorageFaultError.
        """
        for log, leader_epoch in epochs:
            if leader_epoch < log.leader_epoch:
                raise FencedLeaderEpochError(
                    f"partition {log.name} is at leader epoch {log.leader_epoch}, asked for {leader_epoch}"
                )
        rows = [
            (log, log.row()._replace(leader_epoch=epoch)) for log, epoch in epochs if epoch > log.leader_epoch
        ]
        if rows:
            self._change("beginning leader epochs", lambda: self._put_epochs(rows))
            for log, row in rows:
                log.adopt(row)

    def _put_epochs(self, rows: Sequence[tuple[PartitionLog, PartitionRow]]) -> None:
        tables = self._tables
        with tables.environment.begin(write=True) as transaction:
            for log, row in rows:
                key = schema.epoch_key(log.partition_id, row.leader_epoch)
                transaction.put(key, schema.pack_number(row.log_end_offset), db=tables.epochs)
                transaction.put(schema.partition_key(log.partition_id), row.pack(), db=tables.partitions)

    def epochs(self, log: PartitionLog) -> list[tuple[int, int]]:
        """(leader epoch, start offset) of all epochs that the log has seen, oldest first. Any thread."""
        prefix = schema.partition_key(log.partition_id)
        found: list[tuple[int, int]] = []
        with self._tables.environment.begin(db=self._tables.epochs) as transaction:
            cursor = transaction.cursor()
            positioned = cursor.set_range(prefix)
            while positioned and cursor.key()[: len(prefix)] == prefix:
                found.append((schema.read_epoch_key(cursor.key())[1], schema.read_number(cursor.value())))
                positioned = cursor.next()
        return found

    @property
    def controller_epoch(self) -> int:
        """The highest controller epoch that this node has recorded."""
        return self._controller_epoch

    def record_controller_epoch(self, controller_epoch: int) -> None:
        """Remember the highest controller epoch seen; a lower one changes nothing."""
        if controller_epoch > self._controller_epoch:
            self._change(
                "recording the controller epoch", lambda: self._put_controller_epoch(controller_epoch)
            )
            self._controller_epoch = controller_epoch

    def _put_controller_epoch(self, controller_epoch: int) -> None:
        with self._tables.environment.begin(write=True) as transaction:
            self._tables.put_number(transaction, schema.NODE_CONTROLLER_EPOCH, controller_epoch)

    # ---------------------------------------------------------------- appends

    def commit(self, appends: Sequence[Append]) -> list[Appended | TailraceError]:
        """Append batches, all in one transaction with one fsync; results in the order of the appends.

        Each batch is checked, given its offsets and stored, or found to be a duplicate, or
        refused with an error of its own that does not hinder the others: CorruptBatchError,
        InvalidTimestampError, InvalidRecordError, OutOfOrderSequenceError, FencedProducerError,
        UnknownProducerIdError, StorageFullError. What was stored is durable and visible when
        this returns.

        Raises StorageFaultError when the disk failed: nothing may be acknowledged any more, and
        the node must stop.
        """
        self._refuse_faulted()
        plan = self._plan(appends)
        if not plan.logs:
            return plan.results
        try:
            self._carry_out(plan)
        except TailraceError as error:
            self._refuse_faulted()
            if len(appends) == 1:
                return [error]
            return [result for append in appends for result in self.commit([append])]
        return plan.results

    def _plan(self, appends: Sequence[Append]) -> Plan:
        room = self._space.capacity() - self.used_bytes
        return Planner(self._producers.lookup, room).plan(appends)

    def _carry_out(self, plan: Plan) -> None:
        self._live_pages += self._attempt("appending", lambda: self._writer.write(plan))

    # ------------------------------------------------------------------ reads

    def read(self, log: PartitionLog, offset: int, max_bytes: int, upto: int) -> list[bytes]:
        """See `reading.read`. Any thread."""
        return reading.read(self._tables, log, offset, max_bytes, upto)

    def offset_for_timestamp(self, log: PartitionLog, timestamp: int) -> tuple[int, int] | None:
        """See `reading.offset_for_timestamp`. Any thread; may wait for the disk."""
        return reading.offset_for_timestamp(self._tables, log, timestamp)

    # --------------------------------------------------------------- deleting

    def retain(self, log: PartitionLog, retention_ms: int, retention_bytes: int, now_ms: int) -> bool:
        """Delete one slice of what the log need not keep (see `retention.find_cut`); True if more is left.

        Also forgets producer ids that have been silent for `producer_table.EXPIRY_MS`. Raises
        CorruptBatchError, StorageFullError, StorageFaultError.
        """
        self._refuse_faulted()
        self._ballast.restore()
        cut = retention.find_cut(self._tables, log, retention_ms, retention_bytes, now_ms)
        if cut.last_offsets:
            self._live_pages -= self._change("retention", lambda: retention.cut_off(self._tables, log, cut))
        more = self._change("expiring producers", lambda: self._producers.expire_slice(log, now_ms))
        return cut.more or more

    def delete_slice(self, key: PartitionKey) -> bool:
        """Delete one slice of a removed partition; True while more is left. Unknown keys: False.

        From the first call on the partition is gone for readers, and it stays gone after a restart.
        """
        log = self.logs.get(key)
        if log is not None:
            log.removed = True
            self.removed = {**self.removed, key: log}
            self.logs = {other: kept for other, kept in self.logs.items() if other != key}
        log = self.removed.get(key)
        if log is None:
            return False
        more, freed = self._change("deleting a partition", lambda: deletion.delete_slice(self._tables, log))
        self._live_pages -= freed
        if not more:
            self.removed = {other: kept for other, kept in self.removed.items() if other != key}
        return more

    # ------------------------------------------------------------------ space

    @property
    def used_bytes(self) -> int:
        """Live data in whole pages."""
        return self._live_pages * PAGE_BYTES

    @property
    def capacity_bytes(self) -> int:
        """What `used_bytes` may rise to now, given the quota, the disk and the reserve."""
        return self._space.capacity()

    @property
    def faulted(self) -> StorageFaultError | None:
        """Why the storage takes no more writes, if it does not."""
        return self._fault

    def close(self, clean: bool) -> None:
        """Close the environment and give the folder back; `clean` is what the next start will be told.

        No other thread may be in a call. Raises StorageFaultError if the marker could not be written.
        """
        try:
            self._tables.close(clean and self._fault is None)
        finally:
            self._folder.close()

    # ---------------------------------------------------------------- changes

    def _change(self, doing: str, action: Callable[[], T]) -> T:
        """A transaction that must succeed on a full disk too: if it does not, the ballast goes."""
        self._refuse_faulted()
        try:
            return self._attempt(doing, action)
        except StorageFullError:
            if not self._ballast.drop():
                raise
            return self._attempt(doing, action)

    def _attempt(self, doing: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except lmdb.Error as error:
            failure = storage_error(error, doing, self._space.disk_free())
            if isinstance(failure, StorageFaultError):
                self._fault = failure
            raise failure from error

    def _refuse_faulted(self) -> None:
        if self._fault is not None:
            raise StorageFaultError(f"the storage is faulted: {self._fault}")
