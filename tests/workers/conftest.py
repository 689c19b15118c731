"""A real cluster, topics in it, and what is stored in them."""

from collections.abc import Callable
from typing import Any

import pytest

from tailrace import Consumer, Producer
from tailrace.protocol.record import Record
from tailrace.testing import Cluster


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
