"""`tailrace verify` on folders that were written without a node."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace.cli.main import run
from tailrace.node.storage import verify as verifying
from tailrace.node.storage.environment import Storage
from tailrace.node.storage.log_plan import Append
from tailrace.protocol.batch import parse_header
from tailrace.protocol.columns import encode

from ..patience import PATIENCE_S

KEY = (b"t" * 16, 0)
NOW = 1_700_000_000_000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Run:
    def command(*args: str | Path) -> tuple[int, str, str]:
        code = run(["verify", *map(str, args)])
        return (code, *capfd.readouterr())

    return command


def write(folder: Path) -> None:
    storage = Storage.open(folder, quota_bytes=64 << 20, reserve_bytes=1 << 20)
    storage.create([KEY])
    batch = memoryview(bytearray(encode([b"the first", b"the last"], timestamps=NOW)))
    storage.commit([Append(storage.logs[KEY], batch, parse_header(batch), NOW)])
    storage.close(clean=True)


def damage(folder: Path, what: bytes) -> None:
    data = (folder / "data.mdb").read_bytes()
    assert what in data
    (folder / "data.mdb").write_bytes(data.replace(what, b"x" * len(what)))


def test_a_cluster_at_rest(tmp_path: Path, command: Run) -> None:
    for number in (1, 2):
        write(tmp_path / f"node-{number}")
    code, out, err = command(tmp_path)
    assert (code, err) == (0, "")
    well = "all is well in 1 partition, 1 batches, 2 records"
    assert [line.split(", 1")[0] for line in out.splitlines()] == [
        f"{tmp_path}/node-1: all is well in 1 partition", f"{tmp_path}/node-2: all is well in 1 partition",
    ]  # fmt: skip
    assert out.count(well) == 2


def test_what_is_wrong_is_told(tmp_path: Path, command: Run) -> None:
    write(tmp_path / "node-1")
    damage(tmp_path / "node-1", b"the last")
    code, out, _ = command(tmp_path / "node-1")
    assert code == 1
    assert "offset 1: " in out
    assert "1 problem in 1 partition" in out
    code, out, _ = command(tmp_path / "node-1", "--json")
    told = json.loads(out)
    assert code == 1
    assert (told["ok"], told["problem_count"], told["records"]) == (False, 1, 0)
    assert told["folder"] == str(tmp_path / "node-1")


def test_a_file_that_was_cut_short_does_not_end_the_command(tmp_path: Path) -> None:
    """By SIGBUS, as LMDB would read what is behind the end: so in a process of its own."""
    write(tmp_path)
    data = tmp_path / "data.mdb"
    size = data.stat().st_size // 2
    os.truncate(data, size)
    command = [sys.executable, "-m", "tailrace", "verify", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    told = (
        f"data folder {tmp_path} is damaged: data.mdb was cut short: pages that are in use lie behind its end"
    )
    assert (done.returncode, told in done.stderr) == (1, True), done
    assert data.stat().st_size == size


@pytest.mark.parametrize("left", ["missing", "empty"])
def test_data_that_is_missing_is_told_as_the_node_does(tmp_path: Path, command: Run, left: str) -> None:
    write(tmp_path)
    data = tmp_path / "data.mdb"
    data.unlink()
    if left == "empty":
        data.touch()
    code, _, err = command(tmp_path)
    assert code == 1
    assert f"{data} is missing or empty; put it back as it was last" in err


def test_what_cannot_be_walked_does_not_hide_the_others(tmp_path: Path, command: Run) -> None:
    for number in (1, 2):
        write(tmp_path / f"node-{number}")
    damage(tmp_path / "node-1", b"time_index")
    code, out, err = command(tmp_path)
    assert code == 1
    assert f"Error: data folder {tmp_path}/node-1 is damaged: " in err
    assert "node-2: all is well" in out
    told = json.loads(command(tmp_path / "node-1", "--json")[1])
    assert (told["ok"], "is damaged" in told["error"]) == (False, True)


def test_a_folder_of_something_else(tmp_path: Path, command: Run) -> None:
    code, _, err = command(tmp_path)
    assert (code, err) == (1, f"Error: {tmp_path} is not the data folder of a node\n")
    assert command(tmp_path / "nothing")[0] == 2


def test_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "node-1")
    monkeypatch.setattr(verifying, "TELL_EVERY_BYTES", 1)
    told: list[tuple[int, int]] = []
    report = verifying.verify_folder(tmp_path / "node-1", lambda done, total: told.append((done, total)))
    assert told == [(0, report.size_bytes), (report.size_bytes, report.size_bytes)]
