"""Power loss under a follower: each copy, truncation and new start is there as a whole, or not at all."""

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from random import Random, SystemRandom

import pytest

from tailrace.node.storage import Storage
from tailrace.protocol.limits import MIB

from . import recording
from .power_loss import Disk, crash_points
from .recording import Kind
from .replicate import QUOTA_BYTES, Life

PROGRAM = Path(__file__).with_name("replicate.py")
STATES = int(os.environ.get("TAILRACE_CRASH_STATES", "200"))
SEED = int(os.environ.get("TAILRACE_SEED", "0")) or SystemRandom().randrange(1, 2**31)


def open_storage(folder: Path, *, ephemeral: bool = False) -> Storage:
    return Storage.open(folder, quota_bytes=QUOTA_BYTES, reserve_bytes=MIB, ephemeral=ephemeral)


def contents(storage: Storage) -> str:
    """All that is stored of partitions, condensed."""
    tables, digest = storage._tables, sha256()
    shared = (tables.partitions, tables.time_index, tables.epochs, tables.producers)
    logs = [log.database for log in storage.logs.values()]
    with tables.environment.begin(buffers=True) as transaction:
        for database in (*shared, *logs):
            for key, value in transaction.cursor(db=database):
                digest.update(b"%d %d" % (len(key), len(value)))
                digest.update(key)
                digest.update(value)
            digest.update(b"|")
    return digest.hexdigest()


def expected(folder: Path) -> list[str]:
    """What is stored after each transaction of the same life on a disk that works, and after a clean stop."""
    storage = open_storage(folder, ephemeral=True)
    after = [contents(storage) for _ in Life(storage, SEED).steps()]
    storage.close(clean=True)
    storage = open_storage(folder, ephemeral=True)
    after.append(contents(storage))
    storage.close(clean=True)
    return after


def findings(folder: Path, states: int, *flags: str) -> list[str]:
    """Record a run, fail the power at `states` places of it, and tell what is wrong with what is left.

    Besides at a tenth of the answers, with nothing left that was not synced: the hardest test of them.
    """
    env = recording.environment(record=folder / "record")
    command = [sys.executable, PROGRAM, folder / "node", str(SEED), *flags]
    subprocess.run(command, env=env, check=True)
    recorded = list(recording.events(folder / "record"))
    said = [index for index, event in enumerate(recorded) if event.kind is Kind.SEND]
    after = expected(folder / "expected")
    assert len(said) == len(after) - 1
    choice = Random(SEED)
    points = [(said[0] + at, True) for at in crash_points(recorded[said[0] :], states, choice)]
    todo = sorted(points + [(at, False) for at in choice.sample(said, len(said) // 10)], reverse=True)
    survivor = folder / "survivor"
    survivor.mkdir(mode=0o700)
    shutil.copy(folder / "node/format", survivor / "format")
    disk, acked, found = Disk(), 0, []
    for index, event in enumerate(recorded):
        disk.apply(event)
        acked += event.kind is Kind.SEND
        while todo and todo[-1][0] == index:
            _, kept = todo.pop()
            (survivor / "lock.mdb").unlink(missing_ok=True)
            (survivor / "data.mdb").write_bytes(disk.crash(choice if kept else None))
            problem = look(survivor, after[acked - 1 : acked + 1])
            if problem is not None:
                found.append(f"after event {index} ({event.kind.name}, {acked} answered): {problem}")
    return found


def look(folder: Path, allowed: list[str]) -> str | None:
    """Does it open, as it was after the last answer, or after the transaction that followed it?"""
    try:
        storage = open_storage(folder)
        try:
            problems = storage.verify().problems
            left = contents(storage)
        finally:
            storage.close(clean=False)
    except Exception as error:  # noqa: BLE001 - whatever stops a node from starting is a finding
        return f"does not open: {error!r}"
    if problems:
        return problems[0]
    return None if left in allowed else "something that was answered is lost, or something is half there"


def test_power_loss_leaves_a_follower_whole(tmp_path: Path) -> None:
    found = findings(tmp_path, STATES)
    assert not found, f"seed {SEED}: {len(found)} findings: {found[:5]}"


def test_the_replay_finds_a_follower_that_does_not_sync(tmp_path: Path) -> None:
    # Only with nothing left: LMDB may crash on a file of random sectors, which a node that syncs never has.
    found = findings(tmp_path, 0, "--no-sync")
    assert len(found) > 15, f"seed {SEED}: only {found}"


@pytest.fixture(autouse=True)
def needs_the_recorder() -> None:
    recording.shim()
