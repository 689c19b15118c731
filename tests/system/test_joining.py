"""A node that no file names joins a running cluster, takes partitions over under load, and leaves again."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tailrace import Admin, Producer
from tailrace.cli.main import run
from tailrace.processes.launch import Child, Role, wait_until_ready
from tailrace.processes.parent_pipe import ParentPipe
from tailrace.testing import Cluster

from ..patience import PATIENCE_S, wait_until
from .load import Load

Join = Callable[..., Child]


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with Cluster(nodes=3, session_timeout_ms=1_000) as cluster:
        yield cluster


@pytest.fixture
def join(three: Cluster, tmp_path: Path) -> Iterator[Join]:
    """Starts `tailrace node --id ...` with a file of the cluster, and data of its own."""
    parent = ParentPipe()
    children: list[Child] = []

    def start(node_id: int, listen: str = "127.0.0.1:0", *options: str) -> Child:
        text = (three.data_dir.parent / "cluster.yaml").read_text()
        file = tmp_path / "cluster.yaml"
        file.write_text(text.replace("127.0.0.1:0", listen))
        command = [sys.executable, "-P", "-m", "tailrace", "node", "--id", str(node_id), "--json"]
        command += ["--config", str(file), "--data-dir", str(tmp_path), *options]
        children.append(Child(Role(node_id), command, parent, subprocess.PIPE))
        return children[-1]

    yield start
    for child in children:
        child.close()
    parent.close()


@pytest.fixture
def tailrace(three: Cluster, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def call(*args: object) -> Any:
        assert run([*map(str, args), "-b", three.bootstrap_servers]) == 0
        return capsys.readouterr()

    return call


def test_a_fourth_node_joins_and_leaves(three: Cluster, join: Join, tailrace: Callable[..., Any]) -> None:
    with Admin(three.bootstrap_servers) as admin:
        admin.create_topic("t", 8, 2)
        with Load(three.bootstrap_servers, "t") as load:
            load.wait_for_traffic()
            fourth = join(4, "127.0.0.1:0", "-b", three.bootstrap_servers)
            assert wait_until_ready([fourth], PATIENCE_S) is None, fourth.failure
            admin.ready(nodes=4)
            done = tailrace("cluster", "rebalance", "--execute", "--wait", "--throttle", "50MiB")
            assert "partitions moved" in done.err
            assert tailrace("cluster", "moves").out == "nothing moves\n"
            held = [part for part in admin.describe_topic("t").partitions if 4 in part.isr]
            assert len(held) >= 3
            load.wait_for_traffic()
            drained = tailrace("cluster", "drain", 4, "--wait", "--json")
            assert json.loads(drained.out.splitlines()[-1])["held"] == 0
            fourth.stop()
            assert fourth.wait(PATIENCE_S) == 0
            tailrace("cluster", "remove", 4)
            load.wait_for_traffic()
        assert [node.node_id for node in admin.describe_cluster().nodes] == [1, 2, 3]
        assert all(len(part.isr) == 2 for part in admin.describe_topic("t").partitions)


def test_an_id_that_is_taken_is_refused(three: Cluster, join: Join) -> None:
    """It says so at once, and tries again for a while: the other one may be on its way out.

    The coordinator is found by the file alone.
    """
    second = join(1, three.bootstrap_servers)
    with os.fdopen(os.dup(second.stderr), "rb") as log:
        refused = next(line for line in log if b"node 1 is alive at" in line)
    assert b"give this node another id" in refused


def test_a_move_is_watched_throttled_and_called_off(three: Cluster, tailrace: Callable[..., Any]) -> None:
    """The copy is so slow that it is there to be looked at."""
    with Admin(three.bootstrap_servers) as admin:
        admin.create_topic("slow", 1, 1)
        (before,) = admin.describe_topic("slow").partitions
        there = next(n for n in (1, 2, 3) if n != before.leader)
        with Producer(three.bootstrap_servers) as producer:
            producer.send_many("slow", [bytes([n % 251]) * 60_000 for n in range(150)])
        tailrace("cluster", "move", "slow-0", "--to", there, "--throttle", "1KiB")
        (moving,) = admin.list_moves()
        assert (moving.former, moving.target, moving.waiting) == (before.replicas, (there,), (there,))
        assert moving.throttle_bytes_per_s == 1024
        assert moving.left_bytes > 0
        shown = tailrace("cluster", "moves").out.splitlines()
        assert shown[1].split()[:4] == ["slow-0", str(before.leader), str(there), str(there)]
        assert "1.0 KiB/s" in shown[1]
        stays = f"slow-0 stays on node {before.leader}\n"
        assert tailrace("cluster", "move", "slow-0", "--cancel").out == stays
        assert admin.describe_topic("slow").partitions[0].replicas == before.replicas
        assert admin.list_moves() == []
        tailrace("cluster", "move", "slow-0", "--to", there, "--throttle", "1KiB")
        assert tailrace("cluster", "throttle", "none").out == "1 partition on the move: no bound\n"
        wait_until(lambda: not admin.list_moves(), "the partition has moved")
        assert admin.describe_topic("slow").partitions[0].replicas == (there,)
