"""What a signal handler raises at any point of a call: nothing is lost, nothing comes twice."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tailrace.consumer import ColumnBatch, Consumer
from tailrace.protocol.record import Record, TopicPartition

from ..interrupting import InterruptionError, Interrupts, interrupted_at
from ..patience import PATIENCE_S
from .conftest import Feeder

PARTITIONS = 2
BATCHES = 5
BATCH = 4
END = BATCHES * BATCH
STRIDE = 29
"""Of so many points one is tried, so that it is done within seconds."""
Got = dict[TopicPartition, list[Record[Any, Any]]] | Record[Any, Any] | ColumnBatch


class Reader:
    """Notes what it does with a consumer before and after it does it, and so what may come next."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.names = sorted(consumer.assignment())
        self.first, self.second = self.names
        self.notes: list[Got | tuple[TopicPartition, int, bool]] = []
        self.next: dict[TopicPartition, set[int]] = {}
        self.passed: dict[TopicPartition, set[int]] = {}
        """Where each partition has been: what may be committed."""

    def begin(self) -> None:
        self.notes.clear()
        self.next = {name: {0} for name in self.names}
        self.passed = {name: {0} for name in self.names}
        self.consumer.resume(*self.names)
        for name in self.names:
            self.consumer.seek(name, 0)
        self.consumer.commit(dict.fromkeys(self.names, 0))

    # Notes are taken by `+=`, and not by a call, at which the signal might come in between.

    def poll(self, records_max: int = 7) -> None:
        polled = self.consumer.poll(PATIENCE_S * 1_000, records_max)
        self.notes += [polled]

    def iterate(self, records: int = 6) -> None:
        for record in self.consumer:
            self.notes += [record]
            records -= 1
            if not records:
                break

    def take_batches(self, batches: int = 3) -> None:
        for batch in self.consumer.batches(PATIENCE_S * 1_000):
            self.notes += [batch]
            batches -= 1
            if not batches:
                break

    def seek(self, name: TopicPartition, offset: int) -> None:
        self.notes += [(name, offset, False)]
        self.consumer.seek(name, offset)
        self.notes += [(name, offset, True)]

    def seek_in_a_loop(self) -> None:
        for left, record in zip((2, 1, 0), self.consumer, strict=False):
            self.notes += [record]
            if left == 1:
                self.seek(TopicPartition(record.topic, record.partition), END - 3)

    def look(self) -> None:
        for name in self.names:
            position = self.consumer.position(name)
            self.notes += [(name, position, True)]

    def pause(self) -> None:
        self.consumer.pause(self.first)
        self.poll()
        self.consumer.resume(self.first)

    def read_on(self) -> None:
        """To the end, and check all that came."""
        self.consumer.resume(*self.names)
        self.check()
        while not all(END in offsets for offsets in self.next.values()):
            self.poll(100)
            self.check()
        assert self.consumer.metrics()["bytes_buffered"] == 0
        for name in self.names:
            assert self.consumer.position(name) == END
            assert self.consumer.committed(name) in self.passed[name]

    def check(self) -> None:
        notes, self.notes = self.notes, []
        for note in notes:
            if isinstance(note, tuple):
                name, offset, done = note
                self.next[name] = {offset} if done else {*self.next[name], offset}
                self.passed[name].add(offset)
            else:
                for name, offset in offsets_of(note):
                    assert offset in self.next[name], f"{name}: {offset} came in place of {self.next[name]}"
                    self.next[name] = {offset + 1}
                    self.passed[name].add(offset + 1)


def offsets_of(got: Got) -> Iterator[tuple[TopicPartition, int]]:
    if isinstance(got, dict):
        for name, records in got.items():
            yield from ((name, record.offset) for record in records)
    elif isinstance(got, ColumnBatch):
        yield from ((TopicPartition(got.topic, got.partition), offset) for offset in got.offsets)
    else:
        yield TopicPartition(got.topic, got.partition), got.offset


CALLS: dict[str, list[Callable[[Reader], None]]] = {
    "poll": [Reader.poll, Reader.poll],
    "iterate": [Reader.iterate, Reader.iterate],
    "batches": [Reader.take_batches, partial(Reader.take_batches, batches=1)],
    "seek": [Reader.poll, lambda reader: reader.seek(reader.first, 9), Reader.poll, Reader.seek_in_a_loop],
    "pause": [Reader.iterate, Reader.pause, Reader.look],
    "commit": [Reader.iterate, lambda reader: reader.consumer.commit(), Reader.poll, Reader.look],
}


@pytest.fixture(scope="module")
def full_topic(feeder: Feeder) -> str:
    topic = feeder.topic(PARTITIONS)
    for number in range(BATCHES):
        for partition in range(PARTITIONS):
            feeder.send_numbers(topic, range(number * BATCH, (number + 1) * BATCH), partition)
    return topic


def interrupted(reader: Reader, calls: list[Callable[[Reader], None]], *points: int) -> Interrupts:
    """The application goes on after an interruption with its next call."""
    reader.begin()
    with interrupted_at(*points) as interrupts:
        for call in calls:
            with suppress(InterruptionError):
                call(reader)
    return interrupts


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_lost_and_nothing_comes_twice(
    consume: Callable[..., Consumer], full_topic: str, tmp_path: Path, name: str
) -> None:
    """Every other time a second one comes soon after."""
    reader = Reader(
        consume(full_topic, offset_store=tmp_path, auto_commit_interval_ms=1, fetch_max_wait_ms=1)
    )
    for point in count(1, STRIDE):
        again = () if point % 2 else (1 + point % 61,)
        interrupts = interrupted(reader, CALLS[name], point, *again)
        if interrupts.over:
            break
        try:
            reader.read_on()
        except BaseException as error:
            error.add_note(f"interrupted at {point, *again}: {interrupts.places}")
            raise


def test_in_waits_that_a_record_ends(
    consume: Callable[..., Consumer],
    feeder: Feeder,
    ask_for: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The application's thread reads it by itself; what it was interrupted in goes on at once."""
    topic = feeder.topic()
    consumer = consume(topic)
    taken: list[bytes] = []
    asked, places = 0, set[str]()
    for again in (False, True) * 2:
        over = 0
        for point in count(1):
            further = (1 + point % 61,) if again else ()
            with interrupted_at(point, *further) as interrupts, suppress(InterruptionError):
                if asked <= len(taken):
                    ask_for(topic)
                    asked += 1
                for records in consumer.poll(PATIENCE_S * 1_000).values():
                    taken += [record.value for record in records]
            places.update(place.partition(":")[0] for place in interrupts.places)
            over = over + 1 if interrupts.over else 0
            if over > 20:  # a call has not always as many points
                break
    while len(taken) < asked:
        taken += [
            record.value for records in consumer.poll(PATIENCE_S * 1_000).values() for record in records
        ]
    assert taken == [b"%d" % number for number in range(asked)]
    assert {"desk.py", "piped_replies.py", "fetcher.py"} <= places
    assert not caplog.records
