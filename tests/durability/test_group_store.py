"""Power loss under the store of groups: what was answered is there, and nothing is there by halves."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random, SystemRandom

import pytest

from tailrace.coordinator.groups.state import GroupsState
from tailrace.coordinator.store.group_store import LmdbGroupStore

from . import recording
from .commit_groups import commits
from .power_loss import Disk, crash_points
from .recording import Kind

PROGRAM = Path(__file__).with_name("commit_groups.py")
STATES = int(os.environ.get("TAILRACE_CRASH_STATES", "400"))
SEED = int(os.environ.get("TAILRACE_SEED", "0")) or SystemRandom().randrange(1, 2**31)


def rows(state: GroupsState) -> list[str]:
    return sorted(map(repr, state.rows()))


def findings(folder: Path, states: int, *flags: str) -> list[str]:
    """Record a run, fail the power at `states` places of it, and tell what is wrong with what is left.

    Besides at a quarter of the answers, with nothing left that was not synced: the hardest test of them.
    """
    env = recording.environment(record=folder / "record")
    command = [sys.executable, PROGRAM, folder / "groups", str(SEED), *flags]
    subprocess.run(command, env=env, check=True)
    recorded = list(recording.events(folder / "record"))
    said = [index for index, event in enumerate(recorded) if event.kind is Kind.SEND]
    after = [rows(GroupsState())]
    state = GroupsState()
    for changes in commits(SEED):
        for change in changes:
            state.apply(change)
        after.append(rows(state))
    assert len(said) == len(after) - 1
    choice = Random(SEED)
    points = [(said[0] + at, True) for at in crash_points(recorded[said[0] :], states, choice)]
    todo = sorted(points + [(at, False) for at in choice.sample(said, len(said) // 4)], reverse=True)
    disk, acked, found = Disk(), 0, []
    survivor = folder / "survivor"
    survivor.mkdir(mode=0o700)
    for index, event in enumerate(recorded):
        disk.apply(event)
        acked += event.kind is Kind.SEND
        while todo and todo[-1][0] == index:
            _, kept = todo.pop()
            (survivor / "lock.mdb").unlink(missing_ok=True)
            (survivor / "data.mdb").write_bytes(disk.crash(choice if kept else None))
            problem = look(survivor, after[acked : acked + 2])
            if problem is not None:
                found.append(f"after event {index} ({event.kind.name}, {acked} answered): {problem}")
    return found


def look(folder: Path, allowed: list[list[str]]) -> str | None:
    """Does the store open, as it was after the last answer, or after the commit that followed it?"""
    try:
        store = LmdbGroupStore(folder)
        try:
            left = rows(store.load())
        finally:
            store.close()
    except Exception as error:  # noqa: BLE001 - whatever stops a coordinator from starting is a finding
        return f"does not open: {error!r}"
    return None if left in allowed else "something that was answered is lost, or something is half there"


def test_power_loss_loses_no_answered_offset(tmp_path: Path) -> None:
    found = findings(tmp_path, STATES)
    assert not found, f"seed {SEED}: {len(found)} findings: {found[:5]}"


def test_the_replay_finds_a_store_that_does_not_sync(tmp_path: Path) -> None:
    # Only with nothing left: LMDB may crash on a file of random sectors, which a store that syncs never has.
    found = findings(tmp_path, 0, "--no-sync")
    assert len(found) > 25, f"seed {SEED}: only {found}"


@pytest.fixture(autouse=True)
def needs_the_recorder() -> None:
    recording.shim()
