"""Options that several commands have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

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


def timeout_option(command: F) -> F:
    """`--timeout`: how long to try."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for the cluster.",
    )(command)


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
