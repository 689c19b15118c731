"""`tailrace coordinator` and `tailrace node`: one process of a cluster, in the foreground."""

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

import click

from tailrace.durable import PARENT_MODE, make_folder
from tailrace.processes.launch import COORDINATOR, Role
from tailrace.processes.signal_pipe import stop_signals
from tailrace.protocol.cluster import Listener
from tailrace.protocol.errors import DataFolderError, StorageFaultError, TailraceError

from . import exit_codes
from .cluster_config import load_cluster
from .open_files import raise_file_limit
from .options import config_option, data_dir_option, json_option, port_option
from .output import os_error_text, print_json, say

_log = logging.getLogger(__name__)
_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Process(Protocol):
    """What a node and a coordinator have in common."""

    def run(self, on_ready: Callable[[Listener], None], parent_fd: int | None = None) -> None:
        """Serve until stopped."""

    def stop(self) -> None:
        """End `run` soon."""


def _process_options(command: Callable[..., Any]) -> Callable[..., Any]:
    parent_fd = click.option("--parent-fd", type=int, hidden=True)
    return config_option(data_dir_option(json_option(parent_fd(command))))


@click.command()
@_process_options
@port_option
def coordinator(
    file: Path, data_dir: Path | None, port: int | None, parent_fd: int | None, *, as_json: bool
) -> int:
    """Run the coordinator of the cluster that a YAML file describes."""
    from tailrace.coordinator.main import Coordinator

    cluster = load_cluster(file, data_dir=data_dir, port=port)
    return _run(
        COORDINATOR, lambda: Coordinator(cluster.coordinator), cluster.layout.root, parent_fd, as_json=as_json
    )


@click.command()
@_process_options
@click.option("--id", "node_id", type=int, required=True, help="Which node of the file, or a new one.")
@click.option(
    "-b",
    "--bootstrap-servers",
    "--coordinator",
    "coordinator",
    metavar="HOST:PORT",
    help="Where the coordinator is, in place of what the file says.",
)
def node(
    file: Path,
    node_id: int,
    data_dir: Path | None,
    coordinator: str | None,
    parent_fd: int | None,
    *,
    as_json: bool,
) -> int:
    """Run one node of the cluster that a YAML file describes, which may be running.

    A node that the file does not name joins with the file's node_defaults. Move partitions onto it by
    `tailrace cluster rebalance`.
    """
    from dataclasses import replace

    from tailrace.node.main import Node
    from tailrace.transport.endpoint import parse_bootstrap

    cluster = load_cluster(file, data_dir=data_dir)
    config = cluster.joining(node_id)
    if coordinator is not None:
        config = replace(config, coordinator=tuple(parse_bootstrap(coordinator)))
    return _run(Role(node_id), lambda: Node(config), cluster.layout.root, parent_fd, as_json=as_json)


def _run(
    role: Role, build: Callable[[], Process], root: Path, parent_fd: int | None, *, as_json: bool
) -> int:
    """Serve until a signal; a second one ends the process at once."""
    logging.basicConfig(level=os.environ.get("TAILRACE_LOG_LEVEL", "INFO").upper(), format=_LOG_FORMAT)
    raise_file_limit()

    def on_ready(listener: Listener) -> None:
        if as_json:
            print_json(
                {
                    "event": "ready",
                    **role.fields(),
                    "pid": os.getpid(),
                    "tcp": listener.tcp,
                    "ipc": listener.ipc,
                }
            )
        else:
            click.echo(f"{role.name} ready on {listener.tcp}")

    try:
        _make_data_folder(root)
        process = build()
        _stop_on_signals(process)
        process.run(on_ready, parent_fd)
    except TailraceError as error:
        return _failed(role, error, as_json=as_json)
    except OSError as error:
        _log.exception("%s failed", role.name)
        return _failed(role, TailraceError(os_error_text(error)), as_json=as_json)
    return exit_codes.OK


def _failed(role: Role, error: TailraceError, *, as_json: bool) -> int:
    if as_json:
        print_json({"event": "failed", **role.fields(), "code": error.code.name, "message": str(error)})
    else:
        say(f"Error: {role.name}: {error}")
    return exit_codes.STORAGE_FAULT if isinstance(error, StorageFaultError) else exit_codes.ERROR


def _make_data_folder(root: Path) -> None:
    """The folder of the whole cluster; the roles make their own in it."""
    try:
        make_folder(root, PARENT_MODE)
    except OSError as error:
        raise DataFolderError(
            f"cannot make the data folder {root}: {(error.strerror or str(error)).lower()}"
        ) from None


def _stop_on_signals(process: Process) -> None:
    numbers = stop_signals()

    def stop(_: int, __: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        process.stop()

    for number in numbers:
        signal.signal(number, stop)
