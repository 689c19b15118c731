"""Leaders and replicas moved, nodes drained and removed, by the command alone."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tailrace import Admin
from tailrace.cli.main import run
from tailrace.testing import Cluster

from ..patience import PATIENCE_S

Run = Callable[..., Any]


@pytest.fixture
def tailrace(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> Run:
    """As the fixture of all commands, but in this process, which is faster."""

    def call(*args: object, code: int = 0) -> Any:
        assert run([*map(str, args), "-b", cluster.bootstrap_servers]) == code
        return capsys.readouterr()

    return call


def objects(captured: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.out.splitlines()]


def replicas(tailrace: Run, topic: str) -> list[list[int]]:
    """Of each partition, once nothing moves any more."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        (described,) = objects(tailrace("topic", "describe", topic, "--json"))
        if not any(part["target"] for part in described["partitions"]):
            return [part["replicas"] for part in described["partitions"]]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_partition_moves(cluster: Cluster, tailrace: Run) -> None:
    tailrace("topic", "create", "a-b", "-p", 1)
    (described,) = objects(tailrace("topic", "describe", "a-b", "--json"))
    [part] = described["partitions"]
    [here] = part["replicas"]
    there = 3 - here
    assert (part["isr"], part["elr"], part["target"]) == ([here], [], [])
    assert tailrace("cluster", "move", "a-b-0", "--to", there).out == f"a-b-0 moves to node {there}\n"
    assert replicas(tailrace, "a-b") == [[there]]
    (moved,) = objects(tailrace("cluster", "move", "a-b-0", "--to", there, "--json"))
    assert moved == {"topic": "a-b", "partition": 0, "replicas": [there], "done": True}
    tailrace("topic", "delete", "a-b", "--execute")


def test_what_cannot_be_moved(cluster: Cluster, tailrace: Run) -> None:
    assert "write TOPIC-PARTITION" in tailrace("cluster", "move", "orders", "--to", 1, code=2).err
    assert "with commas" in tailrace("cluster", "move", "orders-0", "--to", "1;2", code=2).err
    assert "does not exist" in tailrace("cluster", "move", "orders-0", "--to", 1, code=1).err


def test_options_of_moves(cluster: Cluster, tailrace: Run) -> None:
    assert tailrace("cluster", "moves").out == "nothing moves\n"
    assert tailrace("cluster", "moves", "--json").out == ""
    shown = tailrace("cluster", "throttle", "1MiB", "--json")
    assert objects(shown) == [{"moves": 0, "throttle_bytes_per_s": 1_048_576}]
    assert "is no size" in tailrace("cluster", "throttle", "fast", code=2).err
    assert "either --to or --cancel" in tailrace("cluster", "move", "orders-0", code=2).err
    tailrace("topic", "create", "still", "-p", 2)
    assert "still-0 does not move" in tailrace("cluster", "move", "still-0", "--cancel", code=1).err
    tailrace("cluster", "rebalance", "--execute", "--wait")
    for node_id in (1, 2):  # whoever is drained second has nowhere to go
        shown = tailrace("cluster", "drain", node_id, "--wait", code=node_id - 1)
    assert "no other node can take 2 partitions" in shown.err
    for node_id in (1, 2):
        tailrace("cluster", "drain", node_id, "--cancel")
    tailrace("topic", "delete", "still", "--execute")


def test_first_replicas_are_elected(cluster: Cluster, tailrace: Run) -> None:
    assert tailrace("cluster", "elect").out == "0 partitions led by the first replica now\n"
    assert objects(tailrace("cluster", "elect", "--json")) == [{"moved": 0, "waiting": 0}]
    assert "'none' does not exist" in tailrace("cluster", "elect", "none", code=1).err


def test_an_even_plan_is_shown_and_carried_out(cluster: Cluster, tailrace: Run) -> None:
    even = "nodes hold and lead evenly: nothing to move\n"
    assert tailrace("cluster", "rebalance").out == even
    with Admin(cluster.bootstrap_servers) as admin:
        admin.drain_node(2)
        admin.create_topic("u", 4)
        admin.drain_node(2, cancel=True)
    shown = tailrace("cluster", "rebalance")
    assert [line.split() for line in shown.out.splitlines()] == [
        ["PARTITION", "FROM", "TO"], ["u-0", "1", "2"], ["u-1", "1", "2"],
    ]  # fmt: skip
    assert shown.err == "nothing is moved yet: add --execute to do it\n"
    assert len(objects(tailrace("cluster", "rebalance", "--json"))) == 2
    first, _ = objects(tailrace("cluster", "rebalance", "--json", "--execute"))
    assert first == {"topic": "u", "partition": 0, "from": [1], "to": [2], "executed": True}
    assert replicas(tailrace, "u") == [[2], [2], [1], [1]]
    tailrace("topic", "delete", "u", "--execute")


def test_a_node_is_drained_stopped_and_removed(cluster: Cluster, tailrace: Run) -> None:
    refused = tailrace("cluster", "remove", 2, code=1)
    assert "node 2 is alive: drain it or stop it first" in refused.err
    assert tailrace("cluster", "drain", 2).out == (
        "node 2 is draining: it holds 0 partitions\nstop it, then: tailrace cluster remove 2\n"
    )
    assert "draining" in tailrace("cluster", "status").out
    (cancelled,) = objects(tailrace("cluster", "drain", 2, "--cancel", "--json"))
    assert cancelled == {"node_id": 2, "held": 0, "stuck": 0, "draining": False}
    tailrace("topic", "create", "t", "-p", 2)
    assert "holds 1 partition: drain it first" in tailrace("cluster", "remove", 2, code=1).err
    plan = objects(tailrace("cluster", "drain", 2, "--json"))
    assert plan == [{"node_id": 2, "held": 1, "stuck": 0, "draining": True}]
    assert replicas(tailrace, "t") == [[1], [1]]
    tailrace("topic", "delete", "t", "--execute")
    cluster.kill(2)
    (removed,) = objects(tailrace("cluster", "remove", 2, "--json"))
    assert removed.items() >= {"node_id": 2, "removed": True}.items()
    cluster.start(2)
    with Admin(cluster.bootstrap_servers) as admin:
        admin.ready(nodes=2)
        assert not any(node.draining for node in admin.describe_cluster().nodes)


def test_a_node_that_still_runs_comes_back(cluster: Cluster, tailrace: Run) -> None:
    tailrace("cluster", "drain", 2)
    warning = "it was not known to have stopped: if it runs, it comes back by itself\n"
    assert tailrace("cluster", "remove", 2) == ("removed node 2\n", warning)
    with Admin(cluster.bootstrap_servers) as admin:
        admin.ready(nodes=2)
        assert not any(node.draining for node in admin.describe_cluster().nodes)
