"""`tailrace cluster elect|move|moves|throttle|drain|remove|rebalance`: who leads and who holds partitions."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from tailrace.protocol.record import TopicPartition
from tailrace.protocol.text import nodes_named, plural

from . import exit_codes
from .connect import admin_of
from .move_progress import wait_for_moves
from .options import (
    bootstrap_option,
    json_option,
    throttle_argument,
    throttle_option,
    timeout_option,
    wait_option,
)
from .output import print_json, print_table, say
from .topic_names import complete_topics
from .units import human_bytes

if TYPE_CHECKING:
    from tailrace.client.admin import Admin

_PARTITION: Final = re.compile(r"(.+)-([0-9]{1,9})")
_NODES: Final = re.compile(r"[0-9]{1,9}(,[0-9]{1,9})*")


def _parse_partition(_: click.Context, __: click.Parameter, text: str) -> TopicPartition:
    found = _PARTITION.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r}: write TOPIC-PARTITION, such as orders-0")
    return TopicPartition(found[1], int(found[2]))


def _parse_nodes(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
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
    metavar="NODE,NODE,...",
    callback=_parse_nodes,
    help="Who is to hold it; the first is to lead.",
)
@click.option("--cancel", is_flag=True, help="Call its move off: the nodes that had it keep it.")
@throttle_option
@wait_option
@bootstrap_option
@timeout_option
@json_option
def move(
    *,
    partition: TopicPartition,
    node_ids: tuple[int, ...] | None,
    cancel: bool,
    throttle: int,
    wait: bool,
    bootstrap_servers: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Give a partition to other nodes. The old ones keep it until the new ones have everything.

    Returns at once, unless it is told to --wait: the cluster moves on by itself, also after a restart.
    The same again with another --throttle changes that.
    """
    if cancel == (node_ids is not None):
        raise click.UsageError("give either --to or --cancel")
    name = f"{partition.topic}-{partition.partition}"
    with admin_of(bootstrap_servers, timeout_s) as admin:
        if node_ids is None:
            admin.cancel_moves([partition])
            replicas: Sequence[int] = _replicas(admin, [partition])[partition]
            moving, told = 0, f"{name} stays on {nodes_named(replicas)}"
        else:
            replicas = node_ids
            moving = admin.move_partitions({partition: node_ids}, throttle_bytes_per_s=throttle)
            told = f"{name} {'moves' if moving else 'has moved'} to {nodes_named(replicas)}"
        if as_json:
            fields = {"topic": partition.topic, "partition": partition.partition}
            print_json({**fields, "replicas": list(replicas), "done": not moving})
        else:
            click.echo(told)
        if wait:
            wait_for_moves(admin, [partition], as_json=as_json)


@click.command()
@bootstrap_option
@timeout_option
@json_option
def moves(bootstrap_servers: str, timeout_s: float, *, as_json: bool) -> None:
    """Show which partitions move, and how far they are."""
    with admin_of(bootstrap_servers, timeout_s) as admin:
        found = admin.list_moves()
    if as_json:
        for each in found:
            print_json(asdict(each))
        return
    if not found:
        click.echo("nothing moves")
        return
    rows = [
        (
            f"{each.topic}-{each.partition}",
            _joined(each.former),
            _joined(each.target),
            _joined(each.waiting) or "-",
            human_bytes(each.copied_bytes),
            human_bytes(each.left_bytes),
            f"{human_bytes(each.throttle_bytes_per_s)}/s" if each.throttle_bytes_per_s else "-",
        )
        for each in found
    ]
    print_table(("PARTITION", "FROM", "TO", "WAITS FOR", "COPIED", "LEFT", "THROTTLE"), rows)


@click.command()
@throttle_argument
@bootstrap_option
@timeout_option
@json_option
def throttle(throttle: int, bootstrap_servers: str, timeout_s: float, *, as_json: bool) -> None:
    """Change how much each node copies in a second for the moves that are under way."""
    with admin_of(bootstrap_servers, timeout_s) as admin:
        count = admin.throttle_moves(throttle)
    if as_json:
        print_json({"moves": count, "throttle_bytes_per_s": throttle})
    else:
        bound = f"at most {human_bytes(throttle)}/s on each node" if throttle else "no bound"
        click.echo(f"{plural(count, 'partition')} on the move: {bound}")


@click.command()
@click.argument("node_id", metavar="NODE", type=click.IntRange(0, 2**31 - 1))
@click.option("--cancel", is_flag=True, help="Take it back: what moves already moves on.")
@throttle_option
@wait_option
@bootstrap_option
@timeout_option
@json_option
def drain(
    *,
    node_id: int,
    cancel: bool,
    throttle: int,
    wait: bool,
    bootstrap_servers: str,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Move everything off a node, and place nothing new on it.

    Returns at once, unless it is told to --wait; call it again to see how far it is. After waiting the exit
    code is 1 if it still holds anything.
    """
    with admin_of(bootstrap_servers, timeout_s) as admin:
        progress = admin.drain_node(node_id, cancel=cancel, throttle_bytes_per_s=throttle)
        if wait and not cancel:
            wait_for_moves(admin, leaving(admin, node_id), as_json=as_json)
            progress = admin.drain_node(node_id, throttle_bytes_per_s=throttle)
    code = exit_codes.ERROR if wait and not cancel and progress.held else exit_codes.OK
    if as_json:
        print_json({**asdict(progress), "draining": not cancel})
        return code
    held = plural(progress.held, "partition")
    click.echo(f"node {node_id} is {'not draining any more' if cancel else 'draining'}: it holds {held}")
    if progress.stuck:
        stuck = plural(progress.stuck, "partition")
        say(f"no other node can take {stuck}: start more nodes, then drain again")
    elif not progress.held and not cancel:
        click.echo(f"stop it, then: tailrace cluster remove {node_id}")
    return code


def leaving(admin: "Admin", node_id: int) -> list[TopicPartition]:
    """The partitions that move off a node."""
    moves_now = admin.list_moves()
    return [
        TopicPartition(each.topic, each.partition)
        for each in moves_now
        if node_id in each.replicas and node_id not in each.target
    ]


@click.command()
@click.argument("node_id", metavar="NODE", type=click.IntRange(0, 2**31 - 1))
@bootstrap_option
@timeout_option
@json_option
def remove(node_id: int, bootstrap_servers: str, timeout_s: float, *, as_json: bool) -> None:
    """Forget a node that holds nothing and was stopped. One that still runs comes back by itself."""
    with admin_of(bootstrap_servers, timeout_s) as admin:
        stopped = not any(n.alive for n in admin.describe_cluster().nodes if n.node_id == node_id)
        admin.remove_node(node_id)
    if as_json:
        print_json({"node_id": node_id, "removed": True, "stopped": stopped})
        return
    click.echo(f"removed node {node_id}")
    if not stopped:
        say("it was not known to have stopped: if it runs, it comes back by itself")


@click.command()
@click.option("--execute", is_flag=True, help="Really move; without it only show what would be moved.")
@throttle_option
@wait_option
@bootstrap_option
@timeout_option
@json_option
def rebalance(
    *, execute: bool, throttle: int, wait: bool, bootstrap_servers: str, timeout_s: float, as_json: bool
) -> None:
    """Let nodes hold and lead evenly, as after one was added. As little as possible moves.

    Returns at once, unless it is told to --wait: the cluster moves on by itself, also after a restart.
    """
    with admin_of(bootstrap_servers, timeout_s) as admin:
        plan = admin.plan_rebalance()
        before = _replicas(admin, plan)
        if execute and plan:
            admin.move_partitions(plan, throttle_bytes_per_s=throttle)
        _print_plan(plan, before, execute=execute, as_json=as_json)
        if execute and wait:
            under_way = (TopicPartition(each.topic, each.partition) for each in admin.list_moves())
            wait_for_moves(admin, {*plan, *under_way}, as_json=as_json)


def _print_plan(
    plan: Mapping[TopicPartition, Sequence[int]],
    before: Mapping[TopicPartition, Sequence[int]],
    *,
    execute: bool,
    as_json: bool,
) -> None:
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
        say("nothing is moved yet: add --execute to do it")


def _replicas(admin: "Admin", plan: Iterable[TopicPartition]) -> dict[TopicPartition, Sequence[int]]:
    plan = list(plan)
    held: dict[TopicPartition, Sequence[int]] = {}
    for each in admin.describe_topics({place.topic for place in plan}):
        held |= {TopicPartition(each.name, part.partition): part.replicas for part in each.partitions}
    return {place: held[place] for place in plan}


def _joined(node_ids: Sequence[int]) -> str:
    return ",".join(map(str, node_ids))
