"""A producer under test: sends what is due, and notes when each answer came."""

import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from tailrace.client.engine import Engine
from tailrace.client.notice import TOLD_AFTER_S, Notice
from tailrace.producer.delivery import Outcome
from tailrace.producer.flushing import notice
from tailrace.producer.producer import Producer
from tailrace.protocol.errors import DeliveryFailedError, TailraceError, TimedOutError

from .inbox import Inbox, Voice
from .lines import EVERY_S, Done, Ready
from .pacing import STEPS_PER_S, STEPS_PER_S_ONE_BY_ONE, Pacer, Step
from .records import Values, keys_of
from .spec import Task
from .verify import SequenceSet

STOP_WITHIN_S: Final = 5.0
"""When it is to stop, answers are waited for so long."""


class WatchedProducer(Producer):
    """Tells what stands in its way."""

    def notice(self, what: str) -> Notice:
        """For who waits for `what` as long as a delivery may take."""
        accumulator = self._accumulator
        timeout_s = accumulator.delivery_timeout_s
        return notice(self._engine, accumulator, what, timeout_s, otherwise=self._otherwise)

    @property
    def obstacle(self) -> str:
        """Why records are not acknowledged, as far as that is known."""
        return str(self._accumulator.obstacle() or self._otherwise)

    @property
    def _otherwise(self) -> str:
        """What is said when nothing is known to stand in the way."""
        linger_s = self._accumulator.linger_s
        if linger_s < TOLD_AFTER_S:
            return "no answer so far"
        return f"no answer so far, and what fills no batch waits for {linger_s:g} s (linger)"


class RemoteProducer(WatchedProducer):
    """Reaches every node over tcp."""

    _open = staticmethod(partial(Engine, local=False))


class _Answer(NamedTuple):
    """Some records that were sent together have an answer; all but `at_ns` is known when they are sent."""

    sequences: Sequence[int]
    due_ns: int
    at_ns: int
    error: TailraceError | None


class Producing:
    """All in the main thread, but that answers are noted by the producer's I/O thread."""

    def __init__(self, task: Task, inbox: Inbox, voice: Voice) -> None:
        spec = task.spec
        self._spec = spec
        self._task = task
        self._inbox = inbox
        self._voice = voice
        self._step = spec.step_records
        self._bulk = not spec.one_by_one and spec.mode != "latency"
        self._values = Values(
            record_bytes=spec.record_bytes,
            count=self._step,
            run=spec.run,
            producer=task.index,
            marked=spec.marked,
        )
        self._keys = keys_of(max(spec.keys, self._step) + self._step, spec.keys)
        self._answers: deque[_Answer] = deque()
        self._acked_set = SequenceSet()
        self._sent = self._acked = self._failed = 0
        self._last_ns = 0
        self._standstill: Notice | None = None
        """Since the last answer, with others to come."""
        self._error = ""

    def run(self) -> Done:
        """Until all is sent and answered, or it is to stop. Raises what sending raises."""
        spec = self._spec
        options: dict[str, Any] = spec.producer_options
        producer = (WatchedProducer if spec.local else RemoteProducer)(**options)
        try:
            self._warm_up(producer)
            self._voice.say(Ready())
            start_ns = self._inbox.wait_for_start()
            self._voice.begin(start_ns)
            self._send_all(producer, start_ns)
            self._await_answers(producer)
        finally:
            try:
                producer.close(timeout=0)
            except TailraceError as failure:
                self._error = self._error or str(failure)
        self._settle()
        self._voice.sample(time.monotonic_ns(), self._acked, last=True)
        return Done(
            sent=self._sent,
            failed=self._sent - self._acked,
            error=self._error,
            last_ns=self._last_ns,
            acked=self._acked_set.pack() if spec.verify else "",
        )

    def _warm_up(self, producer: WatchedProducer) -> None:
        """One empty record to each partition, so that connections and the producer's id are there.

        Records without a key go on behind the last of them: elsewhere with each producer, so that these do
        not all write to one partition, and then all to the next.
        """
        partitions = sorted(producer.partitions_for(self._spec.topic))
        first = self._task.index * len(partitions) // self._spec.producers
        deliveries = [
            producer.send(self._spec.topic, b"", partition=partition)
            for partition in partitions[first:] + partitions[:first]
        ]
        producer.flush(self._spec.timeout_s)  # whatever linger is
        for delivery in deliveries:
            delivery.result(self._spec.timeout_s)

    # ----------------------------------------------------------------- sending

    def _send_all(self, producer: WatchedProducer, start_ns: int) -> None:
        spec = self._spec
        # Several producers take turns, as the records of one would.
        turn_ns = 0 if spec.rate is None else round(self._task.index * 1e9 / spec.rate)
        pacer = Pacer(
            start_ns,
            step=self._step,
            steps_per_s=STEPS_PER_S if self._bulk else STEPS_PER_S_ONE_BY_ONE,
            rate=None if spec.rate is None else spec.rate / spec.producers,
            records=spec.share(self._task.index),
            duration_s=spec.duration_s,
            turn_ns=turn_ns,
        )
        send = self._send_many if self._bulk else self._send_one_by_one
        while (step := pacer.step(now_ns := time.monotonic_ns())) is not None:
            if step.due_ns > now_ns:
                self._sleep_until(step.due_ns)
            if self._inbox.stopping:
                return
            send(producer, step)
            self._sent += step.records
            if self._answers:
                self._settle()
            if self._voice.sample(time.monotonic_ns(), self._acked):
                self._look(producer)

    def _sleep_until(self, due_ns: int) -> None:
        """What takes time is done in long pauses, and samples are told in them."""
        while due_ns - time.monotonic_ns() > EVERY_S * 1e9 and not self._inbox.stopping:
            self._inbox.sleep_until(time.monotonic_ns() + round(EVERY_S * 1e9))
            self._settle()
            self._voice.sample(time.monotonic_ns(), self._acked)
        self._inbox.sleep_until(due_ns)

    def _send_many(self, producer: WatchedProducer, step: Step) -> None:
        values = self._values.next(step.records, step.first, step.due_ns)
        keys = self._keys_from(step.first, step.records)
        sent = producer.send_many(self._spec.topic, values, keys)
        sequences = range(step.first, step.first + step.records)
        sent.add_callback(lambda _: self._note(sequences, step.due_ns, None))
        sent.add_errback(lambda error: self._note(sequences, step.due_ns, error))

    def _send_one_by_one(self, producer: WatchedProducer, step: Step) -> None:
        topic, send = self._spec.topic, producer.send
        values = self._values.next(step.records, step.first, step.due_ns)
        keys = self._keys_from(step.first, step.records)
        if keys is None:
            deliveries = [send(topic, value) for value in values]
        else:
            deliveries = [send(topic, value, key) for value, key in zip(values, keys, strict=True)]
        outcomes = {delivery.outcome for delivery in deliveries}
        for outcome in outcomes:
            sequences: Sequence[int] = range(step.first, step.first + step.records)
            if len(outcomes) > 1:
                own = enumerate(deliveries, step.first)
                sequences = [sequence for sequence, delivery in own if delivery.outcome is outcome]
            outcome.when_done(partial(self._note_outcome, sequences, step.due_ns))

    def _keys_from(self, first: int, count: int) -> list[bytes] | None:
        """Keys go round."""
        if self._keys is None:
            return None
        start = first % self._spec.keys
        return self._keys[start : start + count]

    # ----------------------------------------------------------------- answers

    def _note_outcome(self, sequences: Sequence[int], due_ns: int, outcome: Outcome) -> None:
        self._note(sequences, due_ns, outcome.error)

    def _note(self, sequences: Sequence[int], due_ns: int, error: TailraceError | None) -> None:
        """In the I/O thread, or in ours if the answer was there already."""
        self._answers.append(_Answer(sequences, due_ns, time.monotonic_ns(), error))

    def _settle(self) -> None:
        """Take in the answers that have come."""
        while self._answers:
            self._standstill = None
            sequences, due_ns, at_ns, error = self._answers.popleft()
            if error is not None:
                self._failed += len(sequences)
                self._error = self._error or str(error)
                continue
            self._acked += len(sequences)
            self._last_ns = max(self._last_ns, at_ns)
            if self._task.measure:
                self._voice.latencies.record(at_ns - due_ns, len(sequences))
            if self._spec.verify:
                self._mark(sequences)

    def _look(self, producer: WatchedProducer) -> None:
        """If no answer has come for a while, say why."""
        if self._sent > self._acked + self._failed:
            self._standstill = self._standstill or producer.notice("records to be acknowledged")
            self._standstill.look()

    def _mark(self, sequences: Sequence[int]) -> None:
        if isinstance(sequences, range):
            self._acked_set.add_range(sequences.start, sequences.stop)
        else:
            for sequence in sequences:
                self._acked_set.add(sequence)

    def _await_answers(self, producer: WatchedProducer) -> None:
        """Until every record has its answer, which `delivery_timeout_ms` bounds."""
        stop_by: float | None = None
        while True:
            try:
                producer.flush(EVERY_S)
            except DeliveryFailedError as failure:
                self._error = self._error or str(failure)
            except TimedOutError:
                self._settle()
                self._look(producer)
                self._voice.sample(time.monotonic_ns(), self._acked)
                if self._inbox.stopping:
                    stop_by = time.monotonic() + STOP_WITHIN_S if stop_by is None else stop_by
                    if time.monotonic() >= stop_by:
                        self._error = self._error or producer.obstacle
                        return
                continue
            return
