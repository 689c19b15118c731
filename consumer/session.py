"""One consumer at work: its I/O thread, what is assigned, what is handed over and what is stored."""

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from math import inf
from pathlib import Path
from random import Random
from threading import get_ident
from time import monotonic
from typing import Final, TypeVar

from tailrace.client.engine import Engine
from tailrace.protocol.errors import InvalidArgumentError, TailraceError
from tailrace.protocol.record import TopicPartition

from .assigned import AssignedPartition, Key
from .assignment import Assignment
from .commits import Commits
from .config import ConsumerConfig
from .decoding import decoding_of
from .fetch_task import FetchTask
from .fetcher import Fetcher
from .group.member import LEAVE_WITHIN_S, Member
from .group.task import GroupTask
from .hand_over import AnyRecord, HandOver
from .listener import RebalanceListener
from .local_store import LocalStore, StoredOffset
from .offsets import store_of
from .one_thread import NOBODY, OneThread

T = TypeVar("T")

_log = logging.getLogger(__name__)
_numbers: Final = count(1)


class Session:
    """Everything behind `Consumer`. All methods but `wakeup` belong to one thread, the application's.

    Those of `Consumer` and `next` see to that (ConcurrentUseError).

    Raises ConnectionFailedError or TimedOutError if the cluster can't be reached in time.
    """

    def __init__(self, config: ConsumerConfig) -> None:
        name = config.client_id or f"consumer-{next(_numbers)}"
        self.name = name
        self.config = config
        random = Random()
        lock = threading.Lock()
        self.engine = Engine(
            config.bootstrap_servers, request_timeout_ms=config.request_timeout_ms, name=name
        )
        self.fetcher = Fetcher(
            partition_bytes=config.max_partition_fetch_bytes, reset=config.auto_offset_reset, random=random
        )
        self._lock = lock
        self._task = FetchTask(self.engine, self.fetcher, lock, config)
        decoding = decoding_of(config.key_deserializer, config.value_deserializer, config.check_crcs)
        self.hand_over = HandOver(self.fetcher, lock, decoding, self._task.wake_engine)
        self.group: GroupTask | None = None
        if config.group_id is not None:
            self.group = GroupTask(self.engine, config, lock, self._task.tell_group_moved, name)
        self.local_store = (
            None if config.offset_store is None else LocalStore(Path(config.offset_store), name)
        )
        self.commits = Commits(
            store_of(self.engine, config.group_id, self.group, self.local_store),
            interval_s=config.auto_commit_interval_ms / 1000 if config.enable_auto_commit else None,
            partition_count=self._partition_count,
            timeout_s=self.engine.request_timeout_s,
        )
        self.assignment = Assignment(
            self.engine, self.fetcher, lock, self.commits, reset=config.auto_offset_reset, random=random
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
        self.closed = False
        self.one_thread = OneThread(name, self.check)
        """Entered by every call that needs the consumer for itself."""
        self._process = os.getpid()
        self.engine.start()
        try:
            self.engine.attach(self._task)
            if self.group is not None:
                self.engine.attach(self.group)
            self.engine.ready(self.engine.request_timeout_s)
        except BaseException:
            self.engine.close()
            raise

    def __repr__(self) -> str:
        servers = self.config.bootstrap_servers
        count = len(self.assignment.partitions)
        state = "closed" if self.closed else f"{count} partition{'' if count == 1 else 's'} assigned"
        return (
            f"<Consumer {self.name} of {servers if isinstance(servers, str) else ','.join(servers)}: {state}>"
        )

    # ----------------------------------------------------------------- asking

    def next(self, take: Callable[[], T | None], timeout_s: float | None) -> T | None:
        """Ask for more: what was handed over before is settled by that.

        Waits until `take` has something; None when `timeout_s` is over or `wakeup` was called.
        """
        # `enter` and `ask` written out: it is called for each record where polls are small.
        one_thread = self.one_thread
        thread = get_ident()
        outer = one_thread.inside
        if outer != thread and outer != NOBODY:
            raise one_thread.refusal(f"thread {outer} is in a call")
        try:
            one_thread.inside = one_thread.asked_by = thread
            self.check()
            self.hand_over.settle()
            if self.group is not None:
                self.group.asked()
            deadline = None if timeout_s is None else monotonic() + timeout_s
            while True:
                now = monotonic()
                if self.house_keeping_due(now):
                    self.keep_house(now)
                taken = self.try_take(take)
                if taken:
                    if self.group is not None:
                        self.group.handed(now)
                    return taken
                if deadline is not None and now >= deadline:
                    return None
                if not self._task.wait(self.wait_s(now, deadline)):
                    return None
        finally:
            one_thread.inside = outer

    def records(self) -> Iterator[AnyRecord]:
        """Hand over record by record, storing offsets when it is time to, however slow the application is.

        Ends after `wakeup`, or when nothing came for `consumer_timeout_ms`.
        """
        timeout_ms = self.config.consumer_timeout_ms
        timeout_s = None if timeout_ms is None else timeout_ms / 1000
        take = partial(self.hand_over.chunk, self.config.max_poll_records)
        while (chunk := self.next(take, timeout_s)) is not None:
            thread = self.one_thread.asked_by
            if self.commits.automatic or self.group is not None:
                for record in chunk:
                    yield record
                    # The next one is asked for, so this one is done.
                    if self._task.group_moved:
                        break  # what is not handed over yet goes back, and perhaps to another member
                    now = monotonic()
                    if self.group is not None:
                        self.group.handed(now)
                    if now >= self.commits.due_at:
                        self._commit_in_loop()
            else:
                yield from chunk
            if self.one_thread.asked_by != thread:
                raise self.one_thread.refusal(
                    f"thread {self.one_thread.asked_by} asked for records while a loop of thread {thread} "
                    "was going through some"
                )

    # What `next` is made of, for callers that wait in another way: all within a call that has entered
    # `one_thread`. First `ask`, then `keep_house` if that is due, `try_take`, and a wait for `listen`'s
    # call or `wait_s`; and again.

    def try_take(self, take: Callable[[], T | None]) -> T | None:
        """What is there now; never waits. What an interruption took is given back."""
        try:
            return take()
        except TailraceError:
            raise
        except BaseException:
            self.hand_over.take_back()
            raise

    def house_keeping_due(self, now: float) -> bool:
        """Is there something to do before more is handed over? Cheap, never waits."""
        member = self.member
        return (
            self._task.cluster_moved
            or self._task.group_moved
            or now >= self.commits.due_at
            or not self.assignment.partitions
            or (member is not None and now >= member.retry_at)
        )

    def keep_house(self, now: float) -> None:
        """Follow the cluster and the group, store offsets; may wait for a disk or an answer.

        Raises InvalidArgumentError when there is nothing to read.
        """
        member = self.member
        in_group = member is not None and member.active
        if not (self.assignment.partitions or self.assignment.pattern is not None or in_group):
            raise InvalidArgumentError("there is nothing to read: subscribe() or assign() first")
        if self._task.cluster_moved:
            self._task.cluster_moved = False
            try:
                if member is not None and member.active:
                    member.follow_cluster()
                else:
                    self.assignment.adopt_new()
            except BaseException:
                self._task.cluster_moved = True
                raise
            self._task.wake_engine()
        if member is not None and member.active and (self._task.group_moved or now >= member.retry_at):
            member.apply(self.engine.request_timeout_s)
        if now >= self.commits.due_at:
            self._auto_commit(now)

    def wait_s(self, now: float, deadline: float | None) -> float | None:
        """Until the deadline, but not past the time at which offsets are to be stored; None: for ever."""
        ends = [] if deadline is None else [deadline]
        if self.commits.automatic and self.commits.has_news(self.assignment.partitions.values()):
            ends.append(self.commits.due_at)
        if self.member is not None and self.member.retry_at != inf:
            ends.append(self.member.retry_at)
        return min(max(0.0, min(ends) - now), threading.TIMEOUT_MAX) if ends else None

    def take_woken(self) -> bool:
        """Was `wakeup` called since the last look?"""
        return self._task.take_woken()

    def listen(self, news: Callable[[], None] | None) -> None:
        """`news` is called, in other threads, whenever a wait would end: it must be quick, and not raise."""
        self._task.listen(news)

    def ask(self) -> None:
        """The application is done with what it got before. Within a call that has entered `one_thread`."""
        self.check()
        self.one_thread.asked()
        self.hand_over.settle()
        if self.group is not None:
            self.group.asked()

    def interfere(self) -> None:
        """What is buffered will be changed: a `for` loop that is under way comes for more by itself."""
        self.check()
        self.one_thread.asked()
        self.hand_over.settle_before_last()
        self.hand_over.end_chunk()

    def check(self) -> None:
        """Raise ClosedError when closed, or forked; or what made the I/O thread fail."""
        self.engine.check()

    def wakeup(self) -> None:
        """End the wait that is going on, or the next one."""
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
            self.member.join(topics, pattern, listener, timeout_s)
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
            self.member.leave(timeout_s, say=True)

    @property
    def topics(self) -> tuple[str, ...]:
        """The subscribed topics."""
        member = self.member
        return member.topics if member is not None and member.active else self.assignment.topics

    def seek(self, partition: AssignedPartition, offset: int) -> None:
        """Go on from `offset`."""
        with self._lock:
            self.fetcher.seek(partition, offset)
        self.hand_over.touch(partition)
        self._task.wake_engine()

    def pause(self, partition: AssignedPartition) -> None:
        """Hand nothing over until `resume`."""
        with self._lock:
            self.fetcher.pause(partition)

    def resume(self, partition: AssignedPartition) -> None:
        """Hand over again."""
        with self._lock:
            self.fetcher.resume(partition)
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

        `failed`: an exception ends the application's work, so that the record in hand is not settled.
        """
        if self.closed:
            return
        if os.getpid() != self._process:
            self.closed = True
            return  # A fork of the consumer's process: nothing of it may be touched here.
        outer = self.one_thread.enter()
        self.closed = True
        try:
            if failed:
                self.hand_over.settle_before_last()
            else:
                self.hand_over.settle()
            if self.commits.automatic:
                self.commits.store_last(self.assignment.partitions.values(), monotonic())
        finally:
            try:
                if self.member is not None and self.member.active:
                    self.member.leave(LEAVE_WITHIN_S, say=True)
            finally:
                self._end(outer)

    # ------------------------------------------------------------------ inside

    def _end(self, outer: int) -> None:
        try:
            self.commits.close()
        finally:
            self.engine.close()
            self.one_thread.inside = outer

    def _log_failure(self, error: TailraceError | None) -> None:
        if error is not None:
            _log.warning("%s: offsets were not committed: %s", self.name, error)

    def _commit_in_loop(self) -> None:
        outer = self.one_thread.enter()
        try:
            self.check()
            self.hand_over.settle_handed()
            self._auto_commit(monotonic())
        finally:
            self.one_thread.inside = outer

    def _auto_commit(self, now: float) -> None:
        self.commits.store_in_time(self.assignment.partitions.values(), now)

    def _partition_count(self, topic: str) -> int:
        info = self.engine.topic(topic)
        return 0 if info is None else len(info.partitions)
