"""A node's storage: all partition logs in one LMDB environment.

The writer thread owns every method that changes something; `read`, `offset_for_timestamp`,
`end_of_epoch`, `last_epoch` and the properties are for any thread. Every change is one
transaction with one fsync, and memory follows only once it is through, so that a process that is
killed anywhere finds on the next start all that it had acknowledged, at once and without a scan.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import TypeVar

import lmdb

from tailrace.protocol.errors import (
    DataFolderError,
    FencedLeaderEpochError,
    LimitExceededError,
    StorageFaultError,
    StorageFullError,
    TailraceError,
)
from tailrace.protocol.limits import PARTITIONS_PER_NODE_MAX

from . import deletion, epochs, partitions, reading, retention, truncation
from .ballast import Ballast
from .faults import storage_error
from .folder import DATA, DataFolder
from .log_plan import Append, Appended, Replicated
from .partition_log import PartitionKey, PartitionLog
from .planner import Blocked, Planner, stream
from .producer_table import ProducerTable
from .space import PAGE_BYTES, Space
from .tables import Flush, Tables
from .verify import Report, verify
from .writing import PlanWriter

B = TypeVar("B")
T = TypeVar("T")


class Storage:
    """Open with `Storage.open`, close with `close`."""

    def __init__(self, folder: DataFolder, tables: Tables, ballast: Ballast) -> None:
        """Of a folder and tables that are open; use `open`."""
        self._folder = folder
        self._tables = tables
        self.space = tables.space
        self.ballast = ballast
        self._producers = ProducerTable(tables)
        self._writer = PlanWriter(tables, self._producers)
        self._fault: StorageFaultError | None = None
        self.storage_id = tables.storage_id
        self.openings = tables.openings
        self.clean = tables.clean
        """Was the last stop clean? True for new storage."""
        loaded = partitions.load(tables)
        self.logs: dict[PartitionKey, PartitionLog] = {log.key: log for log in loaded if not log.removed}
        """Replaced as a whole when partitions come or go, so that any thread may iterate."""
        self.removed: dict[PartitionKey, PartitionLog] = {log.key: log for log in loaded if log.removed}
        """Partitions to delete, maybe since before the last stop: call `delete_slice` for each."""
        self._log_pages = sum(log.live_pages for log in loaded)
        ballast.restore(-inf)

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
            ballast = Ballast(data_folder, space)
            try:
                tables = Tables(data_folder, space, flush, ephemeral)
            except StorageFullError:
                if not ballast.drop():
                    raise
                tables = Tables(data_folder, space, flush, ephemeral)
            try:
                return cls(data_folder, tables, ballast)
            except BaseException:
                tables.close(clean=False)
                raise
        except OSError as error:
            data_folder.close()
            raise DataFolderError(f"data folder {folder}: {error}") from error
        except BaseException:
            data_folder.close()
            raise

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
        created = self._change("creating partitions", lambda: partitions.create(self._tables, new))
        self._log_pages += sum(log.live_pages for log in created)
        self.logs = {**self.logs, **{log.key: log for log in created}}

    def remove(self, keys: Sequence[PartitionKey]) -> None:
        """Take partitions out of service for good, in one transaction; then `delete_slice` frees the space.

        Raises StorageFullError, StorageFaultError.
        """
        logs = {key: self.logs[key] for key in keys if key in self.logs}
        if not logs:
            return
        self._change("removing partitions", lambda: partitions.mark_deleting(self._tables, [*logs.values()]))
        for log in logs.values():
            log.removed = True
        self.removed = {**self.removed, **logs}
        self.logs = {key: log for key, log in self.logs.items() if key not in logs}

    def delete_slice(self, key: PartitionKey) -> bool:
        """Delete one slice of a removed partition; True while more is left. Unknown keys: False.

        Raises StorageFullError, StorageFaultError.
        """
        if key not in self.removed:  # beside one that cannot be deleted there may be another log
            self.remove([key])
        log = self.removed.get(key)
        if log is None:
            return False
        more = self._resize("deleting a partition", log, lambda: deletion.delete_slice(self._tables, log))
        if not more:
            self.removed = {other: kept for other, kept in self.removed.items() if other != key}
        return more

    def begin_epochs(self, epochs: Sequence[tuple[PartitionLog, int]]) -> None:
        """Record that these leader epochs start at the logs' ends, in one transaction.

        An epoch that is recorded already is left alone. Raises FencedLeaderEpochError for one
        that is older than the log's, StorageFullError, StorageFaultError.
        """
        for log, epoch in epochs:
            if epoch < log.leader_epoch:
                raise FencedLeaderEpochError(
                    f"partition {log.name} is at leader epoch {log.leader_epoch}, asked for {epoch}"
                )
        new = [(log, epoch) for log, epoch in epochs if epoch > log.leader_epoch]
        rows = [(log, log.row()._replace(leader_epoch=epoch)) for log, epoch in new]
        if rows:
            self._change("beginning leader epochs", lambda: partitions.put_epochs(self._tables, rows))
        for log, row in rows:
            log.adopt(row, (*log.epochs, (row.leader_epoch, row.log_end_offset)))

    def end_of_epoch(self, log: PartitionLog, epoch: int) -> tuple[int, int]:
        """(the log's highest epoch up to `epoch`, its end offset). Any thread; nothing is read.

        It ends where the next one starts, or with the log. If the log has none so low: `epoch` itself,
        and where the first one starts.
        """
        known = log.epochs
        return epochs.end_of(known, epoch, log.log_end_offset)

    def last_epoch(self, log: PartitionLog) -> int:
        """The leader epoch of the batch before the log's end, -1 if there never was one. Any thread.

        Also of one that retention has deleted: what follows it must be of the same history.
        """
        known = log.epochs
        return epochs.latest(epochs.before(known, log.log_end_offset))

    @property
    def controller_epoch(self) -> int:
        """The highest controller epoch that this node has recorded."""
        return self._tables.controller_epoch

    def see_controller_epoch(self, controller_epoch: int) -> None:
        """Record the highest controller epoch seen; a lower one changes nothing."""
        if controller_epoch > self._tables.controller_epoch:
            self._change(
                "recording the controller epoch",
                lambda: self._tables.record_controller_epoch(controller_epoch),
            )

    # ---------------------------------------------------------------- appends

    def commit(self, appends: Sequence[Append | Replicated]) -> list[Appended | TailraceError]:
        """Append batches, all in one transaction with one fsync; results in the order of the appends.

        Each new batch is checked, given its offsets and stored, or found to be a duplicate, or
        refused with an error of its own that does not hinder the others: CorruptBatchError,
        BatchTooLargeError (for the whole quota), InvalidTimestampError, InvalidRecordError,
        OutOfOrderSequenceError, FencedProducerError, UnknownProducerIdError, UnknownPartitionError,
        StorageFullError. What was stored is durable and visible when this returns.

        A leader's batch is stored as it is if it is whole and continues the log; else it is refused,
        together with those of the log behind it: CorruptBatchError, InvalidRecordError,
        OffsetOutOfRangeError (it does not start at the log's end), FencedLeaderEpochError (its epoch is
        below that of the batch before it), UnknownPartitionError, StorageFullError.

        Raises StorageFaultError when the disk failed: nothing may be acknowledged any more, and
        the node must stop.
        """
        self._refuse_faulted()
        if not appends:
            return []
        results = self._commit(appends, {})
        if self._producers.may_expire(appends[0].now_ms):
            self._expire_producers(appends[0].now_ms)
        return results

    def _commit(
        self, appends: Sequence[Append | Replicated], blocked: Blocked
    ) -> list[Appended | TailraceError]:
        """If the transaction fails, each half gets one of its own, down to the append that fails alone."""
        room, most = self.room_bytes(appends[0].now_ms), self.space.capacity_max
        plan = Planner(self._producers.lookup, room, blocked, room_bytes_max=most).plan(appends)
        if not plan.logs:
            return plan.results
        try:
            self._log_pages += self._attempt("appending", lambda: self._writer.write(plan))
        except TailraceError as error:
            self._refuse_faulted()
            if len(appends) == 1:
                blocked[stream(appends[0])] = error
                return [error]
            middle = len(appends) // 2
            return self._commit(appends[:middle], blocked) + self._commit(appends[middle:], blocked)
        return plan.results

    def _expire_producers(self, now_ms: int) -> None:
        with suppress(StorageFullError):  # no harm is done: the next interval tries again
            self._change("expiring producer ids", lambda: self._producers.expire_slice(now_ms))

    def retain(self, log: PartitionLog, retention_ms: int, retention_bytes: int, now_ms: int) -> bool:
        """Delete one slice of what the log need not keep (see `retention.find_cut`); True if more is left.

        Raises CorruptBatchError, StorageFullError, StorageFaultError.
        """
        self._refuse_faulted()
        cut = retention.find_cut(self._tables, log, retention_ms, retention_bytes, now_ms)
        if cut.last_offsets:
            self._resize("retention", log, lambda: retention.cut_off(self._tables, log, cut))
        return cut.more

    # --------------------------------------------------------------- replicas

    def raise_high_watermark(self, log: PartitionLog, offset: int) -> bool:
        """Let readers have what lies below `offset`; False if that is nothing new.

        It never goes down nor above the log's end. In memory only: it is stored with the log's next
        commit and by a clean `close`, so that after a crash it may be lower.
        """
        risen = min(offset, log.log_end_offset)
        if risen <= log.high_watermark:
            return False
        log.high_watermark = risen
        return True

    def truncate(self, log: PartitionLog, offset: int) -> int:
        """Cut off all batches that end at `offset` or above, in one transaction; the log's new end.

        With them go their epochs, index entries and producers' sequences; epochs from the new end on go
        also if they have no batch. From the log's end on there is nothing else to cut. Below the high
        watermark that comes down, and a warning is logged.

        Raises OffsetOutOfRangeError below the log start; CorruptBatchError, UnknownPartitionError,
        StorageFullError, StorageFaultError.
        """
        self._resize(
            "truncating", log, lambda: truncation.truncate(self._tables, self._producers, log, offset)
        )
        return log.log_end_offset

    def reset(self, log: PartitionLog, start_offset: int) -> bool:
        """Empty the log, one slice a call, to start anew at `start_offset`; True: call again.

        Epochs and producers are forgotten. If `start_offset` is below the high watermark, that comes down,
        and a warning is logged. Raises as `truncate`.
        """
        return self._resize(
            "resetting",
            log,
            lambda: truncation.reset_slice(self._tables, self._producers, log, start_offset),
        )

    def advance_start(self, log: PartitionLog, offset: int) -> bool:
        """Delete one slice of the batches that end below `offset`, the leader's log start; True: call again.

        The high watermark is then at least the log's new start. Raises UnknownPartitionError,
        StorageFullError, StorageFaultError.
        """
        reading.refuse_removed(log)
        return self._resize("retention", log, lambda: retention.advance_start(self._tables, log, offset))

    # ------------------------------------------------------------------ reads

    def read(
        self, log: PartitionLog, offset: int, max_bytes: int, upto: int, keep: reading.Keep[B]
    ) -> list[B]:
        """See `reading.read`. Any thread."""
        return reading.read(self._tables, log, offset, max_bytes, upto, keep=keep)

    def offset_for_timestamp(self, log: PartitionLog, timestamp: int) -> tuple[int, int] | None:
        """See `reading.offset_for_timestamp`. Any thread; may wait for the disk."""
        return reading.offset_for_timestamp(self._tables, log, timestamp)

    # ------------------------------------------------------------------ space

    @property
    def used_bytes(self) -> int:
        """Live data in whole pages."""
        return (self._log_pages + self._tables.pages) * PAGE_BYTES

    def room_bytes(self, now_ms: int) -> int:
        """What may still be stored. Writer thread."""
        return self.space.capacity(now_ms) - self.used_bytes

    @property
    def faulted(self) -> StorageFaultError | None:
        """Why the storage takes no more writes, if it does not."""
        return self._fault

    def verify(self) -> Report:
        """Compare everything stored, and what memory holds of it. Writer thread; reads every batch."""
        return verify(self._tables.environment, self.logs.values())

    def close(self, clean: bool) -> None:
        """Close the environment and give the folder back; `clean` is what the next start will be told.

        A full disk may hinder that. No other thread may be in a call. Raises StorageFaultError.
        """
        marked = False
        try:
            marked = clean and self._fault is None and self._mark_clean()
        finally:
            self._tables.close(marked)
            self._folder.close()

    # ---------------------------------------------------------------- changes

    def _mark_clean(self) -> bool:
        risen = [log for log in self.logs.values() if log.high_watermark != log.stored_high_watermark]
        with suppress(StorageFullError):  # lower high watermarks are no harm
            if risen:
                self._change("storing high watermarks", lambda: partitions.put_rows(self._tables, risen))
            self._change("marking a clean stop", self._tables.mark_clean)
            return True
        return False

    def _change(self, doing: str, action: Callable[[], T]) -> T:
        """A transaction that must get through on a full disk too: if it does not, the ballast goes."""
        self._refuse_faulted()
        try:
            return self._attempt(doing, action)
        except StorageFullError:
            if not self.ballast.drop():
                raise
            return self._attempt(doing, action)

    def _resize(self, doing: str, log: PartitionLog, action: Callable[[], T]) -> T:
        """As `_change`, of one log, whose pages become fewer."""
        before = log.live_pages
        try:
            return self._change(doing, action)
        finally:
            self._log_pages += log.live_pages - before

    def _attempt(self, doing: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except lmdb.Error as error:
            failure = storage_error(error, doing, self._tables.space.disk_free())
            if isinstance(failure, StorageFaultError):
                self._fault = failure
            raise failure from error

    def _refuse_faulted(self) -> None:
        if self._fault is not None:
            raise StorageFaultError(f"the storage is faulted: {self._fault}")
