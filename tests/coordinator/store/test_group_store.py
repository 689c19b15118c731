"""The store of groups: what is committed is loaded, whatever happened to the process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailrace.coordinator.groups.changes import (
    ConsumerGroup,
    GroupChange,
    GroupChanged,
    GroupRemoved,
    MemberChanged,
    MemberRemoved,
    MemberRow,
    OffsetDropped,
    OffsetStored,
)
from tailrace.coordinator.groups.state import GroupsState
from tailrace.coordinator.store.group_store import GroupStore
from tailrace.protocol.errors import DataFolderError, StorageFaultError
from tailrace.protocol.group_messages import CommittedOffset

TOPICS = [bytes([number]) * 16 for number in range(3)]


def offset(group_id: str, topic: int, partition: int, value: int) -> OffsetStored:
    return OffsetStored(group_id, CommittedOffset(TOPICS[topic], partition, value, 1, "note", 5, 4))


def member(group_id: str, member_id: str, *partitions: int) -> MemberChanged:
    grants = tuple((TOPICS[0], partition, 3) for partition in partitions)
    return MemberChanged(group_id, MemberRow(member_id, "", "c", "h", ("t",), "uniform", 6_000, 3, grants))


def rows(state: GroupsState) -> list[str]:
    return sorted(map(repr, state.rows()))


@st.composite
def histories(draw: st.DrawFn) -> list[list[GroupChange]]:
    """Commits of changes that can follow each other; groups whose ids begin alike."""
    state, commits = GroupsState(), []
    for _ in range(draw(st.integers(1, 6))):
        commit: list[GroupChange] = []
        for _ in range(draw(st.integers(1, 6))):
            change = draw(st.sampled_from(list(possible(draw, state))))
            state.apply(change)
            commit.append(change)
        commits.append(commit)
    return commits


def possible(draw: st.DrawFn, state: GroupsState) -> Iterator[GroupChange]:
    for group_id in ("g", "g1", "g.1"):
        yield GroupChanged(group_id, ConsumerGroup(draw(st.integers(0, 9)), draw(st.integers(-1, 9))))
        group = state.groups.get(group_id)
        if group is None:
            continue
        yield GroupRemoved(group_id)
        yield offset(group_id, draw(st.integers(0, 2)), draw(st.integers(0, 3)), draw(st.integers(0, 2**62)))
        free = [partition for partition in range(4) if (TOPICS[0], partition) not in group.owners]
        for member_id in ("m", "m2"):
            held = [p for (_, p), owner in group.owners.items() if owner == member_id]
            yield member(group_id, member_id, *draw(st.sampled_from([(), tuple(free), tuple(held)])))
            if member_id in group.members:
                yield MemberRemoved(group_id, member_id)
        for topic_id, partition in group.offsets:
            yield OffsetDropped(group_id, topic_id, partition)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(commits=histories())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, commits: list[list[GroupChange]]) -> None:
    folder = tmp_path_factory.mktemp("store") / "groups"
    expected = GroupsState()
    for commit in commits:
        store = GroupStore(folder)
        assert rows(store.load()) == rows(expected)
        store.commit(commit)
        store.close()
        for change in commit:
            expected.apply(change)
    store = GroupStore(folder)
    assert rows(store.load()) == rows(expected)
    store.close()


KILLED = """
import sys
from pathlib import Path
from tailrace.coordinator.groups.changes import ConsumerGroup, GroupChanged, OffsetStored
from tailrace.coordinator.store.group_store import GroupStore
from tailrace.protocol.group_messages import CommittedOffset
store = GroupStore(Path(sys.argv[1]))
store.commit([GroupChanged("g", ConsumerGroup())])
for number in range(1_000_000):
    store.commit([OffsetStored("g", CommittedOffset(b"t" * 16, 0, number, 0, "", 0, 1))])
    print(number, flush=True)
"""


def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "groups")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 20:
                process.send_signal(signal.SIGKILL)
                break
        said = [20, *map(int, process.stdout)]
    store = GroupStore(tmp_path / "groups")
    (stored,) = store.load().groups["g"].offsets.values()
    assert stored.offset >= said[-1]
    store.close()


def test_modes(tmp_path: Path) -> None:
    GroupStore(tmp_path / "groups").close()
    assert (tmp_path / "groups").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "groups" / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    GroupStore(tmp_path).close()
    with lmdb.open(str(tmp_path), max_dbs=4) as environment, environment.begin(write=True) as transaction:
        meta = environment.open_db(b"meta", txn=transaction)
        transaction.put(b"format", msgspec.msgpack.encode(99), db=meta)
    with pytest.raises(DataFolderError, match="has format 99"):
        GroupStore(tmp_path)


@pytest.mark.parametrize("table", [b"groups", b"members", b"offsets"])
def test_damaged_rows_are_refused(tmp_path: Path, table: bytes) -> None:
    store = GroupStore(tmp_path)
    store.commit([GroupChanged("g", ConsumerGroup()), member("g", "m", 1), offset("g", 0, 1, 2)])
    store.close()
    with lmdb.open(str(tmp_path), max_dbs=4) as environment, environment.begin(write=True) as transaction:
        database = environment.open_db(table, txn=transaction)
        cursor = transaction.cursor(database)
        assert cursor.first()
        cursor.put(cursor.key(), b"\xc1")
    store = GroupStore(tmp_path)
    with pytest.raises(DataFolderError, match="damaged"):
        store.load()
    store.close()


def test_no_store_of_ours(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(os.urandom(8192))
    with pytest.raises(DataFolderError, match="damaged or cannot be used"):
        GroupStore(tmp_path)


def test_a_failed_commit_is_a_fault(tmp_path: Path) -> None:
    store = GroupStore(tmp_path)
    store.commit([GroupChanged("g", ConsumerGroup())])
    store.close()
    with pytest.raises(StorageFaultError, match="may or may not be stored"):
        store.commit([GroupChanged("g", ConsumerGroup(1))])
