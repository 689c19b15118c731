"""What `tailrace cluster status` says of a cluster that changes; a real one is in `test_commands.py`."""

from dataclasses import replace

import pytest

from tailrace.cli.cluster import _fields, _print_text
from tailrace.client.descriptions import (
    ClusterDescription,
    LogDescription,
    NodeDescription,
    NodeLogs,
    PartitionDescription,
    TopicDescription,
)
from tailrace.protocol.errors import TailraceError, TimedOutError

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


def test_a_node_without_space_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    logs = {n: replace(each, full=True) for n, each in LOGS.items()}
    _print_text(CLUSTER, TOPICS, {**logs})
    lines = capsys.readouterr().out.splitlines()
    states = [line.split("h:")[0].split(maxsplit=1)[1].strip() for line in lines if "h:" in line]
    assert states == ["draining, refuses writes", "alive, refuses writes", "dead, draining"]


def test_racks_are_shown_where_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    _print_text(CLUSTER, TOPICS, {**LOGS})
    assert "RACK" not in capsys.readouterr().out
    nodes = (replace(NODES[0], rack="a"), *NODES[1:])
    _print_text(replace(CLUSTER, nodes=nodes), TOPICS, {**LOGS})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["NODE", "STATE", "RACK", "ADDRESS", "LEADS", "LOGS", "USED", "QUOTA"] in rows
    assert [row[:3] for row in rows if "h:1" in row or "h:2" in row] == [
        ["1", "draining", "a"], ["2", "alive", "-"],
    ]  # fmt: skip


def test_unclean_elections_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    _print_text(replace(CLUSTER, unclean_elections=2), TOPICS, {**LOGS})
    assert "\n2 replicas were elected that may lack records" in capsys.readouterr().out
    _print_text(CLUSTER, TOPICS, {**LOGS})
    assert "may lack records" not in capsys.readouterr().out


def log(start: int, high_watermark: int, size: int, topic: str | None = "t") -> LogDescription:
    return LogDescription(
        topic=topic,
        partition=1,
        log_start_offset=start,
        log_end_offset=high_watermark,
        high_watermark=high_watermark,
        size_bytes=size,
    )


@pytest.mark.parametrize(("leader", "records"), [(1, 70), (2, 55), (3, 70)])
def test_records_are_counted_once_and_bytes_with_each_replica(leader: int, records: int) -> None:
    """As the leader has them; where it does not answer, as the replica that is furthest."""
    held = {1: (log(30, 100, 7), log(0, 9, 1, None)), 2: (log(40, 95, 6),)}
    logs: dict[int, NodeLogs | TailraceError] = {
        n: NodeLogs(node_id=n, used_bytes=0, quota_bytes=1, logs=each) for n, each in held.items()
    }
    logs[3] = TimedOutError("no answer")
    partitions = (STILL, replace(MOVES, leader=leader))
    topics = [TopicDescription(name="t", topic_id="", config={}, partitions=partitions)]
    assert _fields(CLUSTER, topics, logs)["topics"] == [
        {
            "name": "t", "partitions": 2, "offline_partitions": 0, "under_replicated_partitions": 1,
            "records": records, "size_bytes": 13,
        }
    ]  # fmt: skip


def test_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    fields = _fields(CLUSTER, TOPICS, {**LOGS})
    assert fields["moves"] == [
        {"topic": "t", "partition": 1, "target": (1, 2), "adding": (2,), "removing": (3,)}
    ]
    _print_text(CLUSTER, [TopicDescription(name="t", topic_id="", config={}, partitions=(STILL,))], {**LOGS})
    assert "MOVES" not in capsys.readouterr().out
