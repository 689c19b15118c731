"""The application asks for records, and waits for them, in its own thread."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from threading import get_ident
from time import monotonic
from typing import Protocol, TypeVar

from tailrace.client.dead_letters import bury, letter_for
from tailrace.client.engine import Engine
from tailrace.protocol.errors import InvalidArgumentError

from .assignment import Assignment
from .commits import Commits
from .config import ConsumerConfig
from .fetch_task import FetchTask
from .group.member import Member
from .group.task import GroupTask
from .hand_over import AnyRecord, HandOver, Parked
from .one_thread import NOBODY, OneThread

T = TypeVar("T")


class Transaction(Protocol):
    """`local_transactions.Block`, as far as it is asked for here."""

    left: bool

    def take_back(self) -> None:
        """End it: as if it had never been, unless it is stored."""


class Asking:
    """Hands over what has come; before that, does what has become due.

    Everything that was handed over before is settled by asking for more: so the application has it done.
    """

    def __init__(
        self,
        engine: Engine,
        config: ConsumerConfig,
        fetching: FetchTask,
        *,
        hand_over: HandOver,
        commits: Commits,
        assignment: Assignment,
        member: Member | None,
        one_thread: OneThread,
    ) -> None:
        self._engine = engine
        self._config = config
        self._fetching = fetching
        self._hand_over = hand_over
        self._commits = commits
        self._assignment = assignment
        self._member = member
        self._group: GroupTask | None = None if member is None else member.task
        self._one_thread = one_thread
        self.transaction: Transaction | None = None
        """The local one that is under way."""
        """Is the application within a local transaction? Then nothing may move the positions."""

    # ----------------------------------------------------------------- asking

    def next(  # noqa: C901
        self, take: Callable[[], T | None], timeout_s: float | None
    ) -> T | None:
        """Ask for more: what was handed over before is settled by that.

        Waits until `take` has something; None when `timeout_s` is over, or `wakeup` was called: then whatever
        there is to take.
        """
        # `enter` and `ask` written out: it is called for each record where polls are small.
        one_thread = self._one_thread
        thread = get_ident()
        outer = one_thread.inside
        if outer != NOBODY and outer != -thread:
            raise one_thread.refusal(outer)
        try:
            one_thread.inside = one_thread.asked_by = thread
            self._engine.check()
            if self.transaction is not None:
                self.check_no_transaction()
            self._hand_over.settle()
            if self._group is not None:
                self._group.asked()
            now = monotonic()
            deadline = None if timeout_s is None else now + timeout_s
            # `while` with a condition would jump back outside of the `try` (tests/test_interruptible.py)
            while True:
                if self._fetching.loop_ends and self._fetching.take_woken():
                    break
                if self.house_keeping_due(now):
                    self.keep_house(now)
                taken = self.try_take(take, now)
                if taken is not None:
                    return taken
                if not self._goes_on(now, deadline):
                    break
                now = monotonic()
            self.come_back(outer)
            return None
        except BaseException:
            self.come_back(outer)
            raise
        finally:
            one_thread.inside = outer
            if one_thread.afterwards is not None:
                one_thread.do_afterwards()

    def records(self, _owner: object) -> Iterator[AnyRecord]:
        """Hand over record by record, storing offsets when it is time to, however slow the application is.

        Ends after `wakeup`, or when nothing came for `consumer_timeout_ms`. `_owner` is not forgotten while
        the iterator is there, as in `for record in Consumer(...)`.
        """
        fetching = self._fetching
        timeout_s = self._config.wait_s()
        take = partial(self._hand_over.chunk, self._config.max_poll_records)
        while (chunk := self.next(take, timeout_s)) is not None:
            thread = self._one_thread.asked_by
            if self._commits.automatic or self._group is not None:
                for record in chunk:
                    yield record
                    # The next one is asked for, so this one is done.
                    if fetching.loop_ends:
                        break  # what is not handed over yet goes back, and perhaps to another member
                    now = monotonic()
                    if self._group is not None:
                        self._group.handed(now)
                    if now >= self._commits.due_at and self.transaction is None:
                        self.commit_in_loop()
            else:
                for record in chunk:
                    yield record
                    if fetching.loop_ends:
                        break
            if self._one_thread.asked_by != thread:
                raise self._one_thread.shared(
                    f"thread {self._one_thread.asked_by} asked for records while a loop of thread {thread} "
                    "was going through some"
                )

    # What `next` and `records` are made of, for callers that wait in another way: all within a call that
    # has entered `one_thread`. First `ask`, then `keep_house` if that is due, `try_take`, and a wait for
    # `listen`'s call or `wait_s`; and again.

    def try_take(self, take: Callable[[], T | None], now: float) -> T | None:
        """What is there now; never waits. The caller hands it on without a call between."""
        hand_over = self._hand_over
        try:
            taken = take()
            if taken is not None and self._group is not None:
                self._group.handed(now)
            hand_over.trail = []  # not a call from here on, up to the application
            return taken
        finally:
            if hand_over.trail:
                hand_over.interrupted = True

    def come_back(self, outer: int = NOBODY) -> None:
        """The application goes on without records, unless `outer` still asks: its time counts, too."""
        if self._group is not None and outer == NOBODY:
            self._group.handed(monotonic())

    def house_keeping_due(self, now: float) -> bool:
        """Is there something to do before more is handed over? Cheap, never waits."""
        member = self._member
        return (
            self._fetching.cluster_moved
            or self._fetching.group_moved
            or now >= self._commits.due_at
            or not self._assignment.partitions
            or bool(self._hand_over.parked)
            or (member is not None and now >= member.retry_at)
        )

    def keep_house(self, now: float) -> None:
        """Follow the cluster and the group, store offsets; may wait for a disk or an answer.

        Raises InvalidArgumentError when there is nothing to read.
        """
        member = self._member
        in_group = member is not None and member.active
        if not (self._assignment.partitions or self._assignment.pattern is not None or in_group):
            raise InvalidArgumentError("there is nothing to read: subscribe() or assign() first")
        if self._fetching.cluster_moved:
            self._fetching.cluster_moved = False
            try:
                if member is not None and member.active:
                    member.follow_cluster()
                else:
                    self._assignment.adopt_new()
            except BaseException:
                self._fetching.cluster_moved = True
                raise
            self._fetching.wake_engine()
        if member is not None and member.active and (self._fetching.group_moved or now >= member.retry_at):
            member.apply(self._engine.request_timeout_s)
        if now >= self._commits.due_at:
            self._auto_commit(now)
        for parked in list(self._hand_over.parked.values()):
            self._bury(parked)

    def wait_s(self, now: float, deadline: float | None) -> float | None:
        """Until the deadline, but not past the time at which offsets are to be stored; None: for ever."""
        ends = [] if deadline is None else [deadline]
        if self._commits.automatic and self._commits.has_news(self._assignment.partitions.values()):
            ends.append(self._commits.due_at)
        if self._member is not None and self._member.retry_at != inf:
            ends.append(self._member.retry_at)
        return min(max(0.0, min(ends) - now), threading.TIMEOUT_MAX) if ends else None

    @property
    def loop_ends(self) -> bool:
        """Is a loop to come for more? Then what is not handed over yet goes back: the group may want it."""
        return self._fetching.loop_ends

    def take_woken(self) -> bool:
        """Was `wakeup` called since the last look? To be asked first of all; then nothing is handed over."""
        return self._fetching.take_woken()

    def listen(self, news: Callable[[], None] | None) -> None:
        """`news` is called, in other threads, whenever a wait would end: it must be quick, and not raise."""
        self._fetching.listen(news)

    def ask(self) -> None:
        """The application is done with what it got before. Within a call that has entered `one_thread`."""
        self._engine.check()
        self.check_no_transaction()
        self._one_thread.asked()
        self._hand_over.settle()
        if self._group is not None:
            self._group.asked()

    def interfere(self) -> None:
        """What is buffered will be changed: a `for` loop that is under way comes for more by itself."""
        self._engine.check()
        self.check_no_transaction()
        self.give_up_hand()

    def give_up_hand(self) -> None:
        """What a `for` loop has in hand is taken from it."""
        self._one_thread.asked()
        self._hand_over.settle_before_last()
        self._hand_over.end_chunk()

    def check_no_transaction(self) -> None:
        """Raise InvalidArgumentError within a local transaction. One that was interrupted is ended first."""
        if self.transaction is not None and self.transaction.left:
            self.transaction.take_back()
        if self.transaction is not None:
            raise InvalidArgumentError(
                "a local transaction is open, and it commits the position when its block is left: "
                "do this after that"
            )

    def commit_in_loop(self) -> None:
        """Auto-commit what a `for` loop has got and is done with."""
        outer = self._one_thread.enter()
        try:
            self._engine.check()
            self._hand_over.settle_handed()
            self._auto_commit(monotonic())
        finally:
            self._one_thread.inside = outer
            if self._one_thread.afterwards is not None:
                self._one_thread.do_afterwards()

    # ------------------------------------------------------------------ inside

    def _goes_on(self, now: float, deadline: float | None) -> bool:
        """Wait, unless the time is over."""
        if deadline is not None and now >= deadline:
            self._fetching.ask_ahead()
            return False
        return self._wait(self.wait_s(now, deadline))

    def _wait(self, timeout_s: float | None) -> bool:
        """Wait for something to take. Signal handlers may call then: nothing is taken, no lock is held."""
        one_thread = self._one_thread
        inside = one_thread.inside
        one_thread.inside = -inside
        if one_thread.afterwards is not None:
            one_thread.do_afterwards()
        goes_on = self._fetching.wait(timeout_s)
        one_thread.inside = inside  # if it was interrupted, `next` does that
        return goes_on

    def _bury(self, parked: Parked) -> None:
        """Write what cannot be handed over as dead letters; only then it is passed."""
        topic = self._hand_over.on_error.topic
        if topic is not None and self._hand_over.is_current(parked):
            letters = [letter_for(one.record, one.reason, one.records) for one in parked.rejected]
            bury(self._engine, topic, letters, self._engine.request_timeout_s)
        self._hand_over.release(parked)

    def _auto_commit(self, now: float) -> None:
        self._commits.store_in_time(self._assignment.partitions.values(), now)
