"""What a signal handler raises at any point of a call: what was accepted is stored once, whatever follows."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count

from tailrace import Consumer, Producer
from tailrace.producer.delivery import Delivery, ManyDelivery
from tailrace.testing import Cluster

from ..conftest import MakeTopic
from ..interrupting import InterruptionError, interrupted_at
from ..patience import PATIENCE_S

STRIDE = 41
"""Of so many points one is tried, so that it is done within seconds."""


class Sender:
    """Sends values that no other call sends, and knows which were accepted."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self.producer = producer
        self.topic = topic
        self.numbers = count()
        self.accepted: list[tuple[Delivery | ManyDelivery, Sequence[bytes]]] = []

    # Notes are taken by `+=`, and not by a call, at which the signal might come in between.

    def send(self, key: bytes | None = None, timestamp_ms: int | None = None) -> None:
        (value,) = values = self.values(1)
        delivery = self.producer.send(self.topic, value, key, timestamp_ms=timestamp_ms)
        self.accepted += [(delivery, values)]

    def send_many(self, records: int, keys: Sequence[bytes] | None = None) -> None:
        values = self.values(records)
        many = self.producer.send_many(self.topic, values, keys)
        self.accepted += [(many, values)]

    def values(self, records: int) -> list[bytes]:
        return [b"%d" % next(self.numbers) for _ in range(records)]

    def flush(self) -> None:
        self.producer.flush(PATIENCE_S)


CALLS: list[Callable[[Sender], None]] = [
    Sender.send,
    Sender.send,
    lambda sender: sender.send(b"key"),
    lambda sender: sender.send(b"key", timestamp_ms=5),
    lambda sender: sender.send_many(40, [b"%d" % number for number in range(40)]),
    lambda sender: sender.send_many(40),
    Sender.flush,
    Sender.send,
]


def test_what_was_accepted_is_stored_once(cluster: Cluster, topic: MakeTopic) -> None:
    """Every other time a second signal comes soon after."""
    name = topic(partitions=2)
    with (
        Producer(cluster.bootstrap_servers, linger_ms=1, batch_size=1_000) as producer,
        Consumer(name, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest") as consumer,
    ):
        sender = Sender(producer, name)
        for point in count(1, STRIDE):
            again = () if point % 2 else (1 + point % 41,)
            sender.accepted = []
            with interrupted_at(point, *again) as interrupts:
                for call in CALLS:
                    with suppress(InterruptionError):
                        call(sender)
            if interrupts.over:
                break
            producer.flush(PATIENCE_S)
            stored = read_on(consumer)
            where = f"interrupted at {point, *again}: {interrupts.places}"
            assert max(stored.values(), default=1) == 1, where
            for delivery, values in sender.accepted:
                assert delivery.exception(0) is None, where
                assert stored.keys() >= set(values), where
            assert producer.metrics()["buffer_used_bytes"] == 0, where


def test_what_its_own_thread_sends_is_stored_once(cluster: Cluster, topic: MakeTopic) -> None:
    """Every other time a second signal comes soon after; every third time the next record does, too."""
    name, places = topic(), set[str]()
    with (
        Producer(cluster.bootstrap_servers, linger_ms=0) as producer,
        Consumer(name, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest") as consumer,
    ):
        sender = Sender(producer, name)
        for again in (False, True) * 2:
            over = 0
            for point in count(1):
                further = (1 + point % 41,) if again else ()
                with interrupted_at(point, *further) as interrupts, suppress(InterruptionError):
                    sender.send()
                places.update(place.partition(":")[0] for place in interrupts.places)
                if point % 3:
                    producer.flush(PATIENCE_S)
                over = over + 1 if interrupts.over else 0
                if over > 20:  # a call has not always as many points
                    break
        producer.flush(PATIENCE_S)
        stored = read_on(consumer)
        assert max(stored.values()) == 1
        for delivery, values in sender.accepted:
            assert delivery.exception(0) is None
            assert stored.keys() >= set(values)
        assert producer.metrics()["buffer_used_bytes"] == 0
        assert producer.metrics()["records_failed"] == 0
    assert {"ahead.py", "pipeline.py", "link.py", "pipes.py", "encoder.py"} <= places


def read_on(consumer: Consumer) -> Counter[bytes]:
    """How often each value came, up to the end as it is now."""
    ends = consumer.end_offsets(consumer.assignment())
    stored = Counter[bytes]()
    while any(consumer.position(name) < end for name, end in ends.items()):
        for records in consumer.poll(PATIENCE_S * 1_000).values():
            stored.update(record.value for record in records)
    return stored
