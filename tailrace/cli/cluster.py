"""`tailrace cluster`: look at the cluster, wait for it, and move what its nodes hold (`moving.py`)."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from tailrace.protocol.errors import LeaderNotAvailableError, NotEnoughNodesError, TailraceError
from tailrace.protocol.limits import NODES_MAX
from tailrace.protocol.text import plural

from .connect import admin_of
from .moving import drain, elect, move, moves, rebalance, remove, throttle
from .options import bootstrap_option, json_option, timeout_option
from .output import print_json, print_table
from .units import human_bytes

if TYPE_CHECKING:
    from tailrace.client.admin import Admin
    from tailrace.client.descriptions import ClusterDescription, NodeLogs, TopicDescription

NODE_ANSWERS_WITHIN_S: Final = 3.0
"""A node that hangs must not keep the others from being shown."""


@click.group()
def cluster() -> None:
    """Look at the cluster, wait for it, move partitions and leaders, take nodes out."""


for _command in (elect, move, moves, throttle, drain, remove, rebalance):
    cluster.add_command(_command)


@cluster.command()
@click.option(
    "--nodes",
    type=click.IntRange(1, NODES_MAX),
    default=1,
    show_default=True,
    help="How many nodes must be alive.",
)
@bootstrap_option
@timeout_option
@json_option
def ready(nodes: int, bootstrap_servers: str, timeout_s: float, *, as_json: bool) -> None:
    """Wait until enough nodes are alive and every partition has a leader."""
    started = time.monotonic()
    with admin_of(bootstrap_servers, timeout_s) as admin:
        try:
            admin.ready(nodes=nodes)
        except (NotEnoughNodesError, LeaderNotAvailableError) as error:
            raise type(error)(f"not ready within {timeout_s:g} s: {error}") from None
        described = admin.describe_cluster()
    alive = sum(node.alive for node in described.nodes)
    if as_json:
        seconds = round(time.monotonic() - started, 3)
        print_json({"nodes": alive, "topics": len(described.topics), "seconds": seconds})
    else:
        click.echo(f"ready: {plural(alive, 'node')} alive, every partition has a leader")


@cluster.command()
@bootstrap_option
@timeout_option
@json_option
def status(bootstrap_servers: str, timeout_s: float, *, as_json: bool) -> None:
    """Show the nodes, whether they are alive or draining, what they hold, the topics, and what moves."""
    with admin_of(bootstrap_servers, timeout_s) as admin:
        described = admin.describe_cluster()
        topics = admin.describe_topics()
        logs = _logs(admin, described, time.monotonic() + timeout_s)
    if as_json:
        print_json(_fields(described, topics, logs))
    else:
        _print_text(described, topics, logs)


def _logs(
    admin: "Admin", described: "ClusterDescription", deadline: float
) -> dict[int, "NodeLogs | TailraceError"]:
    """What each live node answers, or why it does not."""
    logs: dict[int, NodeLogs | TailraceError] = {}
    for node in described.nodes:
        if not node.alive:
            continue
        left_s = min(NODE_ANSWERS_WITHIN_S, max(0.0, deadline - time.monotonic()))
        try:
            logs |= admin.describe_logs([node.node_id], timeout_ms=round(left_s * 1000))
        except TailraceError as error:
            logs[node.node_id] = error
    return logs


def _leaders(topics: list["TopicDescription"], node_id: int) -> int:
    return sum(part.leader == node_id for each in topics for part in each.partitions)


def _leaderless(topic: "TopicDescription") -> int:
    return sum(part.leader is None for part in topic.partitions)


def _under_replicated(topic: "TopicDescription") -> int:
    """How many partitions have fewer replicas in sync than they are to have."""
    return sum(len(part.isr) < len(part.target or part.replicas) for part in topic.partitions)


def _sizes(
    topics: Iterable["TopicDescription"], logs: dict[int, "NodeLogs | TailraceError"]
) -> dict[str, tuple[int, int]]:
    """Records of each topic, as the leaders have them, and bytes, those of all replicas together.

    A partition whose leader does not answer counts as the replica that is furthest does.
    """
    leaders = {(each.name, part.partition): part.leader for each in topics for part in each.partitions}
    best: dict[tuple[str, int], tuple[bool, int, int]] = {}
    size: Counter[str] = Counter()
    for node_id, held in logs.items():
        for log in () if isinstance(held, TailraceError) else held.logs:
            if log.topic is None:
                continue
            place, records = (log.topic, log.partition), log.high_watermark - log.log_start_offset
            found = (leaders.get(place) == node_id, log.high_watermark, records)
            best[place] = max(found, best.get(place, found))
            size[log.topic] += log.size_bytes
    records_of: Counter[str] = Counter()
    for (topic, _), (_, _, records) in best.items():
        records_of[topic] += records
    return {topic: (records_of[topic], size[topic]) for topic in records_of}


def _print_text(
    described: "ClusterDescription",
    topics: list["TopicDescription"],
    logs: dict[int, "NodeLogs | TailraceError"],
) -> None:
    versions = f"controller epoch {described.controller_epoch}, version {described.version}"
    click.echo(f"cluster {described.cluster_id}  ({versions})\n")
    if unclean := described.unclean_elections:
        what = "replicas were" if unclean > 1 else "replica was"
        click.echo(
            f"{unclean} {what} elected that may lack records, since the coordinator started; see its log\n"
        )
    racks = any(node.rack for node in described.nodes)
    rows: list[tuple[object, ...]] = []
    for node in described.nodes:
        held = logs.get(node.node_id)
        if held is None:
            state, space = "dead, draining" if node.draining else "dead", ("-", "-", "-")
        elif isinstance(held, TailraceError):
            state, space = "no answer", ("-", "-", "-")
        else:
            used = (human_bytes(held.used_bytes), human_bytes(held.quota_bytes))
            state, space = "draining" if node.draining else "alive", (str(len(held.logs)), *used)
            state += ", refuses writes" if held.full else ""
        leads = _leaders(topics, node.node_id)
        rack = (node.rack or "-",) if racks else ()
        rows.append((node.node_id, state, *rack, node.tcp.removeprefix("tcp://"), leads, *space))
    rack_header = ("RACK",) if racks else ()
    print_table(("NODE", "STATE", *rack_header, "ADDRESS", "LEADS", "LOGS", "USED", "QUOTA"), rows)
    click.echo()
    _print_topics(topics, _sizes(topics, logs))


def _print_topics(topics: list["TopicDescription"], sizes: Mapping[str, tuple[int, int]]) -> None:
    topic_rows: list[tuple[object, ...]] = []
    for each in topics:
        records, size = sizes.get(each.name, (0, 0))
        health = (_leaderless(each), _under_replicated(each))
        topic_rows.append((each.name, len(each.partitions), *health, records, human_bytes(size)))
    print_table(("TOPIC", "PARTITIONS", "OFFLINE", "UNDER-REPLICATED", "RECORDS", "SIZE"), topic_rows)
    if moves := _moves(topics):
        click.echo()
        columns = ("target", "adding", "removing")
        move_rows = [(_name(move), *(_ids(move[column]) for column in columns)) for move in moves]
        print_table(("MOVES", "TO", "ADDING", "REMOVING"), move_rows)
        click.echo("how far they are: tailrace cluster moves")


def _moves(topics: list["TopicDescription"]) -> list[dict[str, Any]]:
    """The partitions that move: `adding` are not in sync yet, `removing` go once those are."""
    return [
        {
            "topic": each.name,
            "partition": part.partition,
            "target": part.target,
            "adding": tuple(n for n in part.target if n not in part.isr),
            "removing": tuple(n for n in part.replicas if n not in part.target),
        }
        for each in topics
        for part in each.partitions
        if part.target
    ]


def _name(move: dict[str, Any]) -> str:
    return f"{move['topic']}-{move['partition']}"


def _ids(node_ids: Iterable[int]) -> str:
    return ",".join(map(str, node_ids)) or "-"


def _fields(
    described: "ClusterDescription",
    topics: list["TopicDescription"],
    logs: dict[int, "NodeLogs | TailraceError"],
) -> dict[str, object]:
    nodes = []
    for node in described.nodes:
        held = logs.get(node.node_id)
        fields: dict[str, object] = {**asdict(node), "leads": _leaders(topics, node.node_id), "error": None}
        if isinstance(held, TailraceError):
            fields["error"] = str(held)
        elif held is not None:
            fields |= asdict(held)
        nodes.append(fields)
    sizes = _sizes(topics, logs)
    return {
        "cluster_id": described.cluster_id,
        "controller_epoch": described.controller_epoch,
        "version": described.version,
        "unclean_elections": described.unclean_elections,
        "nodes": nodes,
        "topics": [
            {
                "name": each.name,
                "partitions": len(each.partitions),
                "offline_partitions": _leaderless(each),
                "under_replicated_partitions": _under_replicated(each),
                "records": sizes.get(each.name, (0, 0))[0],
                "size_bytes": sizes.get(each.name, (0, 0))[1],
            }
            for each in topics
        ],
        "moves": _moves(topics),
    }
