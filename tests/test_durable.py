"""What is synced when a folder or a small file is made, and who gets a lock."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tailrace import durable
from tailrace.durable import LockFile, LockHeldError, make_folder, write_durably

HOLD = """
import sys
from pathlib import Path
from tailrace.durable import LockFile
lock = LockFile(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""

FORK = """
import os, sys
from pathlib import Path
from tailrace.durable import LockFile
lock = LockFile(Path(sys.argv[1]))
if os.fork():
    os._exit(0)
print("the child is there", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, list[str]]]:
    """What was synced, in order: the path, and for a folder the names in it at that time."""
    calls: list[tuple[Path, list[str]]] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append((path, sorted(inner.name for inner in path.iterdir()) if path.is_dir() else []))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    return calls


def test_each_new_level_is_synced_before_anything_is_made_in_it(
    tmp_path: Path, synced: list[tuple[Path, list[str]]]
) -> None:
    make_folder(tmp_path / "data" / "three-nodes" / "node-1")
    assert synced == [
        (tmp_path.parent, sorted(path.name for path in tmp_path.parent.iterdir())),
        (tmp_path, ["data"]),
        (tmp_path / "data", ["three-nodes"]),
        (tmp_path / "data" / "three-nodes", ["node-1"]),
    ]


def test_a_level_whose_maker_was_killed_is_synced_by_the_next(
    tmp_path: Path, synced: list[tuple[Path, list[str]]]
) -> None:
    (tmp_path / "data").mkdir()
    make_folder(tmp_path / "data" / "node-1")
    assert synced == [(tmp_path, ["data"]), (tmp_path / "data", ["node-1"])]


def test_a_level_that_another_process_makes_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[tuple[Path, list[str]]]
) -> None:
    mkdir = Path.mkdir

    def outrun(path: Path, mode: int = 0o777, *, exist_ok: bool) -> None:
        mkdir(path, mode)
        mkdir(path, mode, exist_ok=exist_ok)

    monkeypatch.setattr(Path, "mkdir", outrun)
    make_folder(tmp_path / "data" / "node-1")
    assert synced[1:] == [(tmp_path, ["data"]), (tmp_path / "data", ["node-1"])]


def test_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[tuple[Path, list[str]]]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(Path("data/node-1"))
    assert [path for path, _ in synced] == [tmp_path.parent, tmp_path, tmp_path / "data"]


def test_a_parent_that_may_not_be_listed_is_left_to_its_maker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync_folder, done = durable.fsync_folder, []

    def guarded(path: Path) -> None:
        if path == tmp_path:
            raise PermissionError(13, "Permission denied", str(path))
        fsync_folder(path)
        done.append(path)

    monkeypatch.setattr(durable, "fsync_folder", guarded)
    (tmp_path / "me").mkdir()
    make_folder(tmp_path / "me" / "data")
    assert done == [tmp_path / "me"]
    with pytest.raises(PermissionError):
        make_folder(tmp_path / "data")


def test_a_folder_that_is_there_is_left_as_it_is(
    tmp_path: Path, synced: list[tuple[Path, list[str]]]
) -> None:
    tmp_path.chmod(0o755)
    make_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert not synced


def test_a_new_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        make_folder(tmp_path / "data" / "node-1")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "data" / "node-1").stat().st_mode) == 0o700


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "file" / "node-1")


def test_a_file_is_synced_under_another_name_and_then_its_folder(
    tmp_path: Path, synced: list[tuple[Path, list[str]]]
) -> None:
    target = tmp_path / "format"
    target.write_bytes(b"before")
    (tmp_path / "format.new").write_bytes(b"a longer draft of a process that was killed")
    write_durably(target, b"after")
    assert synced == [(tmp_path / "format.new", []), (tmp_path, ["format"])]
    assert target.read_bytes() == b"after"
    assert stat.S_IMODE(target.stat().st_mode) in (0o600, 0o644), "a draft that was there keeps its mode"


def test_a_lock_is_refused_while_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = LockFile(path, "a holder with a long name")
    with pytest.raises(LockHeldError, match="held by a holder with a long name") as refused:
        LockFile(path)
    assert refused.value.holder == "a holder with a long name"
    first.release()
    second = LockFile(path)
    with pytest.raises(LockHeldError) as refused:
        LockFile(path)
    assert refused.value.holder == str(os.getpid()), "nothing is left of a longer text"
    first.release()
    with pytest.raises(LockHeldError):
        LockFile(path)
    second.release()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockHeldError) as refused:
            LockFile(path)
        assert refused.value.holder == str(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        LockFile(path).release()


def test_a_forked_child_does_not_keep_what_its_parent_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", FORK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "the child is there\n"
        parent.wait()
        LockFile(path).release()
