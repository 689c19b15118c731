"""Processes are killed and suspended while records are produced and consumed.

Nothing that was acknowledged is lost, nothing comes twice, each key's order is kept, and the clients go
on by themselves. `Load` checks that at its end.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count

import pytest

from tailrace import Admin, Consumer, TopicPartition
from tailrace.consumer import ColumnBatch
from tailrace.testing import Cluster

from ..patience import PATIENCE_S, wait_until
from ..suspended import suspended
from .load import Load

_numbers = count(1)


@pytest.fixture(scope="module")
def fragile() -> Iterator[Cluster]:
    """Two nodes that these tests break and mend again."""
    with Cluster(nodes=2, session_timeout_ms=1_000) as cluster:
        yield cluster


def load_of(cluster: Cluster, **options: int) -> Load:
    """A load on a new topic that lies on both nodes."""
    name = f"load-{next(_numbers)}"
    with Admin(cluster.bootstrap_servers) as admin:
        admin.ready(nodes=2)
        topic = admin.create_topic(name, partitions=4)
    assert {partition.leader for partition in topic.partitions} == {1, 2}
    return Load(cluster.bootstrap_servers, name, **options)


def test_nodes_killed_in_turn(fragile: Cluster) -> None:
    with load_of(fragile) as load:
        for node_id in (1, 2, 1):
            load.wait_for_traffic()
            load.wait_for_flight()
            fragile.kill(node_id)
            fragile.start(node_id)
        load.wait_for_traffic()


def test_a_node_that_is_declared_dead_before_it_is_back(fragile: Cluster) -> None:
    with load_of(fragile) as load, Admin(fragile.bootstrap_servers) as admin:
        load.wait_for_traffic()
        fragile.kill(1)
        wait_until(lambda: not admin.describe_cluster().nodes[0].alive, "node 1 is declared dead")
        fragile.start(1)
        load.wait_for_traffic()


def test_the_coordinator_killed_and_started(fragile: Cluster) -> None:
    with load_of(fragile) as load:
        load.wait_for_traffic()
        fragile.kill_coordinator()
        load.wait_for_traffic()
        fragile.start_coordinator()
        load.wait_for_traffic()


def test_a_node_killed_while_the_coordinator_is_away(fragile: Cluster) -> None:
    with load_of(fragile) as load:
        load.wait_for_traffic()
        fragile.kill_coordinator()
        load.wait_for_flight()
        fragile.kill(2)
        fragile.start_coordinator()
        fragile.start(2)
        load.wait_for_traffic()


def test_everything_killed_at_once(fragile: Cluster) -> None:
    with load_of(fragile) as load:
        load.wait_for_traffic()
        load.wait_for_flight()
        fragile.kill_coordinator()
        for node_id in fragile.node_ids:
            fragile.kill(node_id)
        fragile.start_coordinator()
        for node_id in fragile.node_ids:
            fragile.start(node_id)
        load.wait_for_traffic()


def test_a_node_suspended_for_three_seconds() -> None:
    """Everything that waits for it is sent again; then it answers both."""
    with Cluster(nodes=2) as cluster, load_of(cluster, request_timeout_ms=1_000) as load:
        load.wait_for_traffic()
        load.wait_for_flight()
        before = load.retried
        with suspended(cluster.pid(1)):
            time.sleep(3)
        load.wait_for_traffic()
        assert load.retried > before


def test_a_node_suspended_until_it_is_declared_dead(fragile: Cluster) -> None:
    with load_of(fragile) as load, Admin(fragile.bootstrap_servers) as admin:
        load.wait_for_traffic()
        load.wait_for_flight()
        with suspended(fragile.pid(2)):
            wait_until(lambda: not admin.describe_cluster().nodes[1].alive, "node 2 is declared dead")
        load.wait_for_traffic()


def test_the_coordinator_suspended(fragile: Cluster) -> None:
    with load_of(fragile) as load:
        load.wait_for_traffic()
        with suspended(fragile.coordinator_pid):
            load.wait_for_traffic()
        load.wait_for_traffic()


SENDING = """
import select, sys
from tailrace import Producer

sent = 0
with Producer(sys.argv[1], linger_ms=0, batch_size=4_096, buffer_memory=1 << 20) as producer:
    while not select.select([sys.stdin], [], [], 0)[0]:
        producer.send_many(sys.argv[2], [b"%d" % number for number in range(sent, sent + 50)])
        sent += 50
print(sent, flush=True)
"""


def test_a_producer_that_is_suspended_while_its_node_restarts(fragile: Cluster) -> None:
    """When it wakes up, what it had not got out yet must not come beside what it sends again."""
    where, name = fragile.bootstrap_servers, f"load-{next(_numbers)}"
    command = [sys.executable, "-c", SENDING, where, name]
    with Admin(where) as admin:
        place = TopicPartition(name, 0)
        leader = admin.create_topic(name).partitions[0].leader

        def end() -> int:
            found = admin.list_offsets({place: Admin.LATEST})[place]
            return 0 if found is None else found.offset

        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(3):
                before = end()
                wait_until(lambda before=before: end() > before + 1_000, "records are stored")
                with suspended(process.pid):
                    fragile.kill(leader)
                    fragile.start(leader)
            said, _ = process.communicate("enough\n", timeout=PATIENCE_S)
        count = end()
    assert process.returncode == 0
    assert count == int(said)
    with Consumer(bootstrap_servers=where, auto_offset_reset="earliest") as consumer:
        consumer.assign([place])
        numbers = [int(value) for batch in take(consumer, count) for value in batch.values]
    assert numbers == list(range(count))


def take(consumer: Consumer, count: int) -> Iterator[ColumnBatch]:
    """Batches of so many records."""
    left = count
    for batch in consumer.batches(timeout_ms=PATIENCE_S * 1_000):
        yield batch
        left -= len(batch)
        if left <= 0:
            return
