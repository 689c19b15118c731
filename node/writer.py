"""The writer thread: owns the logs and every write transaction.

Takes all that waits, up to GROUP_COMMIT_BYTES_MAX, commits it with one fsync, and only then lets
the network thread know. Requests and changes of the cluster state come through one queue, so that
what was accepted before a partition was removed or led anew is appended before.
"""

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from operator import attrgetter
from typing import Final

from tailrace.protocol.errors import (
    BusyError,
    CorruptBatchError,
    FencedLeaderEpochError,
    LimitExceededError,
    NotLeaderError,
    StorageFaultError,
    StorageFullError,
    TailraceError,
    UnknownPartitionError,
)
from tailrace.protocol.limits import GROUP_COMMIT_BYTES_MAX

from .chores import Chore, Chores
from .leaders import Led
from .mailbox import Mailbox
from .replication.storing import CopyWriter, finish
from .shortage import Shortage
from .storage.environment import Storage
from .storage.log_plan import Append, Appended, Replicated
from .storage.partition_log import PartitionKey, PartitionLog
from .work import (
    Committed,
    Drain,
    Drained,
    Letter,
    PendingCopy,
    PendingProduce,
    Prepare,
    Prepared,
    Role,
    ToWriter,
    WriterFailed,
)

NAMED_MAX: Final = 10
"""Of many partitions a log message names so many."""

_APPENDS: Final = attrgetter("appends")
_LEADER_EPOCHS: Final = attrgetter("leader_epochs")
_STEPS: Final = attrgetter("steps")

logger: Final = logging.getLogger(__name__)


class Writer:
    """Started by `start`, ended by a `Drain` or by an error, of which the mailbox tells.

    `inline`: it has no thread of its own, and works when the network thread has it `catch_up`. Where nothing
    is synced there is nothing to wait for, and handing over would take longer than the commit.
    """

    def __init__(
        self,
        storage: Storage,
        mailbox: Mailbox[Letter],
        chores: Chores,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int],
        inline: bool = False,
    ) -> None:
        self.inline = inline
        self._storage = storage
        self._mailbox = mailbox
        self._chores = chores
        self._monotonic = monotonic
        self._wall_ms = wall_ms
        self._queue: queue.SimpleQueue[ToWriter] = queue.SimpleQueue()
        self._next: ToWriter | None = None
        """Taken out of the queue, but not part of the group before it."""
        self._group: list[PendingProduce] = []
        self._copies: list[PendingCopy] = []
        """Being committed now, both."""
        self._copier = CopyWriter(storage)
        self.shortage = Shortage(storage)
        self._ended = False
        self._answer: Callable[[Letter], bool] | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Start to work; it goes on with the deletions that the last stop interrupted."""
        self._chores.delete(self._storage.removed)
        if not self.inline:
            self._thread.start()

    def answer_by(self, answer: Callable[[Letter], bool]) -> None:
        """Before the first produce is submitted: what is committed is delivered to `answer` (see
        `Mailbox.deliver`), unless more waits for the writer."""
        self._answer = answer

    def submit(self, work: ToWriter) -> None:
        """Network thread: queue something. Never blocks."""
        self._queue.put(work)

    @property
    def waits(self) -> bool:
        """Is there something to do?"""
        return self._next is not None or not self._queue.empty()

    def join(self) -> None:
        """Wait until it has ended."""
        if self.inline:
            self.catch_up()
        else:
            self._thread.join()

    def catch_up(self) -> None:
        """Inline: do all that waits, else a slice of a chore that is due. In the caller's thread."""
        worked = False
        while not self._ended and self.waits:
            self._ended = not self.step()
            worked = True
        if not worked and self.idle_s() == 0:
            self._ended = not self.step()

    def idle_s(self) -> float:
        """Inline: how long there is nothing to do, if nothing is submitted."""
        if self._ended:
            return math.inf
        return 0.0 if self.waits else max(0.0, self._due_at() - self._monotonic())

    def unanswered(self) -> list[PendingProduce]:
        """After `WriterFailed`: the produces that were not committed, and were not told of."""
        left: list[ToWriter] = [*self._group, *([self._next] if self._next else [])]
        while not self._queue.empty():
            left.append(self._queue.get_nowait())
        return [work for work in left if isinstance(work, PendingProduce)]

    # ----------------------------------------------------------- writer thread

    def _run(self) -> None:
        while self.step():
            pass

    def step(self) -> bool:
        """One piece of work, when there is one, or a chore; False once the writer has ended."""
        try:
            if self._step():
                return True
            self._mailbox.post(Drained())
        except StorageFaultError as error:
            self._mailbox.post(WriterFailed(error))
        except Exception as error:  # the thread's edge: the network thread stops the node
            logger.exception("the writer failed")
            self._mailbox.post(WriterFailed(error))
        return False

    def _step(self) -> bool:
        work = self._take()
        match work:
            case PendingProduce() | PendingCopy():
                self._commit(work)
            case Prepare():
                self._prepare(work)
            case Drain():
                return False
            case None:
                pass
        self._do_chore()
        return True

    def _take(self) -> ToWriter | None:
        """The next piece of work; None when something else is due before there is one."""
        work, self._next = self._next, None
        if work is not None:
            return work
        if not self._queue.empty():
            return self._queue.get_nowait()  # nobody else takes anything out
        wait = self._due_at() - self._monotonic()
        try:
            return self._queue.get(timeout=min(max(0, wait), threading.TIMEOUT_MAX))
        except queue.Empty:
            return None

    def _commit(self, first: PendingProduce | PendingCopy) -> None:
        began = self._monotonic()
        self._take_group(first)
        group, steps = self._group, list(chain.from_iterable(map(_STEPS, self._copies)))
        copies, begun = self._copier.begin(steps, self._wall_ms()) if steps else ([], [])
        appends = list(chain.from_iterable(map(_APPENDS, group)))
        epochs = list(chain.from_iterable(map(_LEADER_EPOCHS, group)))
        results = self._append(appends, epochs, copies)
        grown: dict[PartitionKey, int] = {}
        for append, result in zip(appends, results, strict=False):
            if isinstance(result, Appended) and not result.duplicate:
                key = append.log.key
                grown[key] = grown.get(key, 0) + len(append.batch)
        given = iter(results)
        produces = [(produce, list(islice(given, len(produce.appends)))) for produce in group]
        copied = finish(begun, copies, list(given)) if begun else []
        self._copier.finish(copied)
        self._group, self._copies = [], []
        letter = Committed(produces, grown, copied, self._monotonic() - began)
        if self._answer is None or self.waits:
            self._mailbox.post(letter)
        else:
            self._mailbox.deliver(letter, self._answer)

    def _take_group(self, first: PendingProduce | PendingCopy) -> None:
        """All that waits behind `first`, up to the bound on a group or a change of the cluster state."""
        self._join_group(first)
        size = first.size
        while size < GROUP_COMMIT_BYTES_MAX and not self._queue.empty():
            work = self._queue.get_nowait()
            if (
                not isinstance(work, PendingProduce | PendingCopy)
                or size + work.size > GROUP_COMMIT_BYTES_MAX
            ):
                self._next = work
                return
            self._join_group(work)
            size += work.size

    def _join_group(self, work: PendingProduce | PendingCopy) -> None:
        if isinstance(work, PendingCopy):
            self._copies.append(work)
        else:
            self._group.append(work)

    def _append(
        self, appends: list[Append], epochs: list[int], copies: list[Replicated]
    ) -> list[Appended | TailraceError]:
        """What became of the appends, then of the copies."""
        refusals = list(map(_refusal, appends, epochs))
        if not any(refusals):
            return self._store([*appends, *copies])
        current = [append for append, refusal in zip(appends, refusals, strict=True) if not refusal]
        committed = iter(self._store([*current, *copies]))
        return [*(refusal or next(committed) for refusal in refusals), *committed]

    def _store(self, batches: list[Append | Replicated]) -> list[Appended | TailraceError]:
        results = self._storage.commit(batches)
        if batches:
            self.shortage.note(batches, results, batches[0].now_ms)
        return results

    # ------------------------------------------------------------ cluster state

    def _prepare(self, prepare: Prepare) -> None:
        storage, now = self._storage, self._monotonic()
        refused: dict[PartitionKey, TailraceError] = {}
        released, unreleased = prepare.released, {}
        try:
            storage.see_controller_epoch(prepare.controller_epoch)
        except StorageFullError as error:
            refused = dict.fromkeys(prepare.roles, error)
            released, unreleased = {}, dict(released)  # an older coordinator could still be followed
        drop = set(prepare.drop)
        self._remove([key for key in storage.logs if key[0] in drop])
        self._remove([*prepare.renew])
        self._release(released)
        self._chores.configure(prepare.configs, now)
        waiting = BusyError("the log that was there is being deleted")
        doomed = (key for key in prepare.roles if key in storage.removed or self._chores.deletes(key))
        refused.update((key, waiting) for key in doomed)
        roles = {key: role for key, role in prepare.roles.items() if key not in refused}
        self._create(roles, refused)
        led = self._lead({key: role for key, role in roles.items() if role.source is None}, refused)
        followed = self._follow([key for key, role in roles.items() if role.source is not None])
        self._mailbox.post(Prepared(prepare.version, led, followed, refused, unreleased))

    def _remove(self, keys: list[PartitionKey]) -> None:
        try:
            self._storage.remove(keys)
        except StorageFullError as error:
            # `delete_slice` marks the partition too, once there is room for that.
            logger.warning("removing %d partitions has to wait: %s", len(keys), error)
        self._chores.delete(keys)

    def _release(self, released: Mapping[PartitionKey, int]) -> None:
        """Others hold these. A state that is older than what the log was written in proves nothing (R1)."""
        logs = self._storage.logs
        gone = [key for key, epoch in released.items() if key in logs and logs[key].leader_epoch < epoch]
        if gone:
            names = ", ".join(logs[key].name for key in gone[:NAMED_MAX])
            logger.info("%d partitions are on other nodes now, their logs go: %s", len(gone), names)
            self._remove(gone)

    def _create(self, keys: Iterable[PartitionKey], refused: dict[PartitionKey, TailraceError]) -> None:
        """Logs for these partitions; those that fail go to `refused`."""
        storage = self._storage
        try:
            storage.create([*keys])
        except (StorageFullError, LimitExceededError) as error:
            refused.update((key, error) for key in keys if key not in storage.logs)

    def _follow(self, keys: Iterable[PartitionKey]) -> dict[PartitionKey, PartitionLog]:
        """The logs of partitions to follow, as far as they could be made."""
        logs = self._storage.logs
        followed = {key: logs[key] for key in keys if key in logs}
        for log in followed.values():
            log.sole_replica = False
        return followed

    def _lead(
        self, lead: dict[PartitionKey, Role], refused: dict[PartitionKey, TailraceError]
    ) -> dict[PartitionKey, Led]:
        """Logs and leader epochs of the partitions to lead; those that fail go to `refused`."""
        storage = self._storage
        led: dict[PartitionKey, Led] = {}
        for key, (epoch, sole, _) in lead.items():
            log = storage.logs.get(key)
            if log is None:
                continue
            if epoch < log.leader_epoch:
                # The state is older than what this log was led in: serving it could fork the log (R1).
                refused[key] = NotLeaderError(
                    f"{log.name} was led in epoch {log.leader_epoch}, the cluster state says {epoch}"
                )
            else:
                led[key] = Led(log, epoch)
                log.sole_replica = sole
                if sole:
                    storage.raise_high_watermark(log, log.log_end_offset)
        try:
            storage.begin_epochs([(log, epoch) for log, epoch in led.values()])
        except StorageFullError as error:
            refused.update(dict.fromkeys(led, error))
            return {}
        return led

    # ------------------------------------------------------------------ chores

    def _due_at(self) -> float:
        """When there is something to do if nothing is submitted, maybe in the past."""
        return min(self._chores.next_time(), self._storage.ballast.look_at)

    def _do_chore(self) -> None:
        now = self._monotonic()
        self._storage.ballast.restore(now)
        self._chores.check(self._storage.logs, now)
        chore = self._chores.next(now)
        if chore is None:
            return
        try:
            more = self._slice(chore)
        except StorageFullError as error:
            logger.warning("deleting has to wait: %s", error)
            self._chores.postpone(now)
        except CorruptBatchError as error:
            logger.error("retention leaves a partition as it is: %s", error)
            self._chores.done(chore, more=False)
        else:
            self._chores.done(chore, more=more)
        if self.shortage.needed_bytes:
            self.shortage.look(self._wall_ms())

    def _slice(self, chore: Chore) -> bool:
        if chore.config is None:
            return self._storage.delete_slice(chore.key)
        log = self._storage.logs.get(chore.key)
        if log is None:
            return False
        retention_ms, retention_bytes = chore.config.retention_ms, chore.config.retention_bytes
        return self._storage.retain(log, retention_ms, retention_bytes, self._wall_ms())


def _refusal(append: Append, epoch: int) -> TailraceError | None:
    """Why a batch that was accepted in `epoch` may not be appended any more."""
    log = append.log
    if log.removed:
        return UnknownPartitionError(f"partition {log.name} was removed")
    if log.leader_epoch != epoch:
        return FencedLeaderEpochError(
            f"{log.name} is led in epoch {log.leader_epoch} now, the batch was accepted in {epoch}"
        )
    return None
