"""A real cluster, and a way to put exact batches into it."""

import time
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

import pytest

from tailrace.client.admin import Admin
from tailrace.client.engine import Engine
from tailrace.consumer import Consumer
from tailrace.protocol.cluster import NO_LEADER
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import error_from
from tailrace.protocol.messages import Produce, Produced, ProduceEntry, ProduceResult
from tailrace.protocol.record import TopicPartition
from tailrace.testing import Cluster

from ..conftest import new_topic
from ..patience import PATIENCE_S


class Feeder:
    """Creates topics and appends batches as they are given, one request each."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.admin = Admin(cluster.bootstrap_servers)
        self.engine = Engine(cluster.bootstrap_servers, name="feeder")
        self.engine.start()

    def topic(self, partitions: int = 1) -> str:
        """A new topic, which the feeder knows, whatever becomes of the coordinator."""
        name = new_topic(self.admin, partitions)
        self.engine.wait_for_topic(name, PATIENCE_S)
        return name

    def send(
        self, topic: str, *values: bytes | None, partition: int = 0, timestamp: int = 1_000, **columns: Any
    ) -> int:
        """Append one batch; the offset of its first record. Waits for a leader that takes it."""
        return self.send_batch(topic, encode(values, timestamps=timestamp, **columns), partition)

    def send_batch(self, topic: str, batch: bytes, partition: int = 0) -> int:
        """Append a batch as it is; the offset of its first record."""
        deadline = time.monotonic() + PATIENCE_S
        while (result := self._try(topic, partition, batch)) is None or result.error.code != 0:
            assert time.monotonic() < deadline, result
            assert result is None or error_from(result.error.code, "").retriable, result
            self.engine.refresh(PATIENCE_S)
            self.engine.pause(0.01)
        return result.base_offset

    def _try(self, topic: str, partition: int, batch: bytes) -> ProduceResult | None:
        info = self.engine.wait_for_topic(topic, PATIENCE_S)
        leader = info.partitions[partition]
        if leader.leader == NO_LEADER:
            return None
        entry = ProduceEntry(info.topic_id, partition, leader.leader_epoch)
        reply, _ = self.engine.call(
            leader.leader, lambda request_id: Produce(request_id, entries=[entry]), [batch], timeout_s=10
        )
        assert isinstance(reply, Produced)
        return reply.results[0]

    def send_numbers(self, topic: str, numbers: Sequence[int], partition: int = 0) -> None:
        """Append the numbers as text in one batch."""
        self.send(topic, *(b"%d" % number for number in numbers), partition=partition)

    def close(self) -> None:
        self.engine.close()
        self.admin.close()


@pytest.fixture(scope="session")
def feeder(cluster: Cluster) -> Iterator[Feeder]:
    feeder = Feeder(cluster)
    yield feeder
    feeder.close()


@pytest.fixture
def consume(cluster: Cluster) -> Iterator[Callable[..., Consumer]]:
    """Makes consumers of the cluster, from the beginning if nothing else is said; they are closed."""
    made: list[Consumer] = []

    def make(*topics: str, **options: Any) -> Consumer:
        options = {"auto_offset_reset": "earliest", "request_timeout_ms": int(PATIENCE_S * 1_000)} | options
        made.append(Consumer(*topics, bootstrap_servers=cluster.bootstrap_servers, **options))
        return made[-1]

    yield make
    for consumer in made:
        consumer.close()


@pytest.fixture
def ask_for(feeder: Feeder) -> Iterator[Callable[[str], None]]:
    """Has a record sent to a topic by another thread, numbered from 0."""
    wanted: SimpleQueue[str] = SimpleQueue()

    def send() -> None:
        for number, topic in enumerate(iter(wanted.get, "")):
            feeder.send_numbers(topic, [number])

    sender = Thread(target=send)
    sender.start()
    yield wanted.put
    wanted.put("")
    sender.join()


def at(topic: str, partition: int = 0) -> TopicPartition:
    return TopicPartition(topic, partition)


def values_of(consumer: Consumer, wanted: int, timeout_ms: float = PATIENCE_S * 1_000) -> list[bytes]:
    """The values of so many records, by poll."""
    values: list[bytes] = []
    while len(values) < wanted:
        polled = consumer.poll(timeout_ms, max_records=wanted - len(values))
        assert polled, f"only {len(values)} of {wanted} records came"
        values += [record.value for records in polled.values() for record in records]
    return values
