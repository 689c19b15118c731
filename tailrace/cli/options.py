"""Options that several commands have."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from .units import (
    parse_count,
    parse_milliseconds,
    parse_rate,
    parse_seconds,
    parse_size,
    parse_some_seconds,
    parse_throttle,
)

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


if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # no generic before click 8.4


class Parsed(ParamType):
    """What a function reads that raises ValueError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Called by click, also with what was converted already."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


COUNT: Final = Parsed("count", parse_count)
MILLISECONDS: Final = Parsed("time", parse_milliseconds)
RATE: Final = Parsed("rate", parse_rate)
SECONDS: Final = Parsed("time", parse_seconds)
SIZE: Final = Parsed("size", parse_size)
SOME_SECONDS: Final = Parsed("time", parse_some_seconds)
_THROTTLE: Final = Parsed("size", parse_throttle)


def timeout_option(command: F) -> F:
    """`--timeout`: how long to try."""
    return click.option(
        "--timeout",
        "timeout_s",
        default="30s",
        show_default=True,
        type=SOME_SECONDS,
        help="How long to wait for the cluster.",
    )(command)


def throttle_option(command: F) -> F:
    """`--throttle`: how fast a node copies what moves to it."""
    return click.option(
        "--throttle",
        default="none",
        show_default=True,
        type=_THROTTLE,
        help="What each node may copy of it in a second, such as 50MiB; the rest of its time is for clients.",
    )(command)


def throttle_argument(command: F) -> F:
    """The same as an argument."""
    return click.argument("throttle", metavar="SIZE|none", type=_THROTTLE)(command)


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
