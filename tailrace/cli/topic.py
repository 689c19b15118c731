"""`tailrace topic`: create, list, describe, alter and delete topics."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from tailrace.protocol.errors import TopicExistsError
from tailrace.protocol.text import plural

from .connect import admin_of
from .options import bootstrap_option, json_option, timeout_option
from .output import print_json, print_table, say
from .topic_names import chosen_topics, complete_topics, regex_option
from .units import human_bytes, parse_duration_ms, parse_size

if TYPE_CHECKING:
    from tailrace.client.admin import Admin
    from tailrace.client.descriptions import LogDescription, PartitionDescription, TopicDescription

_UNITS: Final = {"retention_ms": parse_duration_ms, "retention_bytes": parse_size}
_NUMBER: Final = re.compile(r"[+-]?[0-9]+")


@click.group()
def topic() -> None:
    """Create, list, describe, alter and delete topics."""


def _parse_config(_: click.Context, __: click.Parameter, pairs: Sequence[str]) -> dict[str, str | int]:
    config: dict[str, str | int] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{pair!r}: write KEY=VALUE, such as retention_ms=7d")
        if key in config:
            raise click.BadParameter(f"{key!r} is given twice")
        _check_key(key)
        config[key] = _in_base_unit(key, value)
    return config


def _check_key(key: str) -> None:
    if key == "partitions":
        raise click.BadParameter("how many partitions there are is no setting: --partitions says it")


def _parse_defaults(_: click.Context, __: click.Parameter, keys: Sequence[str]) -> Sequence[str]:
    for key in keys:
        _check_key(key)
    return keys


def _in_base_unit(key: str, value: str) -> str | int:
    """Milliseconds of `7d`, bytes of `1GiB`; all else is the coordinator's to check."""
    parse = _UNITS.get(key.replace(".", "_"))
    if parse is None or _NUMBER.fullmatch(value):
        return value
    try:
        return parse(value)
    except ValueError as error:
        raise click.BadParameter(f"{key}: {error}") from None


@topic.command()
@click.argument("name")
@click.option("-p", "--partitions", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "-r",
    "--replication-factor",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many nodes hold each partition.",
)
@click.option(
    "-c",
    "--config",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_parse_config,
    help="retention_ms such as 7d, retention_bytes such as 64GiB (-1: no bound), min_insync_replicas, or "
    "unclean_leader_election=true; may be repeated.",
)
@bootstrap_option
@timeout_option
@json_option
def create(
    *,
    name: str,
    partitions: int,
    replication_factor: int,
    config: dict[str, str | int],
    bootstrap_servers: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Create a topic; returns when it can be written."""
    with admin_of(bootstrap_servers, timeout_s) as admin:
        try:
            created = admin.create_topic(name, partitions, replication_factor, config)
        except TopicExistsError as error:
            then = f"use it as it is, choose another name, or delete it: tailrace topic delete {name}"
            raise TopicExistsError(f"{error}; {then}") from None
    if as_json:
        print_json(_topic_fields(created))
    else:
        click.echo(f"created topic {name} with {plural(partitions, 'partition')}")


@topic.command("list")
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_topics)
@regex_option
@bootstrap_option
@timeout_option
@json_option
def list_topics(
    names: Sequence[str], bootstrap_servers: str, timeout_s: float, *, regex: bool, as_json: bool
) -> None:
    """List all topics, or those that are named."""
    with admin_of(bootstrap_servers, timeout_s) as admin:
        topics = admin.describe_topics(chosen_topics(admin, names, regex=regex) if names else None)
    if as_json:
        for each in topics:
            print_json(_topic_fields(each))
        return
    rows = [(each.name, len(each.partitions), each.replication_factor) for each in topics]
    print_table(("TOPIC", "PARTITIONS", "REPLICAS"), rows)


@topic.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_topics)
@regex_option
@bootstrap_option
@timeout_option
@json_option
def describe(
    names: Sequence[str], bootstrap_servers: str, timeout_s: float, *, regex: bool, as_json: bool
) -> None:
    """Show a topic's settings, and for each partition its leader, offsets and size."""
    with admin_of(bootstrap_servers, timeout_s) as admin:
        topics = admin.describe_topics(chosen_topics(admin, names, regex=regex))
        logs = _logs(admin)
    for number, each in enumerate(topics):
        if as_json:
            print_json(_topic_fields(each, logs))
            continue
        settings = _settings(each)
        click.echo(f"{chr(10) if number else ''}{each.name}  (id {each.topic_id}; {settings})")
        print_table(
            ("PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "ELR", "START", "END", "SIZE"),
            _partition_rows(each, logs),
        )


@topic.command()
@click.argument("name", shell_complete=complete_topics)
@click.option("-p", "--partitions", type=click.IntRange(min=1), help="How many there are to be in all.")
@click.option(
    "-c", "--config", multiple=True, metavar="KEY=VALUE", callback=_parse_config, help="May be repeated."
)
@click.option(
    "--default",
    "defaults",
    multiple=True,
    metavar="KEY",
    callback=_parse_defaults,
    help="Back to the default; may be repeated.",
)
@bootstrap_option
@timeout_option
@json_option
def alter(
    *,
    name: str,
    partitions: int | None,
    config: dict[str, str | int],
    defaults: Sequence[str],
    bootstrap_servers: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Add partitions to a topic, or change its settings.

    With more partitions, keys may go to others than before.
    """
    if partitions is None and not config and not defaults:
        raise click.UsageError("nothing to alter: give --partitions, --config or --default")
    with admin_of(bootstrap_servers, timeout_s) as admin:
        altered = admin.alter_topic(name, partitions, _changes(config, defaults))
    if as_json:
        print_json(_topic_fields(altered))
        return
    click.echo(f"{name} has {plural(len(altered.partitions), 'partition')}; {_settings(altered)}")


def _settings(each: "TopicDescription") -> str:
    """As they are given, and written in files: `true` for True."""
    return ", ".join(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in each.config.items()
    )


def _changes(config: dict[str, str | int], defaults: Sequence[str]) -> dict[str, str | int | None]:
    """New values, and None for what goes back. A key may be spelt with dots or underscores."""
    spelt = {key.replace(".", "_"): key for key in config}
    for key in defaults:
        if key.replace(".", "_") in spelt:
            raise click.UsageError(f"{key!r} is given a value by --config: leave one of the two out")
    return {**config, **dict.fromkeys(defaults)}


@topic.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_topics)
@regex_option
@click.option("--execute", is_flag=True, help="Really delete; without it only show what would be deleted.")
@bootstrap_option
@timeout_option
@json_option
def delete(
    *,
    names: Sequence[str],
    regex: bool,
    execute: bool,
    bootstrap_servers: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Delete topics and all their records: there is no way back."""
    with admin_of(bootstrap_servers, timeout_s) as admin:
        topics = admin.describe_topics(chosen_topics(admin, names, regex=regex))
        logs = _logs(admin)
        for each in topics:
            records, size = _extent(each, logs)
            if execute:
                admin.delete_topic(each.name)
            if as_json:
                fields = {"partitions": len(each.partitions), "records": records, "size_bytes": size}
                print_json({"name": each.name, "deleted": execute, **fields})
            else:
                verb = "deleted" if execute else "would delete"
                extent = f"{plural(records, 'record')}, {human_bytes(size)}"
                shape = plural(len(each.partitions), "partition")
                click.echo(f"{verb} topic {each.name}: {shape}, {extent}")
    if not execute and not as_json:
        say("nothing is deleted yet: add --execute to do it")


Logs = dict[tuple[str, int, int], "LogDescription"]
"""By topic, partition and node."""


def _logs(admin: "Admin") -> Logs:
    described = admin.describe_logs()
    return {
        (log.topic, log.partition, node_id): log
        for node_id, node in described.items()
        for log in node.logs
        if log.topic is not None
    }


def _leaders_log(
    each: "TopicDescription", part: "PartitionDescription", logs: Logs
) -> "LogDescription | None":
    return None if part.leader is None else logs.get((each.name, part.partition, part.leader))


def _partition_rows(each: "TopicDescription", logs: Logs) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for part in each.partitions:
        log = _leaders_log(each, part, logs)
        known = (log.log_start_offset, log.high_watermark, human_bytes(log.size_bytes)) if log else ("-",) * 3
        leader = "none" if part.leader is None else part.leader
        replicas = _nodes(part.replicas) + (f" -> {_nodes(part.target)}" if part.target else "")
        in_sync = _nodes(part.isr), _nodes(part.elr)
        rows.append((part.partition, leader, part.leader_epoch, replicas, *in_sync, *known))
    return rows


def _nodes(node_ids: Sequence[int]) -> str:
    return ",".join(map(str, node_ids)) or "-"


def _extent(each: "TopicDescription", logs: Logs) -> tuple[int, int]:
    """Records and bytes, as far as the leaders that are alive tell."""
    of_leaders = (_leaders_log(each, part, logs) for part in each.partitions)
    known = [log for log in of_leaders if log is not None]
    records = sum(log.high_watermark - log.log_start_offset for log in known)
    return records, sum(log.size_bytes for log in known)


def _topic_fields(each: "TopicDescription", logs: Logs | None = None) -> dict[str, object]:
    partitions = []
    for part in each.partitions:
        fields: dict[str, object] = asdict(part)
        if logs is not None:
            log = _leaders_log(each, part, logs)
            fields["log_start_offset"] = log.log_start_offset if log else None
            fields["high_watermark"] = log.high_watermark if log else None
            fields["size_bytes"] = log.size_bytes if log else None
        partitions.append(fields)
    return {
        "name": each.name,
        "topic_id": each.topic_id,
        "replication_factor": each.replication_factor,
        "config": dict(each.config),
        "partitions": partitions,
    }
