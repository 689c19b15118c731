"""`tailrace up`: a whole cluster in the foreground."""

import contextlib
import sys
from pathlib import Path

import click

from tailrace.processes.launch import Event, Launcher, Role
from tailrace.protocol.errors import DataFolderError
from tailrace.protocol.text import nodes_named

from . import exit_codes
from .cluster_config import load_cluster
from .control import Control
from .lost_store import lost_store
from .new_folder import NewFolder
from .options import data_dir_option, json_option, port_option
from .output import drop_buffered, print_json, say
from .relay import prefix_of
from .supervisor import Supervisor


@click.command()
@click.argument("file", metavar="CONFIG", type=click.Path(path_type=Path))
@data_dir_option
@port_option
@json_option
def up(file: Path, data_dir: Path | None, port: int | None, *, as_json: bool) -> int:
    """Run the coordinator and the nodes of a YAML file, and keep them running.

    Prints one line when all are ready. `tailrace apply` has it take in changes of the file. Ctrl-C stops
    the processes cleanly, a second one at once. A data folder that was not there is removed again if the
    start fails.
    """
    cluster = load_cluster(file, data_dir=data_dir, port=port)
    new_folder = NewFolder(cluster.layout)
    node_ids = [node.node_id for node in cluster.nodes]
    show = print_json if as_json else _print_text

    was_ready = False
    lost = lost_store(cluster.layout)

    def report(event: Event) -> None:
        nonlocal was_ready
        was_ready = was_ready or event["event"] == "ready"
        try:
            show(event)
            if lost is not None and event["event"] in ("ready", "failed"):
                show({"event": "warning", "message": lost})
        except OSError:  # its reader may go, or a disk under it fill up; the cluster stays
            drop_buffered(sys.stdout)

    code = exit_codes.ERROR
    try:
        with contextlib.closing(Control(cluster)) as control:
            launcher = Launcher(control.file, cluster.layout)
            code = Supervisor(launcher, node_ids, report, sys.stderr.fileno(), control).run(port)
    except DataFolderError as error:
        report({"event": "failed", "message": str(error)})
        report({"event": "stopped", "exit_code": code})
    finally:
        with contextlib.suppress(OSError):  # another process of the cluster may still have its socket there
            cluster.layout.run.rmdir()
        if code != exit_codes.OK and not was_ready:
            new_folder.remove()
    return code


def _print_text(event: Event) -> None:
    """The ready line goes to stdout; what happens later, like the logs, to stderr."""
    if event["event"] == "ready":
        node_ids = [str(each["node_id"]) for each in event["processes"] if each["role"] == "node"]
        click.echo(
            f"ready on {event['bootstrap_servers']}: {nodes_named(node_ids)}, data in {event['data_dir']}"
        )
    elif event["event"] == "exited":
        again = event["restart_in_ms"]
        then = "not restarted: check its disk" if again is None else f"restarting in {again} ms"
        _say(f"{_name(event)} (pid {event['pid']}) ended: {event['reason']}; {then}")
    elif event["event"] == "restarted":
        _say(f"{_name(event)} is back (pid {event['pid']})")
    elif event["event"] == "started":
        _say(f"{_name(event)} was added (pid {event['pid']})")
    elif event["event"] == "removed":
        _say(f"{_name(event)} was stopped for good")
    elif event["event"] == "warning":
        say(event["message"])
    elif event["event"] == "failed":
        say(f"Error: {event['message']}")


def _say(text: str) -> None:
    say(f"{prefix_of('up')}{text}")


def _name(event: Event) -> str:
    return Role(event["node_id"]).name
