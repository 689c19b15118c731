"""The store of groups: what is committed is loaded, whatever happened to the process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import lmdb
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

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
from tailrace.coordinator.store import group_store
from tailrace.coordinator.store.group_store import LmdbGroupStore
from tailrace.coordinator.store.lmdb_store import LmdbStore
from tailrace.protocol.errors import DataFolderError, StorageFaultError
from tailrace.protocol.group_messages import CommittedOffset
from tailrace.protocol.limits import (
    COORDINATOR_ROOM_BYTES,
    GROUP_STORE_MAP_BYTES,
    GROUP_STORE_ROWS_BYTES_MAX,
    MIB,
)

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
        store = LmdbGroupStore(folder)
        assert rows(store.load()) == rows(expected)
        store.commit(commit)
        store.close()
        for change in commit:
            expected.apply(change)
    store = LmdbGroupStore(folder)
    assert rows(store.load()) == rows(expected)
    store.close()


KILLED = """
import sys
from pathlib import Path
from tailrace.coordinator.groups.changes import ConsumerGroup, GroupChanged, OffsetStored
from tailrace.coordinator.store.group_store import LmdbGroupStore
from tailrace.protocol.group_messages import CommittedOffset
store = LmdbGroupStore(Path(sys.argv[1]))
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
    store = LmdbGroupStore(tmp_path / "groups")
    (stored,) = store.load().groups["g"].offsets.values()
    assert stored.offset >= said[-1]
    store.close()


def test_modes(tmp_path: Path) -> None:
    LmdbGroupStore(tmp_path / "groups").close()
    assert (tmp_path / "groups").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "groups" / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    LmdbGroupStore(tmp_path).close()
    with lmdb.open(str(tmp_path), max_dbs=4) as environment, environment.begin(write=True) as transaction:
        meta = environment.open_db(b"meta", txn=transaction)
        transaction.put(b"format", msgspec.msgpack.encode(99), db=meta)
    with pytest.raises(DataFolderError, match="has format 99"):
        LmdbGroupStore(tmp_path)


@pytest.mark.parametrize("table", [b"groups", b"members", b"offsets"])
def test_damaged_rows_are_refused(tmp_path: Path, table: bytes) -> None:
    store = LmdbGroupStore(tmp_path)
    store.commit([GroupChanged("g", ConsumerGroup()), member("g", "m", 1), offset("g", 0, 1, 2)])
    store.close()
    with lmdb.open(str(tmp_path), max_dbs=4) as environment, environment.begin(write=True) as transaction:
        database = environment.open_db(table, txn=transaction)
        cursor = transaction.cursor(database)
        assert cursor.first()
        cursor.put(cursor.key(), b"\xc1")
    store = LmdbGroupStore(tmp_path)
    with pytest.raises(DataFolderError, match="damaged"):
        store.load()
    store.close()


def test_no_store_of_ours(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(os.urandom(8192))
    with pytest.raises(DataFolderError, match="damaged, or no store of a coordinator's: "):
        LmdbGroupStore(tmp_path)


def test_a_failed_commit_is_a_fault(tmp_path: Path) -> None:
    store = LmdbGroupStore(tmp_path)
    store.commit([GroupChanged("g", ConsumerGroup())])
    store.close()
    with pytest.raises(StorageFaultError, match="may or may not be stored"):
        store.commit([GroupChanged("g", ConsumerGroup(1))])


def test_room_is_taken_at_once(tmp_path: Path) -> None:
    LmdbGroupStore(tmp_path / "groups").close()
    taken = (tmp_path / "groups" / "data.mdb").stat()
    assert taken.st_size == COORDINATOR_ROOM_BYTES
    assert taken.st_blocks * 512 >= COORDINATOR_ROOM_BYTES


INTERRUPTED = """
import os, sys
from pathlib import Path
from tailrace.coordinator.store import group_store, lmdb_store

class Killed:
    def __call__(self, *_):
        os._exit(9)

group_store._encode = lmdb_store.first_rows = Killed()
kind = {"groups": group_store.LmdbGroupStore, "cluster": lmdb_store.LmdbStore}[sys.argv[2]]
kind(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("name", ["groups", "cluster"])
def test_a_store_whose_making_was_interrupted_is_made_anew(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / name), name]
    assert subprocess.run(command, check=False).returncode == 9
    assert (tmp_path / name / "data.mdb").exists()
    store = LmdbGroupStore(tmp_path / name) if name == "groups" else LmdbStore(tmp_path / name)
    store.load()
    store.close()


def test_a_store_as_full_as_it_may_be_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the share of the map that rows may take: all of it can be changed, and deleted, in one commit."""
    monkeypatch.setattr(group_store, "GROUP_STORE_MAP_BYTES", 8 * MIB)
    bound = 8 * MIB * GROUP_STORE_ROWS_BYTES_MAX // GROUP_STORE_MAP_BYTES
    random = Random(3)
    store, state = LmdbGroupStore(tmp_path), GroupsState()

    def commit(*changes: GroupChange) -> None:
        store.commit(changes)
        for change in changes:
            state.apply(change)

    group_ids = [f"group-{number}" for number in range(20)]
    commit(*(GroupChanged(group_id, ConsumerGroup()) for group_id in group_ids))
    while state.stored_bytes < bound:
        group_id, topic_id = random.choice(group_ids), random.randbytes(16)
        metadata = "é" * random.randrange(1_000)
        some = [CommittedOffset(topic_id, number, 1, 1, metadata, 5, 4) for number in range(20)]
        commit(*(OffsetStored(group_id, each) for each in some))
    for value in range(5):
        commit(*(
            OffsetStored(group_id, structs.replace(offset, offset=value))
            for group_id, group in state.groups.items()
            for offset in list(group.offsets.values())
        ))  # fmt: skip
    stored = [(group_id, key) for group_id, group in state.groups.items() for key in group.offsets]
    commit(*(OffsetDropped(group_id, *key) for group_id, key in stored))
    assert rows(store.load()) == rows(state)
    assert state.stored_bytes == 0
    store.close()
