"""`tailrace cluster elect|move|drain|remove|rebalance`: who leads and who holds partitions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from tailrace.protocol.record import TopicPartition
from tailrace.protocol.text import plural

from .connect import admin_of
from .options import bootstrap_option, json_option, timeout_option
from .output import print_json, print_table
from .topic_names import complete_topics

if TYPE_CHECKING:
    from tailrace.client.admin import Admin

_PARTITION: Final = re.compile(r"(.+)-([0-9]{1,9})")
_NODES: Final = re.compile(r"[0-9]{1,9}(,[0-9]{1,9})*")


def _parse_partition(_: click.Context, __: click.Parameter, text: str) -> TopicPartition:
    found = _PARTITION.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r}: write TOPIC-PARTITION, such as orders-0")
    return TopicPartition(found[1], int(found[2]))


def _parse_nodes(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    if _NODES.fullmatch(text) is None:
        raise click.BadParameter(f"{text!r}: write the ids of nodes with commas between, such as 1,2,3")
    return tuple(map(int, text.split(",")))


@click.command()
@click.argument("topics", nargs=-1, metavar="[TOPIC...]", shell_complete=complete_topics)
@bootstrap_option
@timeout_option
@json_option
def elect(topics: Sequence[str], bootstrap_servers: str, timeout_s: float, *, as_json: bool) -> None:
    """Let first replicas lead again, of all topics or of these.

    The cluster does so by itself some seconds after a node has come back. Only replicas that are in sync
    are elected, so that nothing is lost.
    """
    with admin_of(bootstrap_servers, timeout_s) as admin:
        result = admin.elect_leaders(topics or None)
    if as_json:
        print_json(asdict(result))
        return
    click.echo(f"{plural(result.moved, 'partition')} led by the first replica now")
    if result.waiting:
        click.echo(f"{plural(result.waiting, 'partition')}: the first replica is not alive or not in sync")


@click.command()
@click.argument("partition", metavar="TOPIC-PARTITION", callback=_parse_partition)
@click.option(
    "--to",
    "node_ids",
    required=True,
    metavar="NODE,NODE,...",
    callback=_parse_nodes,
    help="Who is to hold it; the first is to lead.",
)
@bootstrap_option
@timeout_option
@json_option
def move(
    *,
    partition: TopicPartition,
    node_ids: tuple[int, ...],
    bootstrap_servers: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Give a partition to other nodes. The old ones keep it until the new ones have everything.

    To call that off, move it to the nodes that it has now. `topic describe` shows how far it is.
    """
    with admin_of(bootstrap_servers, timeout_s) as admin:
        moving = admin.move_partitions({partition: node_ids})
    name, nodes = f"{partition.topic}-{partition.partition}", ",".join(map(str, node_ids))
    if as_json:
        fields = {"topic": partition.topic, "partition": partition.partition}
        print_json({**fields, "replicas": list(node_ids), "done": not moving})
    else:
        click.echo(f"{name} {'moves' if moving else 'has moved'} to nodes {nodes}")


@click.command()
@click.argument("node_id", metavar="NODE", type=click.IntRange(0, 2**31 - 1))
@click.option("--cancel", is_flag=True, help="Take it back: what moves already moves on.")
@bootstrap_option
@timeout_option
@json_option
def drain(*, node_id: int, cancel: bool, bootstrap_servers: str, timeout_s: float, as_json: bool) -> None:
    """Move everything off a node, and place nothing new on it.

    Returns at once; call it again to see how far it is.
    """
    with admin_of(bootstrap_servers, timeout_s) as admin:
        progress = admin.drain_node(node_id, cancel=cancel)
    if as_json:
        print_json({**asdict(progress), "draining": not cancel})
        return
    held = plural(progress.held, "partition")
    click.echo(f"node {node_id} is {'not draining any more' if cancel else 'draining'}: it holds {held}")
    if progress.stuck:
        stuck = plural(progress.stuck, "partition")
        click.echo(f"no other node can take {stuck}: start more nodes, then drain again", err=True)
    elif not progress.held and not cancel:
        click.echo(f"stop it, then: tailrace cluster remove {node_id}")


@click.command()
@click.argument("node_id", metavar="NODE", type=click.IntRange(0, 2**31 - 1))
@bootstrap_option
@timeout_option
@json_option
def remove(node_id: int, bootstrap_servers: str, timeout_s: float, *, as_json: bool) -> None:
    """Forget a node that holds nothing and was stopped. One that still runs comes back by itself."""
    with admin_of(bootstrap_servers, timeout_s) as admin:
        admin.remove_node(node_id)
    if as_json:
        print_json({"node_id": node_id, "removed": True})
    else:
        click.echo(f"removed node {node_id}")


@click.command()
@click.option("--execute", is_flag=True, help="Really move; without it only show what would be moved.")
@bootstrap_option
@timeout_option
@json_option
def rebalance(bootstrap_servers: str, timeout_s: float, *, execute: bool, as_json: bool) -> None:
    """Let nodes hold and lead evenly, as after one was added. As little as possible moves."""
    with admin_of(bootstrap_servers, timeout_s) as admin:
        plan = admin.plan_rebalance()
        before = _replicas(admin, plan)
        if execute and plan:
            admin.move_partitions(plan)
    if as_json:
        for place, replicas in plan.items():
            fields = {"topic": place.topic, "partition": place.partition}
            print_json({**fields, "from": before[place], "to": replicas, "executed": execute})
        return
    if not plan:
        click.echo("nodes hold and lead evenly: nothing to move")
        return
    rows = [
        (f"{place.topic}-{place.partition}", _joined(before[place]), _joined(replicas))
        for place, replicas in plan.items()
    ]
    print_table(("PARTITION", "FROM", "TO"), rows)
    if not execute:
        click.echo("nothing is moved yet: add --execute to do it", err=True)


def _replicas(admin: "Admin", plan: Mapping[TopicPartition, object]) -> dict[TopicPartition, Sequence[int]]:
    held: dict[TopicPartition, Sequence[int]] = {}
    for each in admin.describe_topics({place.topic for place in plan}):
        held |= {TopicPartition(each.name, part.partition): part.replicas for part in each.partitions}
    return held


def _joined(node_ids: Sequence[int]) -> str:
    return ",".join(map(str, node_ids))
