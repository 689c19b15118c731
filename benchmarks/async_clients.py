"""The asyncio clients beside the plain ones, in one run.

    python benchmarks/async_clients.py [--records 300000] [--repeat 3] [--json]

Records of 100 bytes through one partition, in M records/s: `send` one by one until all are stored,
`send_many`, `for` and `async for` over records, and `batches()`. Ratios are async over plain.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from arguments import positive

from tailrace import Admin, AsyncConsumer, AsyncProducer, Consumer, Producer
from tailrace.testing import Cluster

VALUE = bytes(100)
COLUMN = 10_000
_numbers = count(1)


def send(servers: str, topic: str, records: int) -> None:
    """Plain."""
    with Producer(servers) as producer:
        for _ in range(records):
            producer.send(topic, VALUE)


async def async_send(servers: str, topic: str, records: int) -> None:
    """In a loop."""
    async with AsyncProducer(servers) as producer:
        for _ in range(records):
            await producer.send(topic, VALUE)


def send_many(servers: str, topic: str, records: int) -> None:
    """Plain."""
    with Producer(servers) as producer:
        for _ in range(0, records, COLUMN):
            producer.send_many(topic, [VALUE] * COLUMN)


async def async_send_many(servers: str, topic: str, records: int) -> None:
    """In a loop."""
    async with AsyncProducer(servers) as producer:
        for _ in range(0, records, COLUMN):
            await producer.send_many(topic, [VALUE] * COLUMN)


def read(servers: str, topic: str, records: int) -> None:
    """Plain."""
    with Consumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        for _ in zip(range(records), consumer, strict=False):
            pass


async def async_read(servers: str, topic: str, records: int) -> None:
    """In a loop."""
    async with AsyncConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        left = records
        async for _ in consumer:
            left -= 1
            if not left:
                break


def batches(servers: str, topic: str, records: int) -> None:
    """Plain."""
    with Consumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        left = records
        for batch in consumer.batches():
            left -= len(batch.values)
            if left <= 0:
                break


async def async_batches(servers: str, topic: str, records: int) -> None:
    """In a loop."""
    async with AsyncConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        left = records
        async for batch in consumer.batches():
            left -= len(batch.values)
            if left <= 0:
                break


def timed(work: Callable[..., Any], servers: str, topic: str, records: int) -> float:
    """M records/s."""
    started = time.perf_counter()
    done = work(servers, topic, records)
    if asyncio.iscoroutine(done):
        asyncio.run(done)
    return records / (time.perf_counter() - started) / 1e6


def measure(servers: str, records: int) -> dict[str, float]:
    """One round."""
    topics = [f"clients-{next(_numbers)}" for _ in range(4)]
    with Admin(servers) as admin:
        for topic in topics:
            admin.create_topic(topic)
    works = [send, async_send, send_many, async_send_many]
    figures = {
        work.__name__: timed(work, servers, topic, records) for work, topic in zip(works, topics, strict=True)
    }
    for work in (read, async_read, batches, async_batches):
        figures[work.__name__] = timed(work, servers, topics[2], records)
    return figures


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=positive, default=300_000)
    parser.add_argument("--repeat", type=positive, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with Cluster() as cluster:
        rounds = [measure(cluster.bootstrap_servers, options.records) for _ in range(options.repeat)]
    figures = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
    for name in ("send", "send_many", "read", "batches"):
        figures[f"{name}_ratio"] = figures[f"async_{name}"] / figures[name]
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:18}{value:10.2f}")


if __name__ == "__main__":
    main()
