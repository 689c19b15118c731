"""A record that is sent alone is written by the thread that sends it, and the I/O thread takes note of it."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from random import Random
from threading import Event
from typing import Any

import pytest

from tailrace import Admin, Consumer, Producer
from tailrace.client.ahead import Ahead
from tailrace.client.link import COORDINATOR, Link, Links
from tailrace.testing import Cluster

from ..conftest import MakeTopic
from ..interrupting import handled_at
from ..patience import PATIENCE_S, wait_until


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that have written into pipes, since it was cleared last."""
    threads: list[int] = []
    pipe = Link.pipe

    def spied(self: Link, *arguments: Any, **options: Any) -> bool:
        if self.destination != COORDINATOR:
            threads.append(threading.get_ident())
        return pipe(self, *arguments, **options)

    monkeypatch.setattr(Link, "pipe", spied)
    return threads


@contextmanager
def warm(cluster: Cluster, name: str, **options: Any) -> Iterator[Producer]:
    """A producer whose I/O thread sleeps, after it has sent through the pipe."""
    with Producer(cluster.bootstrap_servers, **{"linger_ms": 0} | options) as producer:
        for _ in range(3):
            producer.send(name, b"warm").result(PATIENCE_S)
        until_asleep(producer)
        yield producer


def until_asleep(producer: Producer) -> None:
    wait_until(lambda: producer._engine._loop._sleeping, "the I/O thread to sleep")


def values_of(cluster: Cluster, name: str) -> list[bytes]:
    with Consumer(
        name, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        ends = consumer.end_offsets(consumer.assignment())
        values: list[bytes] = []
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for records in consumer.poll(PATIENCE_S * 1_000).values():
                values += [record.value for record in records if record.value != b"warm"]
    return values


def test_the_thread_that_sends_writes(cluster: Cluster, topic: MakeTopic, writers: list[int]) -> None:
    """It may wake for something of its own just then, and write it."""
    name, written = topic(), []
    with warm(cluster, name) as producer:
        for number in range(20):
            until_asleep(producer)
            writers.clear()
            producer.send(name, b"%d" % number).result(PATIENCE_S)
            written.append(tuple(writers))
    assert written.count((threading.get_ident(),)) > 10
    assert values_of(cluster, name) == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize(
    "options",
    [{"linger_ms": 1}, {"enable_idempotence": False}, {"acks": 1}, {"acks": 0}, {"compression_type": "lz4"}],
)
def test_what_cannot_be_repeated_or_may_wait_is_left_to_the_io_thread(
    cluster: Cluster, topic: MakeTopic, writers: list[int], options: dict[str, Any]
) -> None:
    name = topic()
    with warm(cluster, name, **options) as producer:
        writers.clear()
        producer.send(name, b"x").result(PATIENCE_S)
        producer.flush(PATIENCE_S)
    assert threading.get_ident() not in writers
    wait_until(lambda: values_of(cluster, name) == [b"x"], "it is stored, also without an answer")


def test_an_answer_that_wakes_the_io_thread(
    cluster: Cluster, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes note first of what is answered."""
    name = topic()
    with warm(cluster, name) as producer:
        monkeypatch.setattr(producer._engine.ahead, "_wake", lambda: None)
        for number in range(20):
            until_asleep(producer)
            assert producer.send(name, b"%d" % number).result(PATIENCE_S).offset == 3 + number
        assert producer.metrics()["batches_retried"] == 0


def test_what_may_be_in_the_pipe_is_sent_once_more_and_stored_once(
    cluster: Cluster, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, pipe = topic(), Link.pipe

    def interrupted(self: Link, *arguments: Any, **options: Any) -> bool:
        piped = pipe(self, *arguments, **options)
        if threading.current_thread() is threading.main_thread():
            assert piped
            raise KeyboardInterrupt
        return piped

    with warm(cluster, name) as producer:
        monkeypatch.setattr(Link, "pipe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            producer.send(name, b"1")
        producer.flush(PATIENCE_S)
        monkeypatch.setattr(Link, "pipe", pipe)
        assert producer.send(name, b"2").result(PATIENCE_S).offset == 4
    assert values_of(cluster, name) == [b"1", b"2"]


@pytest.mark.parametrize("woken", [True, False])
def test_a_node_that_dies_before_it_reads(monkeypatch: pytest.MonkeyPatch, woken: bool) -> None:
    """Also if the I/O thread has not taken note of it by then."""
    with Cluster() as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("orders")
        with warm(cluster, "orders") as producer:
            os.kill(cluster.pid(1), signal.SIGSTOP)
            if not woken:
                monkeypatch.setattr(producer._engine.ahead, "_wake", lambda: None)
            delivery = producer.send("orders", b"1")
            cluster.kill(1)
            cluster.start(1)
            assert delivery.result(PATIENCE_S).offset == 3
        assert values_of(cluster, "orders") == [b"1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("calls_back", "options"),
    [(True, {}), (False, {}), (True, {"linger_ms": 5, "batch_size": 100})],
    ids=["handler", "finalizer", "full batches"],
)
def test_what_is_sent_within_a_send(
    cluster: Cluster, topic: MakeTopic, calls_back: bool, options: dict[str, Any]
) -> None:
    """At any point, by a signal handler or by what nobody knows to call back, a finalizer: it is stored."""
    name, wanted = topic(), list[bytes]()

    with warm(cluster, name, **options) as producer:
        over = 0
        for point in count(1):
            here, there = b"%-60d" % point, b"%-60d of the handler" % point
            until_asleep(producer)
            with handled_at(point, partial(producer.send, name, there), calls_back=calls_back) as signals:
                producer.send(name, here)
            wanted += [here] if signals.over else [here, there]
            over = over + 1 if signals.over else 0
            if over > 20:  # a call has not always as many points
                break
        producer.flush(PATIENCE_S)
        assert producer.metrics()["batches_retried"] == 0
    values = values_of(cluster, name)
    assert not Counter(values) - Counter(wanted)
    assert not Counter(wanted) - Counter(values)
    assert point > 100


def test_an_attempt_within_an_attempt_does_not_give_up_the_turn() -> None:
    """Whatever ends it: the I/O thread must not go on while the outer one writes."""
    refused, turns = Event(), list[bool]()

    def wake() -> None:
        if not refused.is_set():
            raise KeyboardInterrupt

    def write() -> None:
        with suppress(KeyboardInterrupt):
            ahead.attempt(lambda: turns.append(True))
        refused.set()
        with ThreadPoolExecutor(1) as pool:
            turns.append(pool.submit(ahead.turn.acquire, blocking=False).result(PATIENCE_S))

    ahead = Ahead(Links(Random(0)), count().__next__, wake)
    ahead.attempt(write)
    assert turns == [False]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(ahead.turn.acquire, blocking=False).result(PATIENCE_S), "it is given up in the end"
