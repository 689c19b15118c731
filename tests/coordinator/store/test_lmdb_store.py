"""The store in LMDB: what is committed is loaded, and what it refuses."""

import os
import stat
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pytest

from tailrace.coordinator.private_state import (
    ControllerEpochRaised,
    ProducerEpochRaised,
    ProducerIdIssued,
    StoreOpened,
    TombstoneDropped,
    TopicBuried,
)
from tailrace.coordinator.state import State
from tailrace.coordinator.store.group_store import LmdbGroupStore
from tailrace.coordinator.store.lmdb_store import LmdbStore
from tailrace.protocol.cluster import (
    Change,
    Listener,
    NodeChanged,
    NodeInfo,
    NodeRemoved,
    PartitionChanged,
    PartitionInfo,
    TopicChanged,
    TopicConfig,
    TopicInfo,
    TopicRemoved,
)
from tailrace.protocol.errors import DataFolderError
from tailrace.protocol.limits import COORDINATOR_ROOM_BYTES
from tailrace.protocol.messages import Update


def node(node_id: int, alive: bool = True) -> NodeInfo:
    return NodeInfo(node_id, 5, Listener("tcp://x:1", "ipc://y", "boot"), "storage", alive, "rack")


def topic(letter: bytes, partitions: int) -> TopicInfo:
    return TopicInfo(
        letter * 16,
        letter.decode(),
        TopicConfig(retention_ms=5),
        tuple(PartitionInfo((n, 7), n, n, n, (n,), (7,)) for n in range(partitions)),
    )


def contents(state: State) -> tuple[Any, ...]:
    return (
        state.cluster_id,
        state.cluster.controller_epoch,
        state.cluster.version,
        state.cluster.nodes,
        state.cluster.topics,
        state.openings,
        state.next_producer_id,
        state.producer_epochs,
        list(state.tombstones.items()),
    )


class Pair:
    """A store, and the state that it should hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = LmdbStore(folder)
        self.state = self.store.load()

    def commit(self, *changes: Change, private: Any = ()) -> None:
        update = Update(0, self.state.cluster.version + 1, list(changes))
        self.state.apply(update)
        for change in private:
            self.state.apply_private(change)
        self.store.commit([update], list(private))
        assert contents(self.store.load()) == contents(self.state)

    def reopen(self) -> None:
        self.store.close()
        self.store = LmdbStore(self.folder)
        assert contents(self.store.load()) == contents(self.state)


def test_what_is_committed_is_loaded(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "c")
    assert contents(pair.state)[1:] == (0, 0, {}, {}, (), 0, {}, [])
    assert len(pair.state.cluster_id) == 32
    pair.commit(
        NodeChanged(node(1)),
        NodeChanged(node(2**31 - 1)),
        private=[ControllerEpochRaised(1), StoreOpened((7, 2**63 - 1))],
    )
    pair.commit(TopicChanged(topic(b"b", 300)), TopicChanged(topic(b"a", 2)))
    pair.reopen()
    pair.commit(
        NodeChanged(node(1, alive=False)),
        PartitionChanged(b"b" * 16, 256, PartitionInfo((256, 7), -1, 300, 300, (256,), ())),
        private=[ProducerIdIssued(0), ProducerIdIssued(1), ProducerEpochRaised(0, 1)],
    )
    pair.commit(TopicRemoved(b"b" * 16), private=[TopicBuried(b"b" * 16, 4), ProducerEpochRaised(0, 2)])
    pair.reopen()
    pair.commit(TopicRemoved(b"a" * 16), NodeRemoved(2**31 - 1), private=[TopicBuried(b"a" * 16, 5)])
    pair.reopen()
    pair.commit(TopicChanged(topic(b"c", 1)), private=[TombstoneDropped(b"b" * 16, 4)])
    pair.reopen()
    assert list(pair.state.tombstones) == [b"a" * 16]
    pair.store.close()


def test_tombstones_keep_their_order(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "c")
    for version, letter in enumerate((b"z", b"a", b"m"), 1):
        pair.commit(private=[TopicBuried(letter * 16, version * 100)])
    pair.reopen()
    assert [topic_id[:1] for topic_id in pair.store.load().tombstones] == [b"z", b"a", b"m"]
    pair.store.close()


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "parent" / "c"
    store = LmdbStore(folder)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"lock": 0o600, "data.mdb": 0o600, "lock.mdb": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    store.close()


def test_ordinary_use_needs_no_more_room_than_it_has_taken(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "c")
    file = tmp_path / "c" / "data.mdb"
    for number in range(60):
        pair.store.commit([Update(0, number, [TopicChanged(topic(b"t", 500))])], [])
        pair.store.commit([Update(0, number, [TopicRemoved(b"t" * 16)])], [])
    taken = file.stat()
    assert taken.st_size == COORDINATOR_ROOM_BYTES
    assert taken.st_blocks * 512 >= COORDINATOR_ROOM_BYTES
    pair.store.close()


def test_a_folder_in_use_is_refused_and_its_holder_unharmed(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "c")
    with pytest.raises(DataFolderError, match=rf"in use by another process \({os.getpid()}\)"):
        LmdbStore(tmp_path / "c")
    pair.commit(NodeChanged(node(1)))
    pair.reopen()
    pair.store.close()


def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    LmdbStore(tmp_path / "c").close()
    with lmdb.open(str(tmp_path / "c"), max_dbs=6) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(write=True) as transaction:
            transaction.put(b"format", msgspec.msgpack.encode(2), db=meta)
    before = (tmp_path / "c" / "data.mdb").read_bytes()
    with pytest.raises(DataFolderError, match="has format 2, this version reads up to 1: use a newer"):
        LmdbStore(tmp_path / "c")
    assert (tmp_path / "c" / "data.mdb").read_bytes() == before


@pytest.mark.parametrize("table", [b"something", b"meta"])
def test_an_environment_of_somebody_else_is_refused(tmp_path: Path, table: bytes) -> None:
    with lmdb.open(str(tmp_path), max_dbs=6) as environment:
        environment.open_db(table)
    with pytest.raises(DataFolderError, match="no coordinator's"):
        LmdbStore(tmp_path)


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a database" * 1000)
    for _ in range(2):
        with pytest.raises(DataFolderError, match=r"damaged, or no store of a coordinator's: .* Put the "):
            LmdbStore(tmp_path)


@pytest.mark.parametrize("name", [".", "groups"])
def test_a_store_that_was_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    """LMDB would end the process by SIGBUS."""
    folder = tmp_path / name
    kind = LmdbStore if name == "." else LmdbGroupStore
    kind(folder).close()
    os.truncate(folder / "data.mdb", 2 * 4096 + 1)
    with pytest.raises(DataFolderError, match=r"is damaged, .*: data\.mdb was cut short: .* byte 8193"):
        kind(folder)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataFolderError, match=r"cannot use .*file/c: Not a directory"):
        LmdbStore(tmp_path / "file" / "c")


def test_a_creation_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path), max_dbs=6).close()
    pair = Pair(tmp_path)
    pair.commit(NodeChanged(node(1)))
    pair.reopen()
    pair.store.close()


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        (b"nodes", b"\0\0\0\1", b"\xc1"),
        (b"topics", b"x" * 16, msgspec.msgpack.encode(["without partitions", [1, 2, 3]])),
        (b"meta", b"version", b""),
        (b"partitions", b"a" * 16 + b"\0\0\0\5", b""),
        (b"producers", b"short", b"\1"),
    ],
)
def test_damaged_rows_are_an_error_not_a_guess(
    tmp_path: Path, table: bytes, key: bytes, value: bytes
) -> None:
    LmdbStore(tmp_path).close()
    with lmdb.open(str(tmp_path), max_dbs=6) as environment, environment.begin(write=True) as transaction:
        transaction.put(key, value, db=environment.open_db(table, txn=transaction))
    store = LmdbStore(tmp_path)
    with pytest.raises(DataFolderError, match="is damaged"):
        store.load()
    store.close()


def test_rows_from_before_replicas_moved_and_nodes_were_drained_load(tmp_path: Path) -> None:
    """Fields were added at the end since: what lacks them has their defaults."""
    store = LmdbStore(tmp_path / "c")
    changes: list[Change] = [NodeChanged(node(1)), TopicChanged(topic(b"a", 1))]
    store.commit([Update(0, 1, changes)], [])
    encode = msgspec.msgpack.encode
    short = {
        "nodes": [1, 5, ["tcp://x:1", "ipc://y", "boot"], "storage", True, "rack"],
        "topics": ["a", [5, -1, 1]],
        "partitions": [[0, 7], 0, 0, 0, [0], [7]],
    }
    for table, row in short.items():
        with store._environment.begin(write=True, db=store._tables[table]) as transaction:
            [(key, _)] = list(transaction.cursor())
            transaction.put(key, encode(row))
    state = store.load()
    assert state.cluster.nodes == {1: node(1)}
    assert state.cluster.topics == {b"a" * 16: topic(b"a", 1)}
    store.close()


def test_moves_and_draining_are_stored(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "c")
    draining = msgspec.structs.replace(node(1), draining=True)
    moving = PartitionInfo((1, 2), 1, 3, 4, (1,), (), (2,), (2,))
    changes: list[Change] = [
        NodeChanged(draining), TopicChanged(topic(b"a", 1)), PartitionChanged(b"a" * 16, 0, moving),
    ]  # fmt: skip
    store.commit([Update(0, 1, changes)], [])
    state = store.load()
    assert state.cluster.nodes == {1: draining}
    assert state.cluster.topics[b"a" * 16].partitions == (moving,)
    store.close()
