"""A topic is deleted and created anew under a producer and a consumer: errors that say so, no mixing."""

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tailrace import Admin, Consumer, Producer, TopicPartition
from tailrace.producer import Delivery
from tailrace.protocol.errors import DeliveryFailedError, UnknownTopicError
from tailrace.testing import Cluster

from ..conftest import MakeTopic
from ..patience import PATIENCE_S, wait_until

PARTITIONS_BEFORE = 2
PARTITIONS_AFTER = 3
Places = dict[int, tuple[int, int]]
"""Partition and offset of each number."""


class Writer:
    """Sends a number after the other, whatever comes of them, until the block is left."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self.deliveries: list[Delivery | UnknownTopicError] = []
        self.acked = 0
        self.refused = 0
        """By `send` itself, which knows that the topic is gone."""
        self._producer = producer
        self._topic = topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.0005):
            number = len(self.deliveries)
            try:
                sent = self._producer.send(self._topic, b"%d" % number, partition=number % PARTITIONS_BEFORE)
                self.deliveries.append(sent.add_callback(self._on_ack))
            except UnknownTopicError as error:
                self.deliveries.append(error)
                self.refused += 1

    def _on_ack(self, _: object) -> None:
        self.acked += 1

    def places(self) -> tuple[Places, list[int]]:
        """Where the numbers are that were acknowledged, and the numbers that were refused.

        Raises what any of them failed with, but for UnknownTopicError.
        """
        acked, refused = {}, []
        for number, delivery in enumerate(self.deliveries):
            try:
                if isinstance(delivery, UnknownTopicError):
                    raise delivery
                found = delivery.result(PATIENCE_S)
                acked[number] = (found.partition, found.offset)
            except UnknownTopicError:
                refused.append(number)
        return acked, refused


class Reader:
    """Reads in a thread of its own until it is told that the topic is gone."""

    def __init__(self, consumer: Consumer) -> None:
        self.places: Places = {}
        self.told: UnknownTopicError | None = None
        self._consumer = consumer
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                for records in self._consumer.poll(None).values():
                    for record in records:
                        assert int(record.value) not in self.places
                        self.places[int(record.value)] = (record.partition, record.offset)
        except UnknownTopicError as error:
            self.told = error

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


def places_in(cluster: Cluster, topic: str) -> Places:
    """Everything that the topic holds now."""
    places: Places = {}
    with Consumer(topic, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest") as reader:
        while any(reader.lag().values()):
            for records in reader.poll(1_000).values():
                places |= {int(record.value): (record.partition, record.offset) for record in records}
    return places


@pytest.fixture
def producer(cluster: Cluster) -> Iterator[Producer]:
    producer = Producer(cluster.bootstrap_servers, linger_ms=1)
    yield producer
    with suppress(DeliveryFailedError):
        producer.close(PATIENCE_S)


@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "after-a-while"])
def test_nothing_is_mixed(
    cluster: Cluster, admin: Admin, topic: MakeTopic, producer: Producer, at_once: bool
) -> None:
    name = topic(PARTITIONS_BEFORE)
    consumer = Consumer(name, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest")
    with consumer, Writer(producer, name) as writer:
        reader = Reader(consumer)
        wait_until(lambda: writer.acked > 300 and len(reader.places) > 300, "records flow")
        admin.delete_topic(name)
        wait_until(lambda: at_once or writer.refused, "the producer is told")
        admin.create_topic(name, partitions=PARTITIONS_AFTER)
        reader.join()
        resumed_at = writer.acked
        wait_until(lambda: writer.acked > resumed_at + 300, "records flow into the new topic")
        assert f"'{name}' was deleted" in str(reader.told)
        consumer.subscribe(name)
        first = next(iter(consumer))
    acked, refused = writer.places()
    now = places_in(cluster, name)
    begin = min(now)
    assert int(first.value) in (begin, begin + 1)
    assert now == {number: place for number, place in acked.items() if number >= begin}
    assert all(number < begin for number in refused), "once there, the new topic takes everything"
    before = {number: place for number, place in acked.items() if number < begin}
    assert reader.places.items() <= before.items(), "read from the old topic where it was acknowledged"
    for partition in range(PARTITIONS_BEFORE):
        offsets = [offset for where, offset in reader.places.values() if where == partition]
        assert offsets == list(range(len(offsets))), "in order, without a hole"


def test_one_that_waits_is_told(cluster: Cluster, admin: Admin, topic: MakeTopic, producer: Producer) -> None:
    name = topic(1)
    producer.send(name, b"old").result(PATIENCE_S)
    consumer = Consumer(name, bootstrap_servers=cluster.bootstrap_servers)
    with consumer:
        reader = Reader(consumer)
        admin.delete_topic(name)
        reader.join()
        assert f"'{name}' was deleted" in str(reader.told)
        assert reader.places == {}
    with pytest.raises(UnknownTopicError, match=name):
        wait_until(lambda: producer.send(name, b"new").result(PATIENCE_S) is None, "the producer is told")


def test_what_waits_for_a_node_that_is_down_fails_with_the_topic() -> None:
    with (
        Cluster() as cluster,
        Admin(cluster.bootstrap_servers) as admin,
        Producer(cluster.bootstrap_servers) as producer,
    ):
        admin.create_topic("t")
        producer.send("t", b"stored").result(PATIENCE_S)
        cluster.kill(1)
        waiting = producer.send("t", b"old")
        admin.delete_topic("t")
        with pytest.raises(UnknownTopicError, match="topic 't' was deleted"):
            waiting.result(PATIENCE_S)
        with pytest.raises(DeliveryFailedError, match="1 record not acknowledged"):
            producer.flush(PATIENCE_S)
        cluster.start(1)
        admin.create_topic("t")
        wait_until(lambda: sends(producer, "t"), "the producer knows the new topic")
        ends = admin.list_offsets({TopicPartition("t", 0): Admin.LATEST})
        assert [end.offset for end in ends.values() if end] == [1], "nothing of the old topic is in it"


def test_positions_of_the_old_topic_are_not_applied_to_the_new_one(
    cluster: Cluster, admin: Admin, topic: MakeTopic, producer: Producer
) -> None:
    name = topic(1)
    producer.send_many(name, [b"old"] * 10).result(PATIENCE_S)
    with Consumer(name, bootstrap_servers=cluster.bootstrap_servers) as consumer:
        assert consumer.position(TopicPartition(name, 0)) == 10
        admin.delete_topic(name)
        admin.create_topic(name, partitions=1)
        wait_until(lambda: sends(producer, name), "the producer knows the new topic")
        with pytest.raises(UnknownTopicError):
            consumer.poll(PATIENCE_S * 1_000)
        consumer.assign([TopicPartition(name, 0)])
        assert consumer.position(TopicPartition(name, 0)) == 1


def sends(producer: Producer, topic: str) -> bool:
    try:
        return producer.send(topic, b"new").result(PATIENCE_S).offset == 0
    except UnknownTopicError:
        return False
