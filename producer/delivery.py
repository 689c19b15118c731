"""What the application gets back for its records: handles that resolve by themselves.

All records of a batch share one `Outcome`, so that a handle is a reference and a number, and resolving a
batch costs the same for one record as for thousands.
"""

import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import Final, NamedTuple, TypeAlias

import msgspec

from tailrace.client.arguments import check_callable, seconds_of
from tailrace.client.notice import Notice
from tailrace.client.waiting import Sign, wait_in_steps
from tailrace.protocol.errors import ClosedError, TailraceError, TimedOutError
from tailrace.protocol.text import plural

_log = logging.getLogger(__name__)


class RecordMetadata(NamedTuple):
    """Where a record was stored. `offset` is -1 with acks=0; `timestamp` in milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class RangeMetadata(NamedTuple):
    """Records that lie side by side: `record_count` of them from `base_offset` on (-1 with acks=0)."""

    topic: str
    partition: int
    base_offset: int
    record_count: int


OnSuccess: TypeAlias = Callable[[RecordMetadata], object]
OnError: TypeAlias = Callable[[TailraceError], object]
_Callback: TypeAlias = Callable[["Outcome"], object]


class Outcome(msgspec.Struct, eq=False):
    """What becomes of the records of one batch. Resolved once, by the I/O thread. It has no lock, which a
    signal handler could keep from that thread.

    `starts` and `stamps` are the batch's timestamps: record i has the stamp of the last start <= i.
    `notice` makes what those are told by who wait long; only while it is not done.
    """

    topic: str
    partition: int
    base_offset: int = -1
    error: TailraceError | None = None
    done: bool = False
    notice: Callable[[str, float], Notice] | None = None
    starts: list[int] = []
    stamps: list[int] = []
    _waiter: Sign | None = None
    _callbacks: list[_Callback] = []
    _process: int = msgspec.field(default_factory=os.getpid)

    def resolve(self, base_offset: int, error: TailraceError | None) -> None:
        """The answer is here: wake who waits, then run callbacks in the order they were added."""
        assert not self.done
        self.base_offset = base_offset
        self.error = error
        self.done = True  # from here on who waits, or has a callback, sees to it
        self.notice = None  # it knows the client, which is not to live as long as the handles
        waiter = self._waiter
        callbacks, self._callbacks = self._callbacks, []
        if waiter is not None:
            waiter.set()
        for callback in callbacks:
            self._run(callback)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until resolved; False if `timeout_s` was over first. Ctrl-C interrupts it."""
        done = self.done
        if done:
            return True
        timeout_s = seconds_of(timeout_s)
        if self._process != os.getpid():
            raise ClosedError(
                "this delivery belongs to the process that called send(), and this is a fork of it;"
                " make a new Producer after fork()"
            )
        fresh, notice = Sign(), self.notice
        waiter = self._waiter = self._waiter or fresh  # one for all: no call comes between
        if self.done:  # looked at after that, so that one of both sees the other
            return True
        left_s = inf if timeout_s is None else timeout_s
        look = None if notice is None else notice(f"a record in {self.name} to be stored", left_s).look
        return wait_in_steps(waiter.wait, timeout_s, look)

    def when_done(self, callback: _Callback) -> None:
        """Have `callback(self)` called once resolved: by the I/O thread, or at once if it is already."""
        self._callbacks.append(callback)
        if self.done:  # looked at after that, too
            try:
                self._callbacks.remove(callback)
            except ValueError:
                return  # the I/O thread calls it
            self._run(callback)

    def metadata(self, index: int) -> RecordMetadata:
        """Of one record of a batch that was stored."""
        offset = self.base_offset + index if self.base_offset >= 0 else -1
        timestamp = self.stamps[bisect_right(self.starts, index) - 1]
        return RecordMetadata(self.topic, self.partition, offset, timestamp)

    def raise_error(self) -> None:
        """Raise the error, if that is what came; without the traces of who was told of it before."""
        if self.error is not None:
            raise self.error.with_traceback(None)

    @property
    def name(self) -> str:
        """Of the partition, for people."""
        return f"{self.topic}-{self.partition}"

    def told(self, index: int) -> str:
        """Of one record, for people."""
        if not self.done:
            state = "on its way"
        elif self.error is not None:
            state = _failed(self.error)
        else:
            offset = self.metadata(index).offset
            state = f"stored at offset {offset}" if offset >= 0 else "sent"  # acks=0 tells no offset
        return f"to {self.name}: {state}"

    def _run(self, callback: _Callback) -> None:
        try:
            callback(self)
        except (Exception, SystemExit):  # noqa: BLE001 - it is the application's, and reported
            _log.exception("a callback of a record in %s/%d raised", self.topic, self.partition)


class Delivery(msgspec.Struct, gc=False, eq=False):
    """One record on its way. Resolves by itself, at the latest after `delivery_timeout_ms`."""

    outcome: Outcome
    index: int

    def __repr__(self) -> str:
        return f"<Delivery {self.outcome.told(self.index)}>"

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Wait for the record to be stored, `timeout` seconds at most (None: until it resolves).

        Raises TimedOutError when the time is over before there is an answer (the record is still on its
        way), or the error that the record failed with.
        """
        outcome = self.outcome
        if not outcome.done and not outcome.wait(timeout):
            raise TimedOutError(_still_waiting("the record", outcome, timeout))
        outcome.raise_error()
        return outcome.metadata(self.index)

    def get(self, timeout: float | None = None) -> RecordMetadata:
        """`result`, by kafka-python's name."""
        return self.result(timeout)

    def done(self) -> bool:
        """Is the answer here, whatever it is?"""
        return self.outcome.done

    def exception(self, timeout: float | None = None) -> TailraceError | None:
        """Wait like `result`; the error that the record failed with, or None."""
        if not self.outcome.wait(timeout):
            raise TimedOutError(_still_waiting("the record", self.outcome, timeout))
        return self.outcome.error

    def add_callback(self, function: OnSuccess) -> "Delivery":
        """Call `function(RecordMetadata)` once the record is stored.

        It runs in the producer's I/O thread (so it must be quick and must not wait for deliveries), or
        here and now if the record is stored already. What it raises is logged and changes nothing else.
        """
        index = self.index
        check_callable(function)

        def report(outcome: Outcome) -> None:
            if outcome.error is None:
                function(outcome.metadata(index))

        self.outcome.when_done(report)
        return self

    def add_errback(self, function: OnError) -> "Delivery":
        """Call `function(error)` if the record fails; where and how: see `add_callback`."""
        check_callable(function)

        def report(outcome: Outcome) -> None:
            if outcome.error is not None:
                function(outcome.error)

        self.outcome.when_done(report)
        return self


class Span(NamedTuple):
    """`record_count` records of a batch, from record `first` on."""

    outcome: Outcome
    first: int
    record_count: int


class ManyDelivery:
    """All records of one `send_many` on their way."""

    __slots__ = ("_count", "_spans")

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans: Final = spans
        self._count: Final = sum(span.record_count for span in spans)

    def __len__(self) -> int:
        """The number of records."""
        return self._count

    def __repr__(self) -> str:
        return f"<ManyDelivery {self.told()}>"

    def told(self) -> str:
        """For people."""
        left = sum(span.record_count for span in self._spans if not span.outcome.done)
        error = next((span.outcome.error for span in self._spans if span.outcome.error is not None), None)
        state = "stored" if error is None else _failed(error)
        return f"of {plural(self._count, 'record')}: {f'{left:,} on their way' if left else state}"

    def result(self, timeout: float | None = None) -> list[RangeMetadata]:
        """Wait for all records to be stored, `timeout` seconds at most; where they lie.

        A partition's ranges come in the order of its records. Raises like `Delivery.result`: the first
        error, if any record failed.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error.with_traceback(None)
        return [_range(span) for span in self._spans]

    def get(self, timeout: float | None = None) -> list[RangeMetadata]:
        """`result`, by kafka-python's name."""
        return self.result(timeout)

    def done(self) -> bool:
        """Are all answers here?"""
        return all(span.outcome.done for span in self._spans)

    def exception(self, timeout: float | None = None) -> TailraceError | None:
        """Wait like `result`; the first error, or None."""
        timeout = seconds_of(timeout)
        deadline = None if timeout is None else monotonic() + timeout
        for span in self._spans:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            if not span.outcome.wait(left):
                raise TimedOutError(_still_waiting(f"{self._count} records", span.outcome, timeout))
        return next((span.outcome.error for span in self._spans if span.outcome.error is not None), None)

    def add_callback(self, function: Callable[[list[RangeMetadata]], object]) -> "ManyDelivery":
        """Call `function` with the ranges once all records are stored; see `Delivery.add_callback`."""
        check_callable(function)

        def report(error: TailraceError | None) -> None:
            if error is None:
                function([_range(span) for span in self._spans])

        self._when_all_done(report)
        return self

    def add_errback(self, function: OnError) -> "ManyDelivery":
        """Call `function` with the first error once all answers are here, if any record failed."""
        check_callable(function)

        def report(error: TailraceError | None) -> None:
            if error is not None:
                function(error)

        self._when_all_done(report)
        return self

    def _when_all_done(self, function: Callable[[TailraceError | None], object]) -> None:
        waiting = iter([*self._spans])

        def advance(_: Outcome | None = None) -> None:
            for span in waiting:
                if not span.outcome.done:
                    span.outcome.when_done(advance)
                    return
            function(self.exception(0))

        advance()


def _failed(error: TailraceError) -> str:
    return f"failed: {type(error).__name__}: {error}"


def _range(span: Span) -> RangeMetadata:
    outcome = span.outcome
    base_offset = outcome.base_offset + span.first if outcome.base_offset >= 0 else -1
    return RangeMetadata(outcome.topic, outcome.partition, base_offset, span.record_count)


def _still_waiting(what: str, outcome: Outcome, timeout_s: float | None) -> str:
    return f"{what} to {outcome.name} got no answer within {timeout_s} s; still on the way"
