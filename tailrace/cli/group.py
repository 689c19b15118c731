"""`tailrace group`: list, describe and delete consumer groups, and reset their offsets."""

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from tailrace.protocol.errors import UnknownGroupError
from tailrace.protocol.text import plural

from .connect import admin_of
from .offsets import parse_time
from .options import Parsed, bootstrap_option, json_option, timeout_option
from .output import print_json, print_table, say
from .topic_names import chosen_groups, complete_groups, regex_option
from .units import parse_duration_ms

if TYPE_CHECKING:
    from tailrace import TopicPartition
    from tailrace.client.admin import Admin
    from tailrace.client.descriptions import GroupDescription, GroupOffset, MemberDescription

_TOPIC: Final = re.compile(r"([A-Za-z0-9._-]+)(?::([0-9]+(?:,[0-9]+)*))?")
_NONE: Final = "-"


def _parse_time(text: str) -> int:
    return parse_time(text, time.time_ns() // 1_000_000)


@click.group()
def group() -> None:
    """List, describe and delete consumer groups, and reset their offsets."""


@group.command("list")
@click.argument("names", nargs=-1, metavar="[GROUP...]", shell_complete=complete_groups)
@regex_option
@bootstrap_option
@json_option
@timeout_option
def list_(
    names: Sequence[str], bootstrap_servers: str, timeout_s: float, *, regex: bool, as_json: bool
) -> None:
    """All groups, or those that are named: how many members, and whether partitions are on their way."""
    with admin_of(bootstrap_servers, timeout_s) as admin:  # no loop with a condition: test_interruptible.py
        groups = admin.list_groups()
        if names:
            chosen = set(chosen_groups(admin, names, regex=regex))
            groups = list(filter(lambda each: each.group_id in chosen, groups))
            for missing in chosen - {each.group_id for each in groups}:
                admin.describe_group(missing)  # raises, with similar names
    if as_json:
        for listed in groups:
            print_json(asdict(listed))
        return
    rows = [(each.group_id, each.state, each.members, each.group_epoch) for each in groups]
    print_table(("GROUP", "STATE", "MEMBERS", "EPOCH"), rows)


@group.command()
@click.argument("group_id", shell_complete=complete_groups)
@bootstrap_option
@json_option
@timeout_option
def describe(group_id: str, bootstrap_servers: str, timeout_s: float, *, as_json: bool) -> None:
    """A group's partitions: committed offsets, lag, and who reads them."""
    with admin_of(bootstrap_servers, timeout_s) as admin:
        described = admin.describe_group(group_id)
    if as_json:
        print_json(_as_json(described))
        return
    members = plural(len(described.members), "member")
    assignor = f", assignor {described.assignor}" if described.assignor else ""
    click.echo(f"{group_id}: {described.state}, {members}, epoch {described.group_epoch}{assignor}")
    idle = [member for member in described.members if not member.partitions]
    if not described.offsets and not idle:
        return
    rows = [_row(group_id, offset) for offset in described.offsets]
    rows += [(group_id, *[_NONE] * 5, _member(member), member.host) for member in idle]
    print_table(
        ("GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "MEMBER", "HOST"), rows
    )
    lag = "unknown, nothing is committed here" if described.lag is None else f"{described.lag:,}"
    click.echo(f"lag in all: {lag}")


@group.command("reset-offsets")
@click.argument("group_id", shell_complete=complete_groups)
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="TOPIC[:PARTITION,...]",
    help="May be repeated. Default: all that the group has offsets of.",
)
@click.option("--to-earliest", is_flag=True, help="To the first record that is still there.")
@click.option("--to-latest", is_flag=True, help="To the end: only what comes from now on.")
@click.option("--to-offset", type=click.IntRange(min=0), help="To this offset.")
@click.option(
    "--to-timestamp",
    type=Parsed("time", _parse_time),
    help="To the first record since milliseconds, 2024-01-31T12:00 (UTC), or -1h: as `consume -o @...`.",
)
@click.option(
    "--by-duration",
    "duration_ms",
    type=Parsed("duration", parse_duration_ms),
    help="To the first record of the last `1h`, `7d`, ...",
)
@click.option("--shift-by", type=int, help="So many records forward, or back if negative.")
@click.option("--execute", is_flag=True, help="Do it; without this it is only shown.")
@bootstrap_option
@json_option
@timeout_option
def reset_offsets(
    *,
    group_id: str,
    topics: Sequence[str],
    to_earliest: bool,
    to_latest: bool,
    to_offset: int | None,
    to_timestamp: int | None,
    duration_ms: int | None,
    shift_by: int | None,
    execute: bool,
    bootstrap_servers: str,
    as_json: bool,
    timeout_s: float,
) -> None:
    """Set the offsets of a group that has no members. A dry run unless --execute.

    Offsets outside the log are set to its nearer end.
    """
    ways = [to_earliest or None, to_latest or None, to_offset, to_timestamp, duration_ms, shift_by]
    if sum(way is not None for way in ways) != 1:
        raise click.UsageError(
            "give one of --to-earliest, --to-latest, --to-offset, --to-timestamp, --by-duration, --shift-by"
        )
    if duration_ms is not None:
        to_timestamp = time.time_ns() // 1_000_000 - duration_ms
    with admin_of(bootstrap_servers, timeout_s) as admin:
        _check_resettable(admin, group_id, named=bool(topics))
        stored = {place: each.offset for place, each in admin.list_group_offsets(group_id).items()}
        places = _places(admin, topics) if topics else sorted(stored)
        if not places:
            raise click.ClickException(f"group {group_id!r} has no offsets: name topics with --topic")
        starts = _offsets(admin, places, admin.EARLIEST)
        ends = _offsets(admin, places, admin.LATEST)
        if to_earliest or to_latest:
            wanted = starts if to_earliest else ends
        elif shift_by is not None:
            wanted = _shifted(places, stored, shift_by)
        elif to_timestamp is not None:
            wanted = {**ends, **_offsets(admin, places, to_timestamp)}
        else:
            wanted = dict.fromkeys(places, to_offset or 0)
        offsets = {place: min(max(wanted[place], starts[place]), ends[place]) for place in places}
        if execute:
            admin.reset_group_offsets(group_id, offsets)
    clamped = {place for place in places if offsets[place] != wanted[place]}
    _show_reset(group_id, stored, offsets, ends, clamped, execute=execute, as_json=as_json)


@group.command()
@click.argument("names", nargs=-1, required=True, metavar="GROUP...", shell_complete=complete_groups)
@regex_option
@click.option("--execute", is_flag=True, help="Do it; without this it is only shown.")
@bootstrap_option
@json_option
@timeout_option
def delete(
    *,
    names: Sequence[str],
    regex: bool,
    execute: bool,
    bootstrap_servers: str,
    as_json: bool,
    timeout_s: float,
) -> None:
    """Forget groups without members, and their offsets. A dry run unless --execute."""
    with admin_of(bootstrap_servers, timeout_s) as admin:
        group_ids = dict.fromkeys(chosen_groups(admin, names, regex=regex))
        groups = [admin.describe_group(group_id) for group_id in group_ids]
        for each in groups:  # all of them, before any is deleted
            _check_no_members(each)
        for each in groups:
            if execute:
                admin.delete_group(each.group_id)
            if as_json:
                print_json({"group": each.group_id, "deleted": execute, "offsets": len(each.offsets)})
            else:
                done = "deleted" if execute else "would be deleted (--execute does it)"
                click.echo(f"{each.group_id}: {done}, with {plural(len(each.offsets), 'offset')}")


def _check_no_members(described: "GroupDescription") -> None:
    if described.members:
        count = plural(len(described.members), "member")
        raise click.ClickException(f"group {described.group_id!r} has {count}: stop them first")


def _check_resettable(admin: "Admin", group_id: str, *, named: bool) -> None:
    """Before anything is shown: a dry run refuses what --execute would. `named`: the topics are given."""
    try:
        _check_no_members(admin.describe_group(group_id))
    except UnknownGroupError as error:
        if not named:
            raise
        say(f"{error}: --execute makes it")


def _row(group_id: str, offset: "GroupOffset") -> tuple[object, ...]:
    member = offset.member
    return (
        group_id,
        offset.partition.topic,
        offset.partition.partition,
        _NONE if offset.offset is None else offset.offset,
        _NONE if offset.log_end_offset is None else offset.log_end_offset,
        _NONE if offset.lag is None else offset.lag,
        _NONE if member is None else _member(member),
        _NONE if member is None else member.host,
    )


def _member(member: "MemberDescription") -> str:
    return f"{member.client_id} ({member.instance_id or member.member_id[:8]})"


def _as_json(described: "GroupDescription") -> Mapping[str, object]:
    return {
        "group": described.group_id,
        "kind": described.kind,
        "state": described.state,
        "epoch": described.group_epoch,
        "assignor": described.assignor,
        "lag": described.lag,
        "members": [
            {key: value for key, value in asdict(member).items() if key != "partitions"}
            for member in described.members
        ],
        "partitions": [
            {
                "topic": offset.partition.topic,
                "partition": offset.partition.partition,
                "offset": offset.offset,
                "log_end_offset": offset.log_end_offset,
                "lag": offset.lag,
                "metadata": offset.metadata,
                "committed_ms": offset.committed_ms,
                "member_id": None if offset.member is None else offset.member.member_id,
            }
            for offset in described.offsets
        ],
    }


def _places(admin: "Admin", topics: Sequence[str]) -> list["TopicPartition"]:
    """Of `TOPIC` all partitions, of `TOPIC:0,2` these."""
    from tailrace import TopicPartition

    places = set()
    for topic in topics:
        match = _TOPIC.fullmatch(topic)
        if match is None:
            raise click.BadParameter(f"{topic!r}: write TOPIC or TOPIC:0,1", param_hint="--topic")
        count = len(admin.describe_topic(match[1]).partitions)
        chosen = range(count) if match[2] is None else map(int, match[2].split(","))
        for partition in chosen:
            if partition >= count:
                raise click.BadParameter(
                    f"topic {match[1]!r} has {plural(count, 'partition')}, so there is no {partition}",
                    param_hint="--topic",
                )
            places.add(TopicPartition(match[1], partition))
    return sorted(places)


def _offsets(admin: "Admin", places: list["TopicPartition"], which: int) -> dict["TopicPartition", int]:
    found = admin.list_offsets(dict.fromkeys(places, which))
    return {place: at.offset for place, at in found.items() if at is not None}


def _shifted(
    places: Sequence["TopicPartition"], stored: Mapping["TopicPartition", int], shift_by: int
) -> dict["TopicPartition", int]:
    for place in places:
        if place not in stored:
            raise click.ClickException(
                f"{place.topic}-{place.partition} has no offset that could be shifted: use another way"
            )
    return {place: stored[place] + shift_by for place in places}


def _show_reset(
    group_id: str,
    stored: Mapping["TopicPartition", int],
    offsets: Mapping["TopicPartition", int],
    ends: Mapping["TopicPartition", int],
    clamped: Collection["TopicPartition"],
    *,
    execute: bool,
    as_json: bool,
) -> None:
    if as_json:
        for place, offset in offsets.items():
            print_json(
                {
                    "group": group_id,
                    "topic": place.topic,
                    "partition": place.partition,
                    "before": stored.get(place),
                    "offset": offset,
                    "lag": ends[place] - offset,
                    "clamped": place in clamped,
                    "done": execute,
                }
            )
        return
    rows = [
        (place.topic, place.partition, stored.get(place, _NONE), offset, ends[place] - offset)
        for place, offset in offsets.items()
    ]
    print_table(("TOPIC", "PARTITION", "CURRENT-OFFSET", "NEW-OFFSET", "NEW-LAG"), rows)
    if clamped:
        count = plural(len(clamped), "partition")
        say(f"{count}: the wanted offset lies outside the log, its nearer end is taken")
    if not execute:
        say("nothing was changed: --execute does it")
