"""Signal handlers that call the producer that they have interrupted: it is done, or refused at once."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import numpy as np
import pytest

from tailrace import Consumer, Producer, TopicPartition
from tailrace.producer.delivery import Delivery, ManyDelivery
from tailrace.protocol.errors import ClosedError, ConcurrentUseError
from tailrace.protocol.record import Record
from tailrace.testing import Cluster

from ..conftest import MakeTopic
from ..interrupting import InterruptionError, handled_at
from ..patience import PATIENCE_S

SMALL: dict[str, Any] = {"batch_size": 600, "linger_ms": 1}
"""Batches are full after a few records."""
Accepted = list[tuple[Delivery | ManyDelivery, int, list[tuple[bytes, bytes | None]]]]


class Sender:
    """Sends records that no other call sends, and knows where each is stored."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self.producer = producer
        self.topic = topic
        self.numbers = count()
        self.accepted: list[tuple[Delivery | ManyDelivery, list[tuple[bytes, bytes | None]]]] = []

    def send(self, size: int = 20) -> None:
        value = self.value(size)
        self.accepted += [(self.producer.send(self.topic, value), [(value, None)])]

    def send_large(self) -> None:
        self.send(400)

    def send_with_key(self) -> None:
        value = self.value()
        self.accepted += [(self.producer.send(self.topic, value, value), [(value, value)])]

    def send_with_headers(self) -> None:
        value = self.value()
        delivery = self.producer.send(self.topic, value, value, headers=[("name", value)], timestamp_ms=5)
        self.accepted += [(delivery, [(value, value)])]

    def send_many(self) -> None:
        values = [self.value() for _ in range(5)]
        many = self.producer.send_many(self.topic, values, values)
        self.accepted += [(many, [(value, value) for value in values])]

    def value(self, size: int = 20) -> bytes:
        return b"%d" % next(self.numbers) + b"." * size

    def check(self, records: list[Record[Any, Any]]) -> None:
        """Each is there once, with its own key, where its delivery says."""
        stored = {record.offset: (record.value, record.key) for record in records}
        wanted: Counter[tuple[bytes, bytes | None]] = Counter()
        for delivery, sent in self.accepted:
            wanted.update(sent)
            found = delivery.result(PATIENCE_S)
            if isinstance(found, list):
                offsets = [one.base_offset + at for one in found for at in range(one.record_count)]
            else:
                offsets = [found.offset]
            assert [stored[offset] for offset in offsets] == sent
        assert Counter(stored.values()) == wanted


SENDS: list[Callable[[Sender], None]] = [
    Sender.send, Sender.send_large, Sender.send_with_key, Sender.send_with_headers, Sender.send_many,
]  # fmt: skip


def read(cluster: Cluster, topic: str) -> list[Record[Any, Any]]:
    with Consumer(bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest") as consumer:
        consumer.assign([partition := TopicPartition(topic, 0)])
        (end,) = consumer.end_offsets([partition]).values()
        records: list[Record[Any, Any]] = []
        while consumer.position(partition) < end:
            records += consumer.poll(PATIENCE_S * 1_000).get(partition, [])
        return records


def name_of(call: Callable[[Sender], None]) -> str:
    return call.__name__


@pytest.mark.parametrize("options", [SMALL, {"linger_ms": 1}], ids=["small", "large"])
@pytest.mark.parametrize("inner", SENDS, ids=name_of)
@pytest.mark.parametrize("outer", SENDS, ids=name_of)
def test_what_is_sent_within_a_send(
    cluster: Cluster,
    topic: MakeTopic,
    options: dict[str, Any],
    outer: Callable[[Sender], None],
    inner: Callable[[Sender], None],
) -> None:
    """At any point: nothing is lost or mixed up, and each knows its offset."""
    name, over = topic(), 0
    with Producer(cluster.bootstrap_servers, **options) as producer:
        sender = Sender(producer, name)
        for point in count(1, 3 if outer is Sender.send_many else 1):
            with handled_at(point, lambda: inner(sender), calls_back=True) as signals:
                outer(sender)
            over = over + 1 if signals.over else 0
            if over > 5:  # a call has not always as many points
                break
        producer.flush(PATIENCE_S)
        assert producer.metrics()["buffer_used_bytes"] == 0
    sender.check(read(cluster, name))


@pytest.mark.parametrize("linger_ms", [1, 300])
@pytest.mark.parametrize(("count_inner", "size_inner"), [(1, 20), (1, 700), (5, 200)])
def test_what_is_sent_keeps_its_order(
    cluster: Cluster, topic: MakeTopic, linger_ms: int, count_inner: int, size_inner: int
) -> None:
    """That of the handlers, and that of the calls into which they come."""
    name, over = topic(), 0
    numbers = count()
    sent: dict[bytes, list[bytes]] = {b"outer": [], b"inner": []}

    def values(kind: bytes, how_many: int, size: int) -> list[bytes]:
        sent[kind] += (made := [kind + b" %d" % next(numbers) + b"." * size for _ in range(how_many)])
        return made

    with Producer(cluster.bootstrap_servers, batch_size=600, linger_ms=linger_ms) as producer:

        def handler() -> None:
            for value in values(b"inner", count_inner, size_inner):
                producer.send(name, value)

        for point in count(1, 7):
            with handled_at(point, handler, calls_back=True) as signals:
                producer.send(name, *values(b"outer", 1, 0))
                producer.send_many(name, values(b"outer", 40, 30))
            over = over + 1 if signals.over else 0
            if over > 3:
                break
        producer.flush(PATIENCE_S)
    found = [record.value for record in read(cluster, name)]
    for kind, expected in sent.items():
        assert [value for value in found if value.startswith(kind)] == expected


@pytest.mark.parametrize("raises", [False, True])
def test_an_array_may_be_used_again(cluster: Cluster, topic: MakeTopic, *, raises: bool) -> None:
    """After a call into which a handler came that sent, or raised: what it holds then is not stored."""
    name, over = topic(), 0
    rows = np.zeros((40, 4), "<i8")
    returned: list[int] = []
    with Producer(cluster.bootstrap_servers, batch_size=600, linger_ms=300) as producer:
        producer.send(name, b"first").result(PATIENCE_S)

        def handler() -> None:
            if raises:
                raise InterruptionError
            producer.send(name, b"inner")

        for point in count(1, 3):
            rows[:] = point
            rows[:, 1] = range(len(rows))
            with suppress(InterruptionError), handled_at(point, handler, calls_back=True) as signals:
                producer.send_many(name, rows)
                returned.append(point)
            rows[:] = -1
            over = over + 1 if signals.over else 0
            if over > 3:
                break
        producer.flush(PATIENCE_S)
    values = [record.value for record in read(cluster, name)]
    found = Counter(value for value in values if len(value) == rows.itemsize * 4)
    wanted = {np.array([point, at, point, point], "<i8").tobytes() for point in returned for at in range(40)}
    assert wanted <= found.keys()
    assert set(found.values()) == {1}
    assert np.full(4, -1, "<i8").tobytes() not in found
    assert len(returned) > 100


WAITS: dict[str, Callable[[Sender], object]] = {
    "flush": lambda sender: sender.producer.flush(PATIENCE_S),
    "result": lambda sender: (sender.send(), sender.accepted[-1][0].result(PATIENCE_S)),
    "close": lambda sender: sender.producer.close(PATIENCE_S),
    "partitions_for": lambda sender: sender.producer.partitions_for(sender.topic),
}
OUTER: list[Callable[[Sender], None]] = [
    Sender.send, Sender.send_with_key, Sender.send_many, lambda sender: sender.producer.flush(PATIENCE_S),
]  # fmt: skip


@pytest.mark.parametrize("call", WAITS)
@pytest.mark.parametrize("outer", OUTER, ids=["send", "send_with_key", "send_many", "flush"])
def test_what_would_wait_within_a_send(
    cluster: Cluster, topic: MakeTopic, outer: Callable[[Sender], None], call: str
) -> None:
    """It is done or refused at once, and what was sent is stored all the same."""
    name, made, refused, over = topic(), 0, 0, 0
    with Producer(cluster.bootstrap_servers, **SMALL) as producer:
        sender = Sender(producer, name)
        for point in count(1, 3 if outer is Sender.send_many else 1):
            outcomes: list[bool] = []

            def handle(outcomes: list[bool] = outcomes) -> None:
                try:
                    WAITS[call](sender)
                    outcomes.append(True)
                except ConcurrentUseError:
                    outcomes.append(False)

            started = time.monotonic()
            with handled_at(point, handle, calls_back=True) as signals, suppress(ClosedError):
                outer(sender)
            assert time.monotonic() - started < PATIENCE_S
            made, refused = made + sum(outcomes), refused + outcomes.count(False)
            if call == "close" and True in outcomes:
                sender.producer = Producer(cluster.bootstrap_servers, **SMALL)
            over = over + 1 if signals.over else 0
            if over > 5:  # a call has not always as many points
                break
        sender.producer.close(PATIENCE_S)
    assert made
    assert refused
    sender.check(read(cluster, name))
