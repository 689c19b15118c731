"""A producer under torture: sends at a steady pace, and notes what was sent and what was acknowledged."""

import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from functools import partial
from typing import Final

from tailrace.bench.producing import RemoteProducer
from tailrace.bench.records import Values, keys_of
from tailrace.producer.delivery import RecordMetadata
from tailrace.producer.producer import Producer
from tailrace.protocol.errors import DeliveryFailedError, TailraceError

from .history import Acked, Event, Failed, Sent, Writer
from .tasks import ClientTask

STEP_S: Final = 0.02
DELIVERY_TIMEOUT_MS: Final = 600_000
"""Longer than any fault: what was sent is to be stored, however long that takes."""

Answer = tuple[int, RecordMetadata | None, str]
"""Sequence, where it was stored, or why not."""


class _Answers:
    """Collected in the producer's I/O thread, written by the main thread."""

    def __init__(self, producer: int, history: Writer) -> None:
        self._producer = producer
        self._history = history
        self._answers: deque[Answer] = deque()

    def acked(self, sequence: int, at: RecordMetadata) -> None:
        """Stored."""
        self._answers.append((sequence, at, ""))

    def failed(self, sequence: int, error: Exception) -> None:
        """Given up."""
        self._answers.append((sequence, None, str(error)))

    def settle(self) -> None:
        """Write those that have come."""
        now = self._history.now()
        acked: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        failed: defaultdict[str, list[int]] = defaultdict(list)
        while self._answers:
            sequence, at, error = self._answers.popleft()
            if at is None:
                failed[error].append(sequence)
            else:
                acked[at.partition].append((sequence, at.offset))
        events: list[Event] = []
        for partition, rows in acked.items():
            sequences, offsets = zip(*rows, strict=True)
            events.append(
                Acked(
                    at_s=now,
                    producer=self._producer,
                    partition=partition,
                    sequences=sequences,
                    offsets=offsets,
                )
            )
        for error, lost in failed.items():
            events.append(Failed(at_s=now, producer=self._producer, sequences=lost, error=error))
        if events:
            self._history.write(*events)


def produce(task: ClientTask, history: Writer, stopped: threading.Event) -> None:
    """Until it is to stop; then until everything was answered."""
    count = max(1, round(task.records_per_s * STEP_S))
    step_s = count / task.records_per_s
    values = Values(
        record_bytes=task.record_bytes, count=count, run=task.run, producer=task.number, marked=True
    )
    keys = keys_of(task.keys + count, task.keys)
    assert keys is not None
    answers = _Answers(task.number, history)
    producer = (Producer if task.local else RemoteProducer)(
        task.bootstrap_servers,
        linger_ms=2,
        batch_size=8_192,
        request_timeout_ms=task.request_timeout_ms,
        delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
        max_block_ms=DELIVERY_TIMEOUT_MS,
    )
    first = 0
    due = time.monotonic()
    while not stopped.wait(max(0.0, due - time.monotonic())):
        due = max(due + step_s, time.monotonic() - 1)
        history.write(Sent(at_s=history.now(), producer=task.number, first=first, count=count))
        for sequence, value in enumerate(values.next(count, first, time.monotonic_ns()), first):
            sent = producer.send(task.topic, value, keys[sequence % task.keys])
            sent.add_callback(partial(answers.acked, sequence))
            sent.add_errback(partial(answers.failed, sequence))
        first += count
        answers.settle()
    _close(producer, answers)


def _close(producer: Producer, answers: _Answers) -> None:
    """Wait for all answers. What failed is in the history already."""
    with suppress(DeliveryFailedError):
        producer.flush()
    with suppress(TailraceError):
        producer.close(timeout=0)
    answers.settle()
