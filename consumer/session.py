"""One consumer at work: its I/O thread, what is assigned, what is handed over and what is stored."""

import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final, TypeVar

from tailrace.client.engine import COORDINATOR, Engine
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.record import TopicPartition

from .asking import Asking
from .assigned import AssignedPartition, Key
from .assignment import Assignment
from .commits import Commits
from .config import ConsumerConfig
from .decoding import decoding_of
from .fetch_task import FetchTask
from .fetcher import Fetcher
from .forgotten import Forgotten
from .freed_memory import keep_freed_memory
from .group.member import Member
from .group.task import LEAVE_WITHIN_S, GroupTask
from .hand_over import HandOver
from .listener import RebalanceListener, Through
from .local.store import LocalStore
from .offsets import store_of
from .on_error import on_error_of
from .one_thread import OneThread
from .stored_offset import StoredOffset

T = TypeVar("T")

_log = logging.getLogger(__name__)
_numbers: Final = count(1)


class Session:
    """Everything behind `Consumer`. All methods but `wakeup` belong to one thread, the application's.

    Those of `Consumer` and `Asking.next` see to that (ConcurrentUseError).

    Raises ConnectionFailedError or TimedOutError if the cluster can't be reached in time.
    """

    def __init__(self, config: ConsumerConfig, new_engine: Callable[..., Engine] = Engine) -> None:
        name = config.client_id or f"consumer-{os.getpid()}-{next(_numbers)}"
        self.name = name
        self.config = config
        random = Random()
        lock = threading.Lock()
        self.engine = new_engine(
            config.bootstrap_servers, request_timeout_ms=config.request_timeout_ms, name=name
        )
        self.fetcher = Fetcher(
            partition_bytes=config.max_partition_fetch_bytes, reset=config.auto_offset_reset, random=random
        )
        self._lock = lock
        self._task = FetchTask(self.engine, self.fetcher, lock, config)
        decoding = decoding_of(config.key_deserializer, config.value_deserializer, config.check_crcs)
        on_error = on_error_of(config.on_error)
        self.hand_over = HandOver(
            self.fetcher, lock, decoding, self.engine.wake, on_error, submit=self.engine.submit
        )
        self.group: GroupTask | None = None
        if config.group_id is not None:
            self.group = GroupTask(self.engine, config, lock, self._task.tell_group_moved, name)
        folder = config.offset_store
        self.local_store = None if folder is None else LocalStore(Path(folder), name)
        self.commits = Commits(
            store_of(self.engine, config.group_id, self.group, self.local_store),
            interval_s=config.auto_commit_interval_ms / 1000 if config.enable_auto_commit else None,
            partition_count=self._partition_count,
            timeout_s=self.engine.request_timeout_s,
        )
        self.assignment = Assignment(
            self.engine,
            self.fetcher,
            lock,
            self.commits,
            reset=config.auto_offset_reset,
            random=random,
            change=self.hand_over.change,
        )
        self.member: Member | None = None
        if self.group is not None:
            self.member = Member(
                self.engine,
                config,
                self._task,
                lock,
                assignment=self.assignment,
                commits=self.commits,
                task=self.group,
            )
        self.closed = self._over = True  # until it is open
        """Over: there is nothing left to end. A close that was interrupted leaves something."""
        self.one_thread = OneThread(name, self.engine.check)
        """Entered by every call that needs the consumer for itself."""
        self.asking = Asking(
            self.engine,
            config,
            self._task,
            hand_over=self.hand_over,
            commits=self.commits,
            assignment=self.assignment,
            member=self.member,
            one_thread=self.one_thread,
        )
        self._forgotten = Forgotten(self.engine, self.group, self.local_store, self.one_thread)
        self._process = os.getpid()
        self._start(on_error.topic)

    def _start(self, dead_letters: str | None) -> None:
        keep_freed_memory()
        # Not within the `try`, outside of which it would jump back (tests/test_interruptible.py).
        tasks = [task for task in (self._task, self.group, self._forgotten) if task is not None]
        try:
            self.engine.start(*tasks)
            self.engine.ready(self.engine.request_timeout_s)
            if dead_letters is not None:
                self.engine.wait_for_topic(dead_letters, self.engine.request_timeout_s)
            self.closed = self._over = False
        except BaseException:
            self.engine.close()
            raise

    def __del__(self) -> None:
        """No consumer came of it: a signal handler has raised."""
        if not getattr(self, "_over", True):
            self.forget()

    def __repr__(self) -> str:
        servers = self.config.bootstrap_servers
        count = len(self.assignment.partitions)
        state = "closed" if self.closed else f"{count} partition{'' if count == 1 else 's'} assigned"
        return (
            f"<Consumer {self.name} of {servers if isinstance(servers, str) else ','.join(servers)}: {state}>"
        )

    # ------------------------------------------------------------------ state

    def check(self) -> None:
        """Raise ClosedError when closed, or forked; or what made the I/O thread fail."""
        self.engine.check()

    def wakeup(self) -> None:
        """End the loop or the wait that is going on, or the next one."""
        self._task.wakeup()

    # ---------------------------------------------------------------- changing

    def subscribe(
        self,
        topics: Sequence[str],
        pattern: re.Pattern[str] | None,
        listener: RebalanceListener | None,
        timeout_s: float,
    ) -> None:
        """Read these topics, or what matches `pattern`: as a member of the group if there is one."""
        if self.member is not None:
            told = None if listener is None else Through(listener, self.one_thread.let_in)
            self.member.join(topics, pattern, told, timeout_s)
        else:
            self.assignment.subscribe(topics, timeout_s, pattern)

    def assign(self, names: Sequence[TopicPartition], timeout_s: float) -> None:
        """Read these partitions; a member leaves its group."""
        self.leave(timeout_s)
        self.assignment.assign(names, timeout_s)

    def leave(self, timeout_s: float) -> None:
        """Be no member any more, after what auto-commit has to store."""
        if self.member is not None and self.member.active:
            if self.commits.automatic:
                self.commits.store_settled(self.assignment.partitions.values(), monotonic())
            self.member.leave(timeout_s)

    @property
    def topics(self) -> tuple[str, ...]:
        """The subscribed topics."""
        member = self.member
        return member.topics if member is not None and member.active else self.assignment.topics

    def seek(self, partition: AssignedPartition, offset: int) -> None:
        """Go on from `offset`."""
        self.hand_over.change(partial(self._seek, partition, offset))

    def pause(self, partition: AssignedPartition) -> None:
        """Hand nothing over until `resume`."""
        self.hand_over.change(partial(self._locked, self.fetcher.pause, partition))

    def resume(self, partition: AssignedPartition) -> None:
        """Hand over again."""
        self.hand_over.change(partial(self._locked, self.fetcher.resume, partition))

    def put_aside(self, wanted: Container[Key]) -> None:
        """Have all but these wait, until `end_aside`."""
        with self._lock:
            self.fetcher.put_aside(wanted)

    def end_aside(self) -> None:
        """Hand over of all again."""
        with self._lock:
            self.fetcher.end_aside()
        self._task.wake_engine()

    def commit(self) -> None:
        """Store all positions: the application says that it is done with what was handed over."""
        self.check()
        self.commits.check()
        self.hand_over.settle_handed()
        self.commits.store_settled(self.assignment.partitions.values(), monotonic())

    def settled(self) -> dict[Key, StoredOffset]:
        """All positions: the application says that it is done with what was handed over."""
        self.hand_over.settle_handed()
        return {
            one.key: self.commits.stored_offset(one.name.topic, one.settled, one.settled_epoch)
            for one in self.assignment.partitions.values()
            if one.settled >= 0
        }

    def commit_later(
        self, offsets: Mapping[Key, StoredOffset], callback: Callable[[TailraceError | None], None] | None
    ) -> None:
        """Begin to commit; `callback` is called once, in the I/O thread."""
        done = callback or self._log_failure
        if offsets:
            self.commits.write_later(offsets, done)
        else:
            done(None)

    def close(self, *, failed: bool) -> None:
        """Store what is settled if auto-commit is on, then let go of everything.

        Commits that are on their way are waited for, those of members and of others. `failed`: an exception
        ends the application's work, so that the record in hand is not settled. In the middle of a call, from
        a signal handler, it is left to the end of that; what the call hands over is not settled.
        """
        if self.closed:
            return
        if os.getpid() != self._process:
            self.closed = True
            return  # A fork of the consumer's process: nothing of it may be touched here.
        if self.one_thread.interrupted:
            self.one_thread.afterwards = partial(self.close, failed=True)
            return
        self.asking.check_no_transaction()
        outer = self.one_thread.enter()
        if self.engine.ending:  # a signal handler has closed it just now
            self.one_thread.inside = outer
            return
        self.closed = self.engine.ending = True
        try:
            if failed:
                self.hand_over.settle_before_last()
                self.hand_over.end_chunk()
            else:
                self.hand_over.settle()
            if self.commits.automatic:
                self.commits.store_last(self.assignment.partitions.values(), monotonic())
            self.commits.wait_for_answers(self._coordinator_notice())
        finally:
            try:
                if self.member is not None and self.member.active:
                    self.member.leave(LEAVE_WITHIN_S)
            finally:
                self._end(outer)

    def forget(self) -> None:
        """The consumer is gone: the I/O thread lets go of everything, then ends.

        It may be called in any thread, at any time: within a garbage collection.
        """
        if self._over or os.getpid() != self._process:
            return
        self._over, silent = True, self.closed
        try:
            self.check()
        except TailraceError:
            silent = True  # it has ended by itself
        self._forgotten.forget()
        if not silent:
            self.closed = True
            warnings.warn(f"{self.name} was not closed", ResourceWarning, stacklevel=3, source=self)

    # ------------------------------------------------------------------ inside

    def _locked(self, change: Callable[[AssignedPartition], None], partition: AssignedPartition) -> None:
        with self._lock:
            change(partition)

    def _seek(self, partition: AssignedPartition, offset: int) -> None:
        with self._lock:
            self.fetcher.seek(partition, offset)
        self.hand_over.touch(partition)

    def _end(self, outer: int) -> None:
        try:
            self.commits.close()
        finally:
            self.engine.close()
            self._over = True
            self.one_thread.inside = outer

    def _coordinator_notice(self) -> Callable[[], None]:
        engine = self.engine
        obstacle = partial(engine.obstacle, COORDINATOR)
        return engine.notice("the coordinator", engine.request_timeout_s, obstacle).look

    def _log_failure(self, error: TailraceError | None) -> None:
        if error is not None:
            _log.warning("%s: offsets were not committed: %s", self.name, error)

    def _partition_count(self, topic: str) -> int:
        info = self.engine.topic(topic)
        return 0 if info is None else len(info.partitions)
