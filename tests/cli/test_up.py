"""`tailrace up` on the configs that come with it: start, deaths, signals, and failed starts."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailrace.cli.new_folder import NewFolder
from tailrace.client.admin import Admin
from tailrace.processes.layout import layout_of

from ..patience import PATIENCE_S

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LOCAL = CONFIGS / "local.yaml"
THREE_NODES = CONFIGS / "three-nodes.yaml"

Start = Callable[..., Any]
Gone = Callable[[list[int]], None]


def pids(ready: dict[str, Any]) -> list[int]:
    return [process["pid"] for process in ready["processes"]]


def pid_of(ready: dict[str, Any], node_id: int | None) -> int:
    return next(process["pid"] for process in ready["processes"] if process["node_id"] == node_id)


@pytest.mark.parametrize("config", [LOCAL, THREE_NODES], ids=lambda path: path.stem)
def test_a_cluster_starts_works_and_stops(
    up: Start, tailrace: Start, all_gone: Gone, tmp_path: Path, config: Path
) -> None:
    running = up(config, "--data-dir", tmp_path, "--port", 0)
    ready = running.event()
    assert ready["event"] == "ready"
    assert ready["coordinator"]["tcp"] == f"tcp://{ready['bootstrap_servers']}"
    roles = [process["role"] for process in ready["processes"]]
    assert roles == ["coordinator", *["node"] * (len(roles) - 1)]
    where = ("-b", ready["bootstrap_servers"])
    tailrace("topic", "create", "greetings", "-p", 6, *where)
    given = "".join(f"line {number}\n" for number in range(1_000))
    tailrace("produce", "greetings", *where, given=given)
    got = tailrace("consume", "greetings", "-e", *where).stdout
    assert sorted(got.splitlines()) == sorted(given.splitlines())
    assert running.stop() == 0
    assert running.event() == {"event": "stopped", "exit_code": 0}
    all_gone(pids(ready))
    assert not (tmp_path / "run").exists(), "no socket is left"


def test_data_survives_a_restart(up: Start, tailrace: Start, tmp_path: Path) -> None:
    """And what cleans up after a failed start: neither a folder in use nor one with a topic is removed."""
    folder = tmp_path / "data"
    new_folder = NewFolder(layout_of(folder))
    for _ in range(2):
        running = up(LOCAL, "--data-dir", folder, "--port", 0)
        where = ("-b", running.event()["bootstrap_servers"])
        if not tailrace("topic", "list", "--json", *where).stdout:
            tailrace("topic", "create", "t", *where)
        tailrace("produce", "t", *where, given="again\n")
        new_folder.remove()
        assert running.stop(signal.SIGINT) == 0
        new_folder.remove()
    running = up(LOCAL, "--data-dir", folder, "--port", 0)
    where = ("-b", running.event()["bootstrap_servers"])
    assert tailrace("consume", "t", "-e", *where).stdout == "again\nagain\n"


@pytest.mark.slow
def test_a_coordinator_without_its_store_is_told_last(up: Start, tailrace: Start, tmp_path: Path) -> None:
    running = up(LOCAL, "--data-dir", tmp_path, "--port", 0)
    where = ("-b", running.event()["bootstrap_servers"])
    tailrace("topic", "create", "t", *where)
    tailrace("produce", "t", *where, given="still there\n")
    assert running.stop() == 0
    (tmp_path / "coordinator").rename(tmp_path / "kept")
    running = up(LOCAL, "--data-dir", tmp_path, "--port", 0)
    assert running.event()["event"] in ("ready", "failed")
    told = running.event()
    assert told["event"] == "warning"
    assert "nodes hold the logs of 1 topic that this cluster does not know" in told["message"]
    running.stop()
    shutil.rmtree(tmp_path / "coordinator", ignore_errors=True)
    (tmp_path / "kept").rename(tmp_path / "coordinator")
    running = up(LOCAL, "--data-dir", tmp_path, "--port", 0)
    where = ("-b", running.event()["bootstrap_servers"])
    assert tailrace("consume", "t", "-e", *where).stdout == "still there\n"


def test_people_get_one_line_and_the_logs_apart(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-P",
        "-m",
        "tailrace",
        "up",
        str(LOCAL),
        "--port",
        "0",
        "--data-dir",
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, logs = process.communicate(timeout=PATIENCE_S)
    assert re.fullmatch(rf"ready on 127\.0\.0\.1:\d+: node 1, data in {re.escape(str(tmp_path))}\n", line)
    assert rest == ""
    assert process.returncode == 0
    assert {entry.split("|")[0].strip() for entry in logs.splitlines()} == {"coordinator", "node-1"}


def test_a_killed_node_is_restarted_visibly(up: Start, tmp_path: Path) -> None:
    running = up(THREE_NODES, "--data-dir", tmp_path, "--port", 0)
    ready = running.event()
    victim = pid_of(ready, 2)
    os.kill(victim, signal.SIGKILL)
    exited = running.event()
    assert exited["restart_in_ms"] > 0
    assert (exited["event"], exited["node_id"], exited["pid"]) == ("exited", 2, victim)
    assert exited["reason"] == "SIGKILL"
    restarted = running.event()
    assert (restarted["event"], restarted["role"], restarted["node_id"]) == ("restarted", "node", 2)
    assert restarted["pid"] != victim
    with Admin(ready["bootstrap_servers"]) as admin:
        admin.ready(nodes=3)


def test_a_killed_coordinator_is_back_on_its_port(up: Start, tmp_path: Path) -> None:
    running = up(LOCAL, "--data-dir", tmp_path, "--port", 0)
    ready = running.event()
    with Admin(ready["bootstrap_servers"]) as admin:
        admin.create_topic("before")
        os.kill(pid_of(ready, None), signal.SIGKILL)
        assert [running.event()["event"], running.event()["event"]] == ["exited", "restarted"]
        admin.create_topic("after")
        assert admin.list_topics() == ["after", "before"]


def test_children_end_when_the_supervisor_is_killed(up: Start, all_gone: Gone, tmp_path: Path) -> None:
    running = up(THREE_NODES, "--data-dir", tmp_path, "--port", 0)
    ready = running.event()
    running.process.kill()
    all_gone(pids(ready))


def test_the_cluster_stays_when_nobody_reads_its_events(up: Start, tmp_path: Path) -> None:
    running = up(LOCAL, "--data-dir", tmp_path, "--port", 0)
    ready = running.event()
    running.process.stdout.close()
    os.kill(pid_of(ready, 1), signal.SIGKILL)
    with Admin(ready["bootstrap_servers"]) as admin:
        admin.create_topic("t")
    assert running.stop() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("form", [["--json"], []], ids=["json", "text"])
def test_the_cluster_stays_when_nothing_fits_that_it_tells(
    tmp_path: Path, free_address: str, form: list[str]
) -> None:
    port = free_address.rpartition(":")[2]
    command = [sys.executable, "-P", "-m", "tailrace", "up", str(LOCAL), "--port", port, *form]
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen([*command, "--data-dir", str(tmp_path)], stdout=full, stderr=full)
    try:
        with Admin(free_address) as admin:
            admin.ready()
            admin.create_topic("t")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("there", [[], ["data", "data/deep"]], ids=len)
def test_a_port_in_use_ends_everything_with_its_reason(up: Start, tmp_path: Path, there: list[str]) -> None:
    """And nothing stays that was not there before."""
    for name in there:
        (tmp_path / name).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        running = up(THREE_NODES, "--data-dir", tmp_path / "data" / "deep", "--port", port)
        failed = running.event()
        assert failed["event"] == "failed"
        assert f"127.0.0.1:{port}" in failed["message"]
        assert "already in use" in failed["message"]
        assert running.event() == {"event": "stopped", "exit_code": 1}
        assert running.process.wait(PATIENCE_S) == 1
    left = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.glob("data/**/"))]
    assert left[: len(there)] == there
    assert ("data/deep/coordinator" in left) == ("data/deep" in there)
    assert len(left) == len(there) or "data/deep" in there


def test_a_data_folder_in_use_is_refused_and_its_user_unharmed(up: Start, tmp_path: Path) -> None:
    first = up(LOCAL, "--data-dir", tmp_path, "--port", 0)
    ready = first.event()
    second = up(LOCAL, "--data-dir", tmp_path, "--port", 0)
    failed = second.event()
    assert failed["event"] == "failed"
    assert "in use" in failed["message"]
    assert second.process.wait(PATIENCE_S) == 1
    with Admin(ready["bootstrap_servers"]) as admin:
        admin.create_topic("still-there")
    assert first.stop() == 0


def test_a_wrong_config_starts_nothing(tailrace: Start, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("data_dir: data\nnodes:\n  - id: 1\n    quota: 1GiB\n")
    done = tailrace("up", file, "--data-dir", tmp_path / "data", code=1)
    assert done.stderr == f"Error: {file}:4: nodes[0]: unknown key 'quota'; did you mean 'quota_bytes'?\n"
    assert done.stdout == ""
    assert not (tmp_path / "data").exists()
