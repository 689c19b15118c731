"""A real cluster, topics in it, and what is stored in them."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from tailrace import Admin, Consumer, Producer
from tailrace.protocol.record import Record
from tailrace.testing import Cluster

_numbers = count(1)
MakeTopic = Callable[..., str]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One node."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def admin(cluster: Cluster) -> Iterator[Admin]:
    with Admin(cluster.bootstrap_servers) as admin:
        yield admin


@pytest.fixture
def topic(admin: Admin) -> MakeTopic:
    """Makes new topics."""

    def make(partitions: int = 1) -> str:
        name = f"topic-{next(_numbers)}"
        admin.create_topic(name, partitions=partitions)
        return name

    return make


@pytest.fixture
def numbers(cluster: Cluster) -> Callable[[str, int], None]:
    """Sends the numbers below `count`, as text, each under its last digit as key."""

    def send(topic: str, count: int) -> None:
        with Producer(cluster.bootstrap_servers) as producer:
            texts = [b"%d" % number for number in range(count)]
            producer.send_many(topic, texts, [text[-1:] for text in texts])

    return send


@pytest.fixture
def stored(cluster: Cluster) -> Callable[[str], list[Record[Any, Any]]]:
    """All records of a topic, by partition."""

    def read(topic: str) -> list[Record[Any, Any]]:
        found: list[Record[Any, Any]] = []
        with Consumer(
            topic, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer:
            total = sum(consumer.end_offsets(consumer.assignment()).values())
            while len(found) < total:
                for records in consumer.poll(timeout_ms=20_000, max_records=10_000).values():
                    found += records
        return found

    return read
