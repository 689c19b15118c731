"""Shared memory between real processes: used by itself, and gone with whoever used it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tailrace import Admin, Consumer, Producer, TopicPartition
from tailrace.testing import Cluster

from ..conftest import MakeTopic
from ..patience import wait_until
from ..suspended import suspended

WRITER = """
import sys
from tailrace import Producer
producer = Producer(sys.argv[1])
while True:
    producer.send_many(sys.argv[2], [b"x" * 100] * 10_000)
    producer.flush()
    print(producer.metrics()["paths"], flush=True)
"""

CLUSTER = """
import sys
from tailrace import Admin
from tailrace.testing import Cluster
with Cluster() as cluster:
    with Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("t")
    print(cluster.bootstrap_servers, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("t")
        yield cluster


def test_clients_use_it_by_themselves(cluster: Cluster, topic: MakeTopic) -> None:
    name, values = topic(1), [b"v%06d" % number for number in range(20_000)]
    with Producer(cluster.bootstrap_servers) as producer:
        producer.send_many(name, values)
        producer.flush()
        producer.send_many(name, values)
        producer.flush()
        assert "shared memory" in producer.metrics()["paths"].values()
    with Consumer(
        name, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        got = [record.value for record in islice(consumer, 40_000)]
        assert "shared memory" in consumer.metrics()["paths"].values()
    assert got == values * 2


@pytest.fixture
def foreign_cluster() -> Iterator[str]:
    """Where a cluster is for which no process has a number that is not its own."""
    isolated = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child"]
    try:
        probe = subprocess.run([*isolated, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if probe.returncode != 0:
        pytest.skip("no PID namespaces here")
    command = [*isolated, sys.executable, "-c", CLUSTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield said(process).strip()
        finally:
            process.communicate()  # it ends with its input


def test_in_another_pid_namespace_batches_go_in_frames(foreign_cluster: str) -> None:
    """The kernel cannot tell the node which process of its own the client is."""
    values = [b"v%06d" % number for number in range(20_000)]

    def refused(client: Producer | Consumer) -> bool:
        reason = "the client's memory cannot be opened: No such file or directory"
        return list(client.metrics()["paths"].values()) == [f"frames: {reason}"]

    with Producer(foreign_cluster) as producer:
        producer.send_many("t", values)
        producer.flush()
        wait_until(lambda: refused(producer), "the refusal")
        producer.send_many("t", values)
    with Consumer("t", bootstrap_servers=foreign_cluster, auto_offset_reset="earliest") as consumer:
        assert [record.value for record in islice(consumer, 40_000)] == values * 2
        assert refused(consumer)


def arenas_of(pid: int) -> int:
    """Arenas that a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text().count("/memfd:tailrace-arena")


def node_pid(cluster: Cluster) -> int:
    return cluster.pid(cluster.node_ids[0])


@contextmanager
def writing(cluster: Cluster) -> Iterator[subprocess.Popen[str]]:
    """A process that writes by way of shared memory, and says a line now and then."""
    arguments = [sys.executable, "-c", WRITER, cluster.bootstrap_servers, "t"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
        try:
            wait_until(lambda: "shared memory" in said(writer), "the arena")
            yield writer
        finally:
            writer.kill()


def said(writer: subprocess.Popen[str]) -> str:
    assert writer.stdout is not None
    return writer.stdout.readline()


def test_a_killed_client_leaves_nothing(own_cluster: Cluster) -> None:
    pid = node_pid(own_cluster)
    for _ in range(3):
        with writing(own_cluster):
            assert arenas_of(pid) == 1
        wait_until(lambda: arenas_of(pid) == 0, "the node to let go of the memory")


@pytest.mark.slow
def test_who_is_suspended_keeps_nothing(own_cluster: Cluster) -> None:
    """The other one gives the memory back, and shares again when they meet again."""
    node = node_pid(own_cluster)
    with writing(own_cluster) as writer:
        for asleep, other in ((writer.pid, node), (node, writer.pid)):
            with suspended(asleep):
                wait_until(lambda other=other: arenas_of(other) == 0, f"process {other} to let go")
            wait_until(
                lambda: said(writer) and arenas_of(node) == arenas_of(writer.pid) == 1, "sharing again"
            )


def test_a_killed_node_comes_back_and_shares_again(own_cluster: Cluster) -> None:
    node = own_cluster.node_ids[0]
    tp = TopicPartition("t", 0)

    def send(producer: Producer, number: int) -> Any:
        return producer.send_many("t", [b"%d" % number + b"x" * 100] * 1_000)

    servers: Any = {"bootstrap_servers": own_cluster.bootstrap_servers}
    with Producer(**servers) as producer, Consumer(**servers, auto_offset_reset="earliest") as consumer:
        consumer.assign([tp])
        for round_ in range(3):
            for number in range(20):
                send(producer, number)
            own_cluster.kill(node)
            own_cluster.start(node)
            producer.flush()
            wait_until(lambda: "shared memory" in _after_one_more(producer, send), "sharing again")
            assert arenas_of(node_pid(own_cluster)) >= 1, round_
        end = consumer.end_offsets([tp])[tp]
        seen = sum(len(batch) for batch in _until(consumer, tp, end))
        assert seen == end
        assert seen >= 3 * 20 * 1_000


def _after_one_more(producer: Producer, send: Any) -> list[str]:
    send(producer, 0)
    producer.flush()
    return list(producer.metrics()["paths"].values())


def _until(consumer: Consumer, tp: TopicPartition, end: int) -> Iterator[Any]:
    for batch in consumer.batches():
        yield batch
        if consumer.position(tp) >= end:
            return
