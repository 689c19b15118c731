"""Addresses where no coordinator answers: an error within the time-out that names address and cause."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

import pytest

from tailrace import Admin, Consumer, Producer, TailraceError
from tailrace.protocol.errors import ConnectionFailedError, DeliveryFailedError, TimedOutError
from tailrace.testing import Cluster

from ..conftest import MakeTopic
from ..patience import BUSY_S, PATIENCE_S
from ..suspended import suspended

TIMEOUT_MS = 300
GIVES_UP_MS = 5_000
"""How long a producer tries: long enough for an answer of a busy machine, and to be waited out."""


@pytest.fixture
def fragile() -> Iterator[Cluster]:
    """A cluster of which a test suspends the node."""
    with Cluster() as cluster:
        yield cluster


@contextmanager
def nothing() -> Iterator[str]:
    """A port that nobody listens at."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def silence() -> Iterator[str]:
    """A server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def another_protocol() -> Iterator[str]:
    """A web server."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    with server.accept()[0] as connection:
                        connection.recv(100)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def a_stopped_coordinator() -> Iterator[str]:
    with Cluster() as cluster, suspended(cluster.coordinator_pid):
        yield cluster.bootstrap_servers


@contextmanager
def a_node() -> Iterator[str]:
    """The address of a node, where the coordinator's should be."""
    with Cluster() as cluster, Admin(cluster.bootstrap_servers) as admin:
        yield admin.describe_cluster().nodes[0].tcp.removeprefix("tcp://")


Place = Callable[[], AbstractContextManager[str]]
PLACES: dict[Place, str] = {
    nothing: "connection refused: no process listens there",
    silence: "it accepts connections but does not answer: no Tailrace process (yet), or a stopped one",
    another_protocol: "accepts connections but does not answer: no Tailrace process (yet), or a stopped one",
    a_stopped_coordinator: "does not answer: no Tailrace process (yet), or a stopped one",
    a_node: "answered, but not as a coordinator",
}


def timeout_ms(place: Place) -> int:
    """A node says at once that it is none, as soon as a busy machine lets it: that is not waited out."""
    return int(PATIENCE_S * 1_000) if place is a_node else TIMEOUT_MS


def send(address: str, timeout_ms: int) -> None:
    with Producer(address, max_block_ms=timeout_ms) as producer:
        producer.send("t", b"x")


def send_many(address: str, timeout_ms: int) -> None:
    with Producer(address, max_block_ms=timeout_ms) as producer:
        producer.send_many("t", [b"x"])


def consume(address: str, timeout_ms: int) -> None:
    Consumer("t", bootstrap_servers=address, request_timeout_ms=timeout_ms)


def list_topics(address: str, timeout_ms: int) -> None:
    with Admin(address, request_timeout_ms=timeout_ms) as admin:
        admin.list_topics()


def create_topic(address: str, timeout_ms: int) -> None:
    with Admin(address) as admin:
        admin.create_topic("t", timeout_ms=timeout_ms)


def ready(address: str, timeout_ms: int) -> None:
    with Admin(address) as admin:
        admin.ready(timeout_ms)


CALLS = (send, send_many, consume, list_topics, create_topic, ready)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_address_and_cause_are_named_in_time(place: Place) -> None:
    with place() as address:
        for call in CALLS:
            started = time.monotonic()
            with pytest.raises(TailraceError) as caught:
                call(address, timeout_ms(place))
            assert time.monotonic() - started < TIMEOUT_MS / 1000 + BUSY_S, call.__name__
            assert address in str(caught.value), call.__name__
            assert PLACES[place] in str(caught.value), call.__name__
            if place is not a_node:
                assert isinstance(caught.value, ConnectionFailedError)


COMMANDS = (("topic", "list"), ("produce", "t"), ("consume", "t"), ("cluster", "status"))


def run(address: str, timeout_ms: int, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    timeout = str(timeout_ms / 1_000)
    return subprocess.run(
        [sys.executable, "-P", "-m", "tailrace", *command, "-b", address, "--timeout", timeout],
        input="x\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_the_command_line_says_it_in_one_line(place: Place) -> None:
    with place() as address, ThreadPoolExecutor(len(COMMANDS)) as pool:
        for done in pool.map(partial(run, address, timeout_ms(place)), COMMANDS):
            assert (done.returncode, done.stdout) == (1, ""), done.stderr
            assert done.stderr.startswith("Error: ")
            assert done.stderr.count("\n") == 1
            assert address in done.stderr
            assert PLACES[place] in done.stderr


def test_several_dead_addresses_are_all_named() -> None:
    with nothing() as first, silence() as second, Admin([first, second]) as admin:
        with pytest.raises(ConnectionFailedError) as caught:
            admin.list_topics(timeout_ms=TIMEOUT_MS)
        assert f"{first}: connection refused" in str(caught.value)
        assert f"{second}: it accepts connections" in str(caught.value)


def test_one_that_lives_is_enough(cluster: Cluster, topic: MakeTopic) -> None:
    name = topic(2)
    with nothing() as first, silence() as second:
        addresses = [first, second, cluster.bootstrap_servers]
        with Producer(addresses) as producer:
            producer.send(name, b"x").result(PATIENCE_S)
        with Consumer(name, bootstrap_servers=addresses, auto_offset_reset="earliest") as consumer:
            assert next(iter(consumer)).value == b"x"


def test_a_stopped_node_is_named(fragile: Cluster) -> None:
    where = fragile.bootstrap_servers
    with Admin(where) as admin:
        admin.create_topic("t")
        node = admin.describe_cluster().nodes[0]
        with (
            Producer(where, delivery_timeout_ms=GIVES_UP_MS) as producer,
            Consumer("t", bootstrap_servers=where) as consumer,
        ):
            producer.send("t", b"x").result()
            with suspended(fragile.pid(1)):
                sent = producer.send("t", b"x")
                calls: list[Callable[[], object]] = [
                    lambda: consumer.end_offsets([("t", 0)], timeout_ms=TIMEOUT_MS),  # type: ignore[list-item]
                    lambda: admin.describe_logs(timeout_ms=TIMEOUT_MS),
                ]
                for call in calls:
                    started = time.monotonic()
                    with pytest.raises((TimedOutError, ConnectionFailedError), match=f"node 1 at {node.ipc}"):
                        call()
                    assert time.monotonic() - started < TIMEOUT_MS / 1000 + BUSY_S
                with pytest.raises(TimedOutError, match=r"t-0 not acknowledged within .*: node 1 leads"):
                    sent.result()
                with pytest.raises(DeliveryFailedError):
                    producer.flush()
