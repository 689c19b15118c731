"""Small records through pipes between real processes: whoever is killed or suspended, each is stored once."""

import select
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tailrace import Admin, Consumer
from tailrace.testing import Cluster

from ..patience import wait_until
from ..suspended import suspended
from .load import Load

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="pipes to a node are Linux's")

WRITER = """
import sys
from itertools import count
from tailrace import Producer
producer = Producer(sys.argv[1], linger_ms=0)
for number in count(int(sys.argv[2])):
    producer.send("w", b"%d" % number).result(60)
    print(number, flush=True)
"""
"""Says of each record that it was acknowledged."""


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    with Cluster(session_timeout_ms=1_000) as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("t", partitions=2)
            admin.create_topic("w")
        yield cluster


def node_pid(cluster: Cluster) -> int:
    return cluster.pid(cluster.node_ids[0])


def pipes_of(pid: int) -> int:
    """Ends of pipes that a process has."""
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("pipe:")
        except FileNotFoundError:
            continue
    return count


def test_a_node_that_is_killed_or_suspended(own_cluster: Cluster) -> None:
    """`Load` checks at its end that nothing was lost, doubled or reordered."""
    before = pipes_of(node_pid(own_cluster))

    def piped(clients: int = 2) -> bool:
        return pipes_of(node_pid(own_cluster)) == before + 2 * clients

    with Load(own_cluster.bootstrap_servers, "t") as load:
        for _ in range(3):
            load.wait_for_traffic()
            wait_until(piped, "pipes of the producer and the consumer")
            with suspended(node_pid(own_cluster)):
                load.wait_for_flight()
            load.wait_for_traffic()
            load.wait_for_flight()
            own_cluster.kill(own_cluster.node_ids[0])
            own_cluster.start(own_cluster.node_ids[0])
        load.wait_for_traffic()
        wait_until(piped, "pipes of the producer and the consumer")
    wait_until(lambda: piped(0), "the node to close the pipes of who is gone")


@pytest.mark.slow
def test_clients_that_are_killed_or_suspended(own_cluster: Cluster) -> None:
    """What they were told is stored is there once; a record that was on its way, at most once."""
    node = node_pid(own_cluster)
    before = pipes_of(node)
    acknowledged: list[int] = []
    first = 0
    for round_ in range(4):
        arguments = [sys.executable, "-c", WRITER, own_cluster.bootstrap_servers, str(first)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            try:
                acknowledged += [int(line) for line in islice(writer.stdout, 50)]
                assert pipes_of(node) == before + 2
                if round_ == 0:
                    with suspended(writer.pid):
                        wait_until(lambda: pipes_of(node) == before, "the node to give up who is suspended")
                acknowledged += [int(line) for line in islice(writer.stdout, 50)]
                wait_until(lambda: pipes_of(node) == before + 2, "pipes again")
            finally:
                writer.kill()
            acknowledged += [int(line) for line in writer.stdout]
        first = acknowledged[-1] + 2  # the one after it may be on its way
        wait_until(lambda: pipes_of(node) == before, "the node to close the pipes of who is gone")
    with Consumer(
        "w", bootstrap_servers=own_cluster.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        stored = []
        for record in consumer:
            stored.append(int(record.value or b""))
            if stored[-1] >= acknowledged[-1]:
                break
    assert stored == sorted(set(stored))
    assert set(acknowledged) <= set(stored) <= set(range(first))
