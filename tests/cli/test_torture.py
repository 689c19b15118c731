"""`tailrace torture` on a real cluster: it holds, keeps its history, and refuses what it cannot do."""

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tailrace.cli.main import run
from tailrace.torture import isolation
from tailrace.torture.checker import check
from tailrace.torture.history import Begun, Read, Replica, read_history

from .conftest import COMMAND

CONFIG = """
data_dir: elsewhere
coordinator: {listen: "127.0.0.1:7070", session_timeout_ms: 2000}
node_defaults: {quota_bytes: 1GiB}
nodes: [{id: 1}, {id: 2}, {id: 5, listen: "127.0.0.1:7075"}]
"""
NODES = {1, 2, 5}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "cluster.yaml"
    file.write_text(CONFIG)
    return file


def test_a_short_run(config: Path, tmp_path: Path) -> None:
    history, report = tmp_path / "history", tmp_path / "report.html"
    options = ["--duration", "6", "--every", "2", "--faults", "kill", "--seed", "3", "--rate", "500"]
    files = ["--history", str(history), "--report", str(report), "--json"]
    done = subprocess.run(
        [*COMMAND, "torture", str(config), *options, *files], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    assert results["holds"]
    assert results["verdict"]["acked"] == results["verdict"]["read"] > 0
    assert not any(results["verdict"]["violations"].values())
    assert len(results["faults"]) == 3
    events = list(read_history(history / "seed-3"))
    verdict = check(events)
    assert verdict.holds
    assert verdict.acked == results["verdict"]["acked"]
    assert {event.node for event in events if isinstance(event, Replica)} == NODES
    assert {event.consumer for event in events if isinstance(event, Read)} == {0, 1}
    assert sum(isinstance(event, Begun) for event in events) == 3
    page = report.read_text()
    assert page.count("<rect") == 3
    assert "0 lost" in page
    assert not (tmp_path / "elsewhere").exists()


def test_interrupted(config: Path, tmp_path: Path) -> None:
    """The faults end, and what happened up to then is checked."""
    command = [*COMMAND, "torture", str(config), "--duration", "100", "--faults", "kill", "--every", "50"]
    with subprocess.Popen(
        [*command, "--history", str(tmp_path / "history")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "no fault" in line:
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "interrupted, so far it holds" in out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--faults", "kill,flood"], "'flood' is no fault; there are kill, stop, partition, disk-full"),
        (["--duration", "0"], "duration is 0, possible are"),
        (["--duration", "soon"], "Invalid value for '--duration'"),
        (["--every", "90"], "every is 90, possible are 0.1 to 60"),
        (["--rate", "0"], "rate is 0, possible are"),
        (["--producers", "0"], "producers is 0"),
        (["--seeds", "0"], "Invalid value for '--seeds'"),
        (["--report", "/nowhere/report.html"], "there is no folder /nowhere"),
    ],
)
def test_refused_options(
    options: list[str], reason: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["torture", str(config), *options]) == 2
    assert reason in capsys.readouterr().err


def test_a_history_that_is_there_already(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "history" / "seed-1").mkdir(parents=True)
    (tmp_path / "history" / "seed-1" / "cluster.jsonl").touch()
    assert run(["torture", str(config), "--seed", "1", "--history", str(tmp_path / "history")]) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["partition", "disk-full"])
def test_faults_that_cannot_be_made_here(
    kind: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(isolation, "_unshare", lambda _: ["sh", "-c", "echo not permitted >&2; exit 1", "--"])
    assert run(["torture", str(config), "--faults", kind]) == 2
    assert (
        f"{kind}: namespaces cannot be made here, try it as root (not permitted)" in capsys.readouterr().err
    )
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert run(["torture", str(config), "--faults", kind]) == 2
    assert f"{kind}: the command unshare is not here" in capsys.readouterr().err


@pytest.mark.slow
def test_cut_off_and_full(config: Path, tmp_path: Path) -> None:
    """Where namespaces can be made: every kind of fault."""
    reason = isolation.refusal(("partition", "disk-full"))
    if reason is not None:
        pytest.skip(reason)
    options = ["--duration", "6", "--every", "2", "--faults", "partition,disk-full", "--seed", "2"]
    done = subprocess.run(
        [*COMMAND, "torture", str(config), *options, "--rate", "500", "--history", str(tmp_path / "history")],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 duplicated, 0 reordered, 0 unseen, 0 diverged" in done.stdout
