"""A cluster that `tailrace up` runs takes in its changed file: under load, and nobody notices."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tailrace import Admin
from tailrace.cli.control import ask, socket_path
from tailrace.cli.main import run
from tailrace.processes.layout import layout_of
from tailrace.protocol.errors import ConnectionFailedError, TailraceError

from ..patience import PATIENCE_S
from .load import Load

Config = dict[str, Any]


class Up:
    """`tailrace up` on a file that is rewritten."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.file = folder / "cluster.yaml"
        self.layout = layout_of(folder / "data")
        self.config = {"data_dir": str(self.layout.root), **config}
        self.write()
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tailrace", "up", str(self.file), "--json"],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.bootstrap_servers = self.event("ready")["bootstrap_servers"]

    def write(self) -> None:
        """The file, from `config`."""
        self.file.write_text(json.dumps(self.config))

    def event(self, name: str) -> dict[str, Any]:
        """The next event, which is this one."""
        assert self.process.stdout is not None
        event = json.loads(self.process.stdout.readline())
        assert event["event"] == name, event
        return dict(event)

    def close(self) -> None:
        """Stop it and its children."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    config = {
        "coordinator": {"listen": "127.0.0.1:0", "session_timeout_ms": 2_000},
        "node_defaults": {"quota_bytes": "1GiB"},
        "nodes": [{"id": 1}, {"id": 2}],
    }
    running = Up(tmp_path, config)
    yield running
    running.close()


@pytest.fixture
def apply(up: Up, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def call(*options: str, code: int = 0) -> Any:
        up.write()
        assert run(["apply", str(up.file), *options]) == code
        return capsys.readouterr()

    return call


def test_nodes_come_change_and_go_under_load(up: Up, apply: Callable[..., Any]) -> None:
    assert apply().out == "the cluster is as the file says: nothing to do\n"
    with Admin(up.bootstrap_servers) as admin:
        admin.create_topic("t", 2, 2)
        with Load(up.bootstrap_servers, "t") as load:
            load.wait_for_traffic()
            up.config["nodes"] = [{"id": 1}, {"id": 2, "flush": "relaxed"}, {"id": 3}]
            shown = apply()
            steps = ["start node 3", "restart node 2: flush commit -> relaxed"]
            assert shown.out.splitlines() == steps
            assert shown.err == "nothing is done yet: add --execute to do it\n"
            assert len(admin.describe_cluster().nodes) == 2
            assert apply("--execute").out.splitlines()[2:] == [f"done: {step}" for step in steps]
            assert up.event("started")["node_id"] == 3
            assert up.event("restarted")["node_id"] == 2
            load.wait_for_traffic()
            up.config["nodes"] = [{"id": 2, "flush": "relaxed"}, {"id": 3}]
            admin.drain_node(2)
            assert apply().out.splitlines()[0] == "keep node 2, which is draining: nothing more moves off it"
            assert "done: remove node 1" in apply("--execute", "--throttle", "100MiB").out
            assert not any(node.draining for node in admin.describe_cluster().nodes)
            assert up.event("removed")["node_id"] == 1
            assert [node.node_id for node in admin.describe_cluster().nodes] == [2, 3]
            load.wait_for_traffic()
        assert all(set(part.isr) == {2, 3} for part in admin.describe_topic("t").partitions)
    assert apply().out == "the cluster is as the file says: nothing to do\n"


def test_every_process_is_restarted_under_load(up: Up, apply: Callable[..., Any]) -> None:
    """A replicated topic and one that has no other node to go to: nobody notices either way."""
    before = {member["node_id"]: member["pid"] for member in ask(up.layout, op="status")["members"]}
    with Admin(up.bootstrap_servers) as admin:
        admin.create_topic("two", 2, 2, {"min_insync_replicas": 1})
        admin.create_topic("one", 2, 1)
        with Load(up.bootstrap_servers, "two") as two, Load(up.bootstrap_servers, "one") as one:
            for load in (two, one):
                load.wait_for_traffic()
            done = apply("--execute", "--restart").out.splitlines()
            assert done[3:] == ["done: restart the coordinator", *(f"done: restart node {n}" for n in (1, 2))]
            for load in (two, one):
                load.wait_for_traffic()
        assert all(set(part.isr) == {1, 2} for part in admin.describe_topic("two").partitions)
    after = {member["node_id"]: member["pid"] for member in ask(up.layout, op="status")["members"]}
    assert all(before[node_id] != after[node_id] for node_id in before)
    assert [up.event("restarted")["node_id"] for _ in range(3)] == [None, 1, 2]


def test_the_coordinator_takes_in_its_settings(up: Up, apply: Callable[..., Any]) -> None:
    up.config["coordinator"]["session_timeout_ms"] = 3_000
    shown = [json.loads(line) for line in apply("--execute", "--json").out.splitlines()]
    change = {"session_timeout_ms": [2_000, 3_000]}
    assert shown == [
        {"event": "planned", "action": "restart", "node_id": None, "changes": change, "executed": True},
        {"event": "done", "action": "restart", "node_id": None},
    ]
    assert up.event("restarted")["role"] == "coordinator"
    with Admin(up.bootstrap_servers) as admin:
        admin.ready(nodes=2)


def test_what_cannot_be_applied_changes_nothing(up: Up, apply: Callable[..., Any]) -> None:
    before = ask(up.layout, op="status")
    up.config["nodes"].append({"id": 3})
    up.config["coordinator"]["listen"] = "127.0.0.1:9"
    assert "listen of the coordinator cannot change" in apply("--execute", code=1).err
    up.config["coordinator"]["listen"] = "127.0.0.1:0"
    up.config["nodes"] = [{"id": 2}]
    with Admin(up.bootstrap_servers) as admin:
        admin.create_topic("t", 1, 2)
        left = "1 nodes would be left, and there are partitions with 2 replicas"
        assert left in apply("--execute", code=1).err
        assert not any(node.draining for node in admin.describe_cluster().nodes)
    after = ask(up.layout, op="status")
    pids = [[member["pid"] for member in each["members"]] for each in (before, after)]
    assert pids[0] == pids[1]
    up.config["data_dir"] += "-other"
    refused = apply(code=1).err
    assert "no `tailrace up` runs a cluster in" in refused
    assert "started with --data-dir" in refused
    for request, reason in (
        ({"op": "fly"}, "unknown request 'fly'"),
        ({"op": "start", "node_id": 1}, "node 1 cannot be started, or runs already"),
        ({"op": "restart", "node_id": 9}, "node 9 is not run here"),
        ({"op": "stop", "node_id": None}, "the coordinator ends with the cluster only"),
        ({"op": "config", "text": "nodes: ["}, "expected"),
    ):
        with pytest.raises(TailraceError, match=reason):
            ask(up.layout, **request)
    assert up.layout.run.stat().st_mode & 0o077 == 0
    assert len(ask(up.layout, op="status")["members"]) == 3


def test_nobody_listens(tmp_path: Path) -> None:
    layout = layout_of(tmp_path / "data")
    with pytest.raises(ConnectionFailedError, match="no `tailrace up` runs a cluster"):
        ask(layout, op="status")
    assert not socket_path(layout).exists()
