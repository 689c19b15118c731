"""Options that several commands have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from .units import parse_count, parse_seconds, parse_size

DEFAULT_BOOTSTRAP_SERVERS: Final = "127.0.0.1:7070"

F = TypeVar("F", bound=Callable[..., Any])


def bootstrap_option(command: F) -> F:
    """`-b`: where the cluster is."""
    return click.option(
        "-b",
        "--bootstrap-servers",
        envvar="TAILRACE_BOOTSTRAP_SERVERS",
        default=DEFAULT_BOOTSTRAP_SERVERS,
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT[,...]",
        help="The coordinator's address.",
    )(command)


def json_option(command: F) -> F:
    """`--json`: for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")(command)


def size_of(_: click.Context, __: click.Parameter, text: str) -> int:
    """What an option that takes a size was given, in bytes."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def count_of(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """What an option that takes a number of records or the like was given."""
    try:
        return None if text is None else parse_count(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def rate_of(context: click.Context, parameter: click.Parameter, text: str | float | None) -> float | None:
    """What an option that takes how many in a second was given: `0.5`, `1e6` or `50k`."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return count_of(context, parameter, str(text))


def seconds_of(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """What an option that takes a time was given."""
    try:
        return None if text is None else parse_seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def some_seconds(context: click.Context, parameter: click.Parameter, text: str) -> float | None:
    """The same for a time that cannot be nothing."""
    seconds = seconds_of(context, parameter, text)
    if seconds == 0:
        raise click.BadParameter("it must be longer than nothing")
    return seconds


def timeout_option(command: F) -> F:
    """`--timeout`: how long to try."""
    return click.option(
        "--timeout",
        "timeout_s",
        default="30s",
        show_default=True,
        metavar="TIME",
        callback=some_seconds,
        help="How long to wait for the cluster.",
    )(command)


def _parse_rate(_: click.Context, __: click.Parameter, text: str) -> int:
    try:
        return 0 if text == "none" else parse_size(text.removesuffix("/s"))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def throttle_option(command: F) -> F:
    """`--throttle`: how fast a node copies what moves to it."""
    return click.option(
        "--throttle",
        default="none",
        show_default=True,
        metavar="SIZE",
        callback=_parse_rate,
        help="What each node may copy of it in a second, such as 50MiB; the rest of its time is for clients.",
    )(command)


def throttle_argument(command: F) -> F:
    """The same as an argument."""
    return click.argument("throttle", metavar="SIZE|none", callback=_parse_rate)(command)


def wait_option(command: F) -> F:
    """`--wait`: until what moves has moved."""
    return click.option("--wait", is_flag=True, help="Show the progress until everything has moved.")(command)


def config_option(command: F) -> F:
    """`--config`: the cluster's YAML file."""
    return click.option(
        "--config", "file", required=True, type=click.Path(path_type=Path), help="The cluster's YAML file."
    )(command)


def data_dir_option(command: F) -> F:
    """`--data-dir`: in place of the file's `data_dir`."""
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where the data is, in place of the file's data_dir.",
    )(command)


def port_option(command: F) -> F:
    """`--port`: in place of the port in the file."""
    return click.option(
        "--port",
        type=click.IntRange(0, 0xFFFF),
        help="The coordinator's port, in place of the file's; 0 takes any free one.",
    )(command)
