"""A consumer under test: reads its partitions from where it is told, up to where it is told."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from tailrace.client.engine import Engine
from tailrace.consumer.consumer import Consumer
from tailrace.protocol.record import Record, TopicPartition

from .contents import Contents
from .inbox import Inbox, Voice
from .lines import Done, Ready
from .spec import Task
from .verify import Checker

IDLE_MS: Final = 100
"""Without a record for so long it looks at what else there is to do."""
SAMPLED_EVERY: Final = 17
"""Of values whose size is not known, one in so many is asked for it: a prime, lest a pattern of sizes be met
at one of them only."""
SAMPLED_FROM: Final = 1_000
"""Of fewer values at a time each is asked."""


class RemoteConsumer(Consumer):
    """Reaches every node over tcp."""

    _open = staticmethod(partial(Engine, local=False))


class _Piece(NamedTuple):
    """Records of one partition that were handed over together; where only their number is of use, `values`
    are anything.

    `sent_ms` is the timestamp that the producer gave to the first; `keys` are there where they are verified.
    """

    partition: int
    offsets: Sequence[int]
    sent_ms: int
    values: Sequence[Any]
    keys: Sequence[Any] = ()

    def before(self, end: int) -> "_Piece":
        """Without what lies behind there."""
        count = bisect_left(self.offsets, end)
        return self._replace(offsets=self.offsets[:count], values=self.values[:count], keys=self.keys[:count])


class Consuming:
    """All in the main thread."""

    def __init__(self, task: Task, inbox: Inbox, voice: Voice) -> None:
        spec = task.spec
        self._spec = spec
        self._task = task
        self._inbox = inbox
        self._voice = voice
        contents = Contents(spec.record_bytes, spec.step_records, spec.keys) if spec.verify else None
        self._checker = Checker(spec.run, spec.record_bytes, contents) if spec.marked else None
        self._places = {number: TopicPartition(spec.topic, number) for number in task.starts}
        self._next = dict(task.starts)
        self._records = 0
        self._last_ns = 0
        self._over_at_ns: int | None = None

    def run(self) -> Done:
        """Until the ends are reached, or it is to stop. Raises what reading raises."""
        spec = self._spec
        options: dict[str, Any] = spec.consumer_options
        with (Consumer if spec.local else RemoteConsumer)(**options) as consumer:
            consumer.assign(list(self._places.values()))
            consumer.poll(timeout_ms=0, max_records=1)  # has the connections made
            consumer.pause(*self._places.values())  # nothing is fetched ahead of the start
            self._go_to_start(consumer)
            self._voice.say(Ready())
            start_ns = self._inbox.wait_for_start()
            self._voice.begin(start_ns)
            consumer.resume(*self._places.values())
            if self._task.repeat and spec.duration_s is not None:
                self._over_at_ns = start_ns + round(spec.duration_s * 1e9)
            self._read_all(consumer)
        self._voice.sample(time.monotonic_ns(), self._records, last=True)
        seen = self._checker.seen() if self._checker is not None and spec.verify else None
        return Done(last_ns=self._last_ns, seen=seen)

    def _go_to_start(self, consumer: Consumer) -> None:
        for number, offset in self._task.starts.items():
            consumer.seek(self._places[number], offset)
        self._next = dict(self._task.starts)

    def _read_all(self, consumer: Consumer) -> None:
        while not self._is_over():
            self._read(consumer)
            self._look_at_positions(consumer)
            if self._at_end():
                if not self._task.repeat:
                    break
                self._go_to_start(consumer)
                consumer.resume(*self._places.values())

    def _read(self, consumer: Consumer) -> None:
        """What comes, until nothing does for a while or there is something else to do."""
        for piece in self._pieces(consumer):
            now_ns = time.monotonic_ns()
            self._next[piece.partition] = piece.offsets[-1] + 1
            until = self._inbox.until
            if until is not None and self._next[piece.partition] >= (end := until[piece.partition]):
                consumer.pause(self._places[piece.partition])  # what comes behind it does not count
                piece = piece.before(end)
            self._take(piece, now_ns)
            self._voice.sample(now_ns, self._records)
            if self._at_end() or self._is_over():
                return
        self._voice.sample(time.monotonic_ns(), self._records)

    def _take(self, piece: _Piece, now_ns: int) -> None:
        count = len(piece.values)
        if not count:
            return
        if self._spec.only_reads:
            self._voice.value_bytes += _size_of(piece.values)
        if self._checker is not None:
            marks = self._checker.add(piece.partition, piece.values, piece.offsets, piece.keys)
            count = len(marks.runs)
            if self._task.measure:
                for stamp, times in Counter(marks.stamps).items():
                    self._voice.latencies.record(now_ns - stamp, times)
        elif self._task.measure:
            # Records without marks: all of a batch count as its first, to the millisecond.
            self._voice.latencies.record(time.time_ns() - piece.sent_ms * 1_000_000, count)
        if count:
            self._records += count
            self._last_ns = now_ns

    def _pieces(self, consumer: Consumer) -> Iterator[_Piece]:
        if not self._spec.poll:
            for batch in consumer.batches(timeout_ms=IDLE_MS):
                keys = batch.keys if self._spec.verify else ()
                yield _Piece(batch.partition, batch.offsets, batch.timestamps[0], batch.values, keys)
            return
        needed = self._checker is not None or self._spec.only_reads
        while found := consumer.poll(timeout_ms=IDLE_MS):
            for place, records in found.items():
                values: Sequence[Any] = [record.value for record in records] if needed else records
                keys = [record.key for record in records] if self._spec.verify else ()
                yield _Piece(place.partition, _offsets_of(records), records[0].timestamp, values, keys)

    def _look_at_positions(self, consumer: Consumer) -> None:
        """There may be gaps in front of the ends, which no record tells of."""
        for number, place in self._places.items():
            self._next[number] = max(self._next[number], consumer.position(place))

    def _at_end(self) -> bool:
        until = self._inbox.until
        return until is not None and all(self._next[number] >= end for number, end in until.items())

    def _is_over(self) -> bool:
        """Is it to end wherever it is?"""
        late = self._over_at_ns is not None and time.monotonic_ns() >= self._over_at_ns
        return late or self._inbox.stopping


def _offsets_of(records: Sequence[Record[Any, Any]]) -> Sequence[int]:
    first, last = records[0].offset, records[-1].offset
    if last - first == len(records) - 1:
        return range(first, last + 1)
    return [record.offset for record in records]


def _size_of(values: Sequence[bytes | None]) -> int:
    """Bytes, of many by a sample: to ask each takes a third of the time in which they are read."""
    some = values[::SAMPLED_EVERY] if len(values) >= SAMPLED_FROM else values
    return sum(map(len, filter(None, some))) * len(values) // len(some)
