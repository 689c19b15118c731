"""`tailrace apply`: a running cluster takes in what was changed in its YAML file."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tailrace.protocol.errors import TailraceError

from . import exit_codes
from .apply_plan import Known, Plan, Running, make_plan
from .cluster_config import load_cluster
from .connect import admin_of
from .control import Fields, ask
from .options import SOME_SECONDS, data_dir_option, json_option, throttle_option
from .output import print_json, say

if TYPE_CHECKING:
    from tailrace.client.admin import Admin

    from .apply_steps import Steps


@click.command()
@click.argument("file", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option("--execute", is_flag=True, help="Really do it; without it only show what would be done.")
@click.option("--restart", is_flag=True, help="Restart also what has not changed, as after an upgrade.")
@throttle_option
@data_dir_option
@click.option(
    "--timeout",
    "timeout_s",
    default="120s",
    show_default=True,
    type=SOME_SECONDS,
    help="How long a process may take to be back and in sync. Emptying a node takes what it takes.",
)
@json_option
def apply(
    *, file: Path, execute: bool, restart: bool, throttle: int, data_dir: Path | None, timeout_s: float,
    as_json: bool,
) -> int:  # fmt: skip
    """Let the cluster that `tailrace up` runs be as its changed YAML file says.

    New nodes are started, those that are gone from the file are emptied, stopped and forgotten, and those
    with other settings restarted one by one, each when the one before is in sync again. Without --execute
    nothing is done. Interrupted, it can be called again, and goes on.
    """
    wanted = load_cluster(file, data_dir=data_dir)
    text = file.read_text()
    status = ask(wanted.layout, op="status")
    with admin_of(status["bootstrap_servers"], timeout_s) as admin:
        plan = make_plan(_running(admin, status), wanted, restart=restart)
        _show(plan, execute=execute, as_json=as_json)
        if plan.refused:
            raise TailraceError("; ".join(plan.refused))
        if execute and plan.steps:
            from .apply_steps import Steps

            ask(wanted.layout, op="config", text=text)
            steps = Steps(admin, wanted.layout, throttle, timeout_s, as_json=as_json)
            _execute(steps, plan, as_json=as_json)
    return exit_codes.OK


def _running(admin: "Admin", status: Fields) -> Running:
    members = {member["node_id"]: member["settings"] for member in status["members"]}
    coordinator = members.pop(None)
    known = {node.node_id: Known(node.alive, node.draining) for node in admin.describe_cluster().nodes}
    replicas_max = max((topic.replication_factor for topic in admin.describe_topics()), default=0)
    return Running(coordinator, members, known, replicas_max)


def _show(plan: Plan, *, execute: bool, as_json: bool) -> None:
    if as_json:
        for step in plan.steps:
            changes = {key: [old, new] for key, old, new in step.changes}
            fields = {"action": step.action, "node_id": step.node_id, "changes": changes}
            print_json({"event": "planned", **fields, "executed": execute and not plan.refused})
        return
    for step in plan.steps:
        click.echo(step.text)
    if not plan.steps:
        click.echo("the cluster is as the file says: nothing to do")
    elif not execute and not plan.refused:
        say("nothing is done yet: add --execute to do it")


def _execute(steps: "Steps", plan: Plan, *, as_json: bool) -> None:
    try:
        for step in plan.steps:
            steps.do(step)
            if as_json:
                print_json({"event": "done", "action": step.action, "node_id": step.node_id})
            else:
                click.echo(f"done: {step.text}")
    except KeyboardInterrupt:
        say("interrupted; call it again to go on")
        raise
