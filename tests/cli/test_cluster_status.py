"""What `tailrace cluster status` says of a cluster that changes; a real one is in `test_commands.py`."""

import pytest

from tailrace.cli.cluster import _fields, _print_text
from tailrace.client.descriptions import (
    ClusterDescription,
    NodeDescription,
    NodeLogs,
    PartitionDescription,
    TopicDescription,
)

NODES = tuple(
    NodeDescription(
        node_id=n, node_epoch=n, alive=n != 3, tcp=f"tcp://h:{n}", ipc="", rack="", draining=n != 2
    )
    for n in (1, 2, 3)
)
CLUSTER = ClusterDescription(cluster_id="c", controller_epoch=1, version=7, nodes=NODES, topics=("t",))
STILL = PartitionDescription(partition=0, leader=2, leader_epoch=1, replicas=(2,), isr=(2,))
MOVES = PartitionDescription(
    partition=1, leader=1, leader_epoch=1, replicas=(1, 3, 2), isr=(1,), target=(1, 2)
)
TOPICS = [TopicDescription(name="t", topic_id="", config={}, partitions=(STILL, MOVES))]
LOGS = {n: NodeLogs(node_id=n, used_bytes=0, quota_bytes=1, logs=()) for n in (1, 2)}


def test_draining_nodes_and_moves_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _print_text(CLUSTER, TOPICS, {**LOGS})
    lines = capsys.readouterr().out.splitlines()
    states = [line.split("h:")[0].split(maxsplit=1)[1].strip() for line in lines if "h:" in line]
    assert states == ["draining", "alive", "dead, draining"]
    assert [line.split() for line in lines[-3:-1]] == [
        ["MOVES", "TO", "ADDING", "REMOVING"], ["t-1", "1,2", "2", "3"],
    ]  # fmt: skip


def test_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    fields = _fields(CLUSTER, TOPICS, {**LOGS})
    assert fields["moves"] == [
        {"topic": "t", "partition": 1, "target": (1, 2), "adding": (2,), "removing": (3,)}
    ]
    _print_text(CLUSTER, [TopicDescription(name="t", topic_id="", config={}, partitions=(STILL,))], {**LOGS})
    assert "MOVES" not in capsys.readouterr().out
