"""Signal handlers that call the consumer that they have interrupted: it is done, or refused at once."""

import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from tailrace.consumer import Consumer, RebalanceListener
from tailrace.protocol.errors import ClosedError, ConcurrentUseError, SerializationError
from tailrace.protocol.record import Record, TopicPartition

from ..interrupting import handled_at
from ..patience import PATIENCE_S, wait_until
from .conftest import Feeder, at, values_of

STRIDE = 7
"""Of so many points one is tried where each takes a consumer of its own, to be done within seconds."""
Make = Callable[..., Consumer]
Call = Callable[[Consumer, TopicPartition], object]


def stay(consumer: Consumer, partition: TopicPartition) -> None:
    """Go on where it is."""
    consumer.seek(partition, consumer.position(partition))


def store(consumer: Consumer, partition: TopicPartition) -> None:
    with consumer.local_transaction(partition):
        pass


WHILE_IT_WAITS: dict[str, Call] = {
    "pause": lambda consumer, partition: consumer.pause(partition),
    "resume": lambda consumer, partition: consumer.resume(partition),
    "seek": stay,
    "commit": lambda consumer, _: consumer.commit(),
    "commit_async": lambda consumer, _: consumer.commit_async(),
    "position": lambda consumer, partition: consumer.position(partition),
    "committed": lambda consumer, partition: consumer.committed(partition),
    "lag": lambda consumer, _: consumer.lag(),
    "metrics": lambda consumer, _: consumer.metrics(),
    "assign": lambda consumer, partition: consumer.assign([partition]),
    "subscribe": lambda consumer, partition: consumer.subscribe(partition.topic),
    "local_transaction": store,
    "beginning_offsets": lambda consumer, partition: consumer.beginning_offsets([partition]),
    "end_offsets": lambda consumer, partition: consumer.end_offsets([partition]),
    "offsets_for_times": lambda consumer, partition: consumer.offsets_for_times({partition: 0}),
    "partitions_for_topic": lambda consumer, partition: consumer.partitions_for_topic(partition.topic),
    "topics": lambda consumer, _: consumer.topics(),
}
"""What a handler may do while its own thread waits for records, and not in the middle of a call."""
ANYWHERE: dict[str, Call] = {
    "wakeup": lambda consumer, _: consumer.wakeup(),
    "assignment": lambda consumer, _: consumer.assignment(),
    "paused": lambda consumer, _: consumer.paused(),
    "subscription": lambda consumer, _: consumer.subscription(),
}
READS: dict[str, Callable[[Consumer], list[bytes]]] = {
    "poll": lambda consumer: values_in(consumer.poll(PATIENCE_S * 1_000)),
    "iterate": lambda consumer: [record.value for record in islice(consumer, 1)],
    "batches": lambda consumer: [value for batch in islice(consumer.batches(), 1) for value in batch.values],
}


def values_in(polled: dict[TopicPartition, list[Record[Any, Any]]]) -> list[bytes]:
    return [record.value for records in polled.values() for record in records]


class Handler:
    """Calls all that there is, and notes what came of it."""

    def __init__(self, consumer: Consumer, partition: TopicPartition, send: Callable[[], None]) -> None:
        self.consumer = consumer
        self.partition = partition
        self.send = send
        self.made: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.taken: list[bytes] = []
        self.longest_s = 0.0

    def __call__(self) -> None:
        started = time.monotonic()
        for name, call in (WHILE_IT_WAITS | ANYWHERE | {"poll": self.poll}).items():
            try:
                call(self.consumer, self.partition)
                self.made[name] += 1
            except ConcurrentUseError:
                self.refused[name] += 1
        self.longest_s = max(self.longest_s, time.monotonic() - started)

    def poll(self, consumer: Consumer, _: TopicPartition) -> None:
        taken = values_in(consumer.poll(1))  # it may wait, too
        if taken:
            self.taken += taken
            self.send()  # what it has interrupted waits for one


@pytest.mark.parametrize("how", READS)
def test_at_any_point(
    consume: Make, feeder: Feeder, ask_for: Callable[[str], None], tmp_path: Path, how: str
) -> None:
    """It is done or refused at once; nothing is lost, and nothing comes twice."""
    topic = feeder.topic()
    consumer = consume(topic, offset_store=tmp_path, auto_commit_interval_ms=20)
    handler = Handler(consumer, at(topic), partial(ask_for, topic))
    taken = handler.taken
    over = 0
    for point in count(1):
        ask_for(topic)
        with handled_at(point, handler, calls_back=True) as signals:
            values: list[bytes] = []
            while not values:  # not after a wakeup
                values = READS[how](consumer)
        taken += values
        over = over + 1 if signals.over else 0
        if over > 20:  # a call has not always as many points
            break
    assert handler.longest_s < PATIENCE_S
    assert taken == [b"%d" % number for number in range(len(taken))]
    assert handler.made.keys() == {*WHILE_IT_WAITS, *ANYWHERE, "poll"}
    assert handler.refused.keys() == {*WHILE_IT_WAITS, "poll"}


@pytest.mark.parametrize("how", READS)
def test_close_at_any_point(
    consume: Make, feeder: Feeder, ask_for: Callable[[str], None], tmp_path: Path, how: str
) -> None:
    """It is closed when the call is over, and has stored no more than was handed over."""
    topic = feeder.topic()
    begun, got, asked, over = 0, list[bytes](), 0, 0
    for point in count(1, STRIDE):
        with consume(topic, offset_store=tmp_path, auto_commit_interval_ms=1) as consumer:
            position = consumer.position(at(topic))
            assert begun <= position <= begun + len(got), f"{got} before {point}"
            if asked == position:
                ask_for(topic)
                asked += 1
            begun, got, started = position, [], time.monotonic()
            with handled_at(point, consumer.close, calls_back=True) as signals, suppress(ClosedError):
                got = READS[how](consumer)
            assert time.monotonic() - started < PATIENCE_S
            assert got == [b"%d" % number for number in range(begun, begun + len(got))]
            if not signals.over:
                with pytest.raises(ClosedError):
                    consumer.poll(PATIENCE_S * 1_000)
        over = over + 1 if signals.over else 0
        if over > 3:  # a call has not always as many points
            break


def test_a_loop_that_a_handler_closes_as_it_commits(consume: Make, feeder: Feeder, tmp_path: Path) -> None:
    """It ends there with a ClosedError, and goes on there."""
    topic = feeder.topic()
    feeder.send_numbers(topic, range(10))
    got: list[bytes] = []
    consumer = consume(topic, offset_store=tmp_path, auto_commit_interval_ms=1)
    commits = consumer._session.commits
    store = commits.store_in_time

    def store_in_time(*arguments: Any) -> None:
        if len(got) == 4:
            consumer.close()
        store(*arguments)

    commits.store_in_time = store_in_time  # type: ignore[method-assign]
    with pytest.raises(ClosedError):  # noqa: PT012
        for record in consumer:
            got.append(record.value)
            wait_until(lambda: time.monotonic() >= commits.due_at, "it is time to commit")
    assert got == [b"0", b"1", b"2", b"3"]
    assert values_of(consume(topic, offset_store=tmp_path), 1) == [b"4"]


def test_a_listener_may_call(consume: Make, feeder: Feeder) -> None:
    """What it is told of, it may change."""
    topic = feeder.topic()
    feeder.send_numbers(topic, range(10))

    class Listener(RebalanceListener):
        def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
            for partition in partitions:
                consumer.seek(partition, 7)

        def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
            consumer.commit(dict.fromkeys(partitions, 9))

    consumer = consume(group_id=topic)
    consumer.subscribe(topic, listener=Listener())
    assert values_of(consumer, 1) == [b"7"]
    consumer.unsubscribe()
    assert consumer.committed(at(topic)) == 9


def test_a_deserializer_that_calls_is_refused(consume: Make, feeder: Feeder) -> None:
    """The record is in hand to nobody yet."""
    topic = feeder.topic()
    feeder.send_numbers(topic, [1])

    def deserialize(_: bytes) -> int:
        return consumer.position(at(topic))

    consumer = consume(topic, value_deserializer=deserialize)
    with pytest.raises(SerializationError) as raised:
        consumer.poll(PATIENCE_S * 1_000)
    assert isinstance(raised.value.__cause__, ConcurrentUseError)
