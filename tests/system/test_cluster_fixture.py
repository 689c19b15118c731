"""`tailrace.testing.Cluster`: what users' tests stand on."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace import Admin, TailraceError
from tailrace.protocol.errors import ConnectionFailedError, InvalidArgumentError
from tailrace.testing import Cluster

from ..patience import PATIENCE_S


def gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pids(cluster: Cluster) -> list[int]:
    return [cluster.coordinator_pid, *map(cluster.pid, cluster.node_ids)]


def test_it_runs_and_leaves_nothing_behind() -> None:
    with Cluster(nodes=2) as cluster:
        running = pids(cluster)
        folder = cluster.log_folder.parent
        assert cluster.node_ids == (1, 2)
        assert cluster.data_dir.is_dir()
        with Admin(cluster.bootstrap_servers) as admin:
            described = admin.describe_cluster()
        assert [(node.node_id, node.alive) for node in described.nodes] == [(1, True), (2, True)]
    assert all(map(gone, running))
    assert not folder.exists()
    cluster.stop()


def test_it_leaves_nothing_behind_after_a_failure() -> None:
    running: list[int] = []

    def failing_test() -> None:
        with Cluster() as cluster:
            running.extend(pids(cluster))
            os.kill(running[-1], signal.SIGSTOP)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing_test()
    assert len(running) == 2
    assert all(map(gone, running))


def test_it_leaves_nothing_behind_when_it_is_forgotten() -> None:
    cluster = Cluster()
    running = pids(cluster)
    folder = cluster.log_folder.parent
    del cluster
    gc.collect()
    assert all(map(gone, running))
    assert not folder.exists()


def test_nothing_restarts_a_killed_node_but_start() -> None:
    with Cluster(nodes=2, session_timeout_ms=1_000) as cluster, Admin(cluster.bootstrap_servers) as admin:
        topic = admin.create_topic("t", partitions=2)
        assert {partition.leader for partition in topic.partitions} == {1, 2}
        victim = cluster.pid(1)
        cluster.kill(1)
        assert gone(victim)
        with pytest.raises(InvalidArgumentError, match="does not run"):
            cluster.pid(1)
        wait_until(lambda: [node.alive for node in admin.describe_cluster().nodes] == [False, True])
        cluster.start(1)
        assert cluster.pid(1) != victim
        admin.ready(nodes=2)


def test_the_coordinator_comes_back_on_its_address_with_its_state() -> None:
    with Cluster() as cluster, Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("t")
        where = cluster.bootstrap_servers
        cluster.kill_coordinator()
        with (
            Admin(where, request_timeout_ms=200) as late,
            pytest.raises(ConnectionFailedError, match="refused"),
        ):
            late.list_topics()
        cluster.start_coordinator()
        assert cluster.bootstrap_servers == where
        assert admin.list_topics() == ["t"]


def test_options_reach_the_nodes() -> None:
    with Cluster(quota_bytes=64 << 20) as cluster, Admin(cluster.bootstrap_servers) as admin:
        assert admin.describe_logs()[1].quota_bytes == 64 << 20


def test_a_node_that_cannot_start_says_why() -> None:
    with Cluster() as cluster:
        cluster.kill(1)
        (cluster.data_dir / "node-1" / "data.mdb").write_bytes(b"not ours" * 100_000)
        with pytest.raises(TailraceError, match="node-1 did not start: "):
            cluster.start(1)
        with pytest.raises(InvalidArgumentError, match="node-1 does not run"):
            cluster.kill(1)


def test_misuse_is_an_error() -> None:
    for nodes in (0, "2", 1.5, 10_000):
        with pytest.raises(InvalidArgumentError, match=r"^nodes is .*; it is a whole number from 1 to 1000$"):
            Cluster(nodes=nodes)  # type: ignore[arg-type]
    with pytest.raises(TailraceError, match="quota_bytes"):
        Cluster(quota_bytes=5)
    with Cluster() as cluster:
        with pytest.raises(InvalidArgumentError, match="there is no node 2"):
            cluster.kill(2)
        with pytest.raises(InvalidArgumentError, match="node-1 runs already"):
            cluster.start(1)
    with pytest.raises(InvalidArgumentError, match="was stopped"):
        cluster.start(1)


def test_a_stopped_process_is_ended_too() -> None:
    with Cluster() as cluster:
        running = pids(cluster)
        os.kill(cluster.pid(1), signal.SIGSTOP)
    assert all(map(gone, running))


def test_its_processes_end_with_the_test_process() -> None:
    program = (
        "from tailrace.testing import Cluster\n"
        "import time\n"
        "cluster = Cluster()\n"
        "print(cluster.coordinator_pid, cluster.pid(1), cluster.log_folder.parent, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        coordinator, node, folder = process.stdout.readline().split()
        process.kill()
    wait_until(lambda: gone(int(coordinator)) and gone(int(node)))
    subprocess.run(["rm", "-r", folder], check=True)


def test_a_fork_of_the_test_process_harms_nothing() -> None:
    program = (
        "import os, sys, time\n"
        "from tailrace.testing import Cluster\n"
        "cluster = Cluster()\n"
        "if os.fork() == 0:\n"
        "    sys.exit()\n"
        "os.wait()\n"
        "if os.fork() == 0:\n"
        "    time.sleep(60)\n"
        "os.kill(cluster.pid(1), 0)\n"
        "print(cluster.coordinator_pid, cluster.pid(1), cluster.log_folder.is_dir(), flush=True)\n"
        "print(cluster.log_folder.parent, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        assert process.stdout is not None
        coordinator, node, folder_is_there = process.stdout.readline().split()
        folder = process.stdout.readline().strip()
        assert folder_is_there == "True"
        process.kill()
        wait_until(lambda: gone(int(coordinator)) and gone(int(node)))
        os.killpg(process.pid, signal.SIGKILL)
    subprocess.run(["rm", "-r", folder], check=True)
