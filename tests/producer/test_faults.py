"""Nodes and the coordinator die while records are on their way: nothing is lost, doubled or reordered."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from tailrace.client.admin import Admin
from tailrace.producer import Producer
from tailrace.protocol.errors import (
    BufferFullError,
    ConnectionFailedError,
    DeliveryFailedError,
    TimedOutError,
)
from tailrace.testing import Cluster

from ..patience import BUSY_S, PATIENCE_S, wait_until
from ..suspended import suspended
from .conftest import read_back

PARTITIONS = 6


@pytest.fixture
def fragile() -> Iterator[Cluster]:
    """Two nodes of this test alone, with a topic `t` on both."""
    with Cluster(nodes=2, session_timeout_ms=1_000) as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("t", partitions=PARTITIONS)
        yield cluster


class Writer:
    """Sends numbered records in a thread of its own, keyed so that each key's order can be checked."""

    def __init__(self, producer: Producer) -> None:
        self.sent = 0
        self._producer = producer
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stopping.is_set():
            number = self.sent
            self._producer.send("t", b"%d" % number, key=b"%d" % (number % 50))
            values = [b"%d" % (number + at) for at in range(1, 100)]
            keys = [b"%d" % ((number + at) % 50) for at in range(1, 100)]
            self._producer.send_many("t", values, keys)
            self.sent += 100

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def wait_for(self, more: int) -> None:
        """Until so many more records were sent."""
        target = self.sent + more
        while self.sent < target:
            assert self._thread.is_alive()
            time.sleep(0.001)


def check(cluster: Cluster, count: int) -> None:
    """Every number below `count` once, each key's in order."""
    last: dict[bytes, int] = {}
    found = 0
    for records in read_back(cluster.bootstrap_servers, "t", PARTITIONS):
        for record in records:
            assert int(record.value) > last.get(record.key, -1), "doubled or out of order"
            last[record.key] = int(record.value)
            found += 1
    assert found == count


@pytest.mark.parametrize("options", [{}, {"linger_ms": 0, "batch_size": 500}, {"compression_type": "lz4"}])
def test_nodes_killed_while_records_are_on_their_way(fragile: Cluster, options: dict[str, object]) -> None:
    with Producer(fragile.bootstrap_servers, buffer_memory=4 << 20, **options) as producer:  # type: ignore[arg-type]
        with Writer(producer) as writer:
            for node in (1, 2, 1):
                writer.wait_for(5_000)
                fragile.kill(node)
                fragile.start(node)
        producer.flush(PATIENCE_S)
        assert producer.metrics()["batches_retried"] > 0
    check(fragile, writer.sent)


def test_a_request_that_is_lost_is_counted(fragile: Cluster) -> None:
    with Admin(fragile.bootstrap_servers) as admin, Producer(fragile.bootstrap_servers) as producer:
        node = admin.describe_topic("t").partitions[0].leader
        assert node is not None
        producer.send("t", b"0", partition=0).result(PATIENCE_S)
        before = producer.metrics()
        assert (before["requests"], before["requests_failed"]) == (1, 0)
        with suspended(fragile.pid(node)):
            sent = producer.send("t", b"1", partition=0)
            wait_until(lambda: producer.metrics()["requests"] == 2, "the request")
            fragile.kill(node)
            wait_until(lambda: producer.metrics()["requests_failed"] > 0, "the loss")
        fragile.start(node)
        assert sent.result(PATIENCE_S).offset == 1
    check(fragile, 2)


def test_data_flows_while_the_coordinator_is_away(fragile: Cluster) -> None:
    with Producer(fragile.bootstrap_servers) as producer:
        producer.send("t", b"0", key=b"0").result(PATIENCE_S)
        fragile.kill_coordinator()
        for number in range(1, 100):
            producer.send("t", b"%d" % number, key=b"0")
        producer.flush(PATIENCE_S)
        fragile.start_coordinator()
        producer.send("t", b"100", key=b"0").result(PATIENCE_S)
    check(fragile, 101)


def test_everything_killed_at_once(fragile: Cluster) -> None:
    with Producer(fragile.bootstrap_servers, buffer_memory=4 << 20) as producer:
        with Writer(producer) as writer:
            writer.wait_for(10_000)
            fragile.kill(1)
            fragile.kill(2)
            fragile.kill_coordinator()
            fragile.start_coordinator()
            fragile.start(1)
            fragile.start(2)
            writer.wait_for(10_000)
        producer.flush(PATIENCE_S)
    check(fragile, writer.sent)


GIVES_UP_S = 5.0
"""How long a producer tries: long enough for an answer of a busy machine, and to be waited out."""


def fill(producer: Producer) -> int:
    """Send until memory is full; how many records went in."""
    for accepted in range(1_000):
        try:
            producer.send("t", b"x" * 1_000, partition=1)
        except BufferFullError:
            return accepted
    raise AssertionError("memory is not bounded")


def delivers(producer: Producer) -> bool:
    """Is a record stored in each partition? A busy machine may need longer than the producer tries."""
    try:
        for partition in range(PARTITIONS):
            producer.send("t", b"x", partition=partition).result()
    except (BufferFullError, ConnectionFailedError, TimedOutError, DeliveryFailedError):
        with suppress(DeliveryFailedError):
            producer.flush()
        return False
    return True


def test_while_all_nodes_are_down_memory_is_bounded_and_handles_resolve_in_time(fragile: Cluster) -> None:
    with Producer(
        fragile.bootstrap_servers,
        delivery_timeout_ms=int(GIVES_UP_S * 1_000),
        buffer_memory=1 << 16,
        max_block_ms=200,
    ) as producer:
        wait_until(partial(delivers, producer), "the topic is known and can be written")
        fragile.kill(1)
        fragile.kill(2)
        started = time.monotonic()
        lost = producer.send("t", b"lost", partition=0)
        accepted = fill(producer)
        assert accepted < 66
        with pytest.raises(BufferFullError, match="buffer_memory") as full:
            producer.send_many("t", [b"x" * 1_000] * 100, partition=1)
        assert full.value.accepted == 0
        with pytest.raises(TimedOutError, match="delivery_timeout_ms"):
            lost.result()
        assert GIVES_UP_S - 0.5 < time.monotonic() - started < GIVES_UP_S + BUSY_S
        with pytest.raises(DeliveryFailedError, match=f"{accepted + 1} records"):
            producer.flush()
        fragile.start(1)
        fragile.start(2)
        wait_until(partial(delivers, producer), "the topic can be written again")


def test_everybody_who_flushes_hears_of_what_failed(fragile: Cluster) -> None:
    told: list[str] = []

    def flush() -> None:
        try:
            writer.flush()
        except DeliveryFailedError as error:
            told.append(str(error))

    with Producer(fragile.bootstrap_servers, delivery_timeout_ms=1_000) as writer:
        writer.send("t", b"known", partition=0).result(PATIENCE_S)
        with suspended(fragile.pid(1), fragile.pid(2)):
            writer.send("t", b"x", partition=0)
            threads = [threading.Thread(target=flush) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE_S)
        assert len(told) == 3
        assert all(
            each.startswith("1 record not acknowledged; the first error: 1 record to") for each in told
        )
        writer.flush()


def test_lingering_takes_no_more_than_half_of_the_time(fragile: Cluster) -> None:
    with Producer(fragile.bootstrap_servers, linger_ms=float("inf"), delivery_timeout_ms=2_000) as writer:
        assert writer.send("t", b"x", partition=0).result(PATIENCE_S).offset == 0
