"""A real cluster, topics in it, and what is stored in them."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tailrace.consumer import Consumer
from tailrace.producer import Producer
from tailrace.protocol.errors import DeliveryFailedError
from tailrace.protocol.record import Record, TopicPartition
from tailrace.testing import Cluster

from ..patience import PATIENCE_S

MakeProducer = Callable[..., Producer]
Read = Callable[..., list[list[Record[Any, Any]]]]


@pytest.fixture
def producer(cluster: Cluster) -> Iterator[MakeProducer]:
    """Makes producers of the cluster; they are closed without looking at what failed."""
    made: list[Producer] = []

    def make(**options: Any) -> Producer:
        made.append(Producer(**({"bootstrap_servers": cluster.bootstrap_servers} | options)))
        return made[-1]

    yield make
    for producer in made:
        with suppress(DeliveryFailedError):
            producer.close(timeout=PATIENCE_S)


@pytest.fixture
def read(cluster: Cluster) -> Read:
    """All records of a topic, by partition, in order."""

    def read(topic: str, partitions: int = 1) -> list[list[Record[Any, Any]]]:
        return read_back(cluster.bootstrap_servers, topic, partitions)

    return read


def read_back(bootstrap_servers: str, topic: str, partitions: int) -> list[list[Record[Any, Any]]]:
    """All records of a topic, by partition, in order."""
    found: list[list[Record[Any, Any]]] = [[] for _ in range(partitions)]
    with Consumer(bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest") as consumer:
        assigned = [TopicPartition(topic, partition) for partition in range(partitions)]
        consumer.assign(assigned)
        ends = consumer.end_offsets(assigned)
        while any(consumer.position(at) < ends[at] for at in assigned):
            for at, records in consumer.poll(timeout_ms=1_000, max_records=10_000).items():
                found[at.partition] += records
    return found
