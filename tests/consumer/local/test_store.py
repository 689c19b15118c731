"""The local offset store: what it keeps, who may hold it, and what is left of it after kill -9."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import lmdb
import msgspec
import pytest

from tailrace.consumer.local.partition import FORMAT, Identity, PartitionStore
from tailrace.consumer.local.store import LocalStore
from tailrace.consumer.stored_offset import StoredOffset
from tailrace.protocol.errors import DataFolderError
from tailrace.protocol.record import TopicPartition

ORDERS = TopicPartition("orders", 0)
ID = bytes(range(16))
KEY = (ID, 0)


def folder_of(root: Path, topic_id: bytes = ID, partition: int = 0) -> Path:
    return root / f"{topic_id.hex()}-{partition}"


def test_a_written_offset_is_read_back_by_the_next_holder(tmp_path: Path) -> None:
    first = LocalStore(tmp_path / "offsets", "first")
    assert first.hold(ORDERS, ID) is None
    first.write({KEY: StoredOffset(17, leader_epoch=3, partition_count=4)})
    first.write({KEY: StoredOffset(18, leader_epoch=3, partition_count=4)})
    first.close()
    second = LocalStore(tmp_path / "offsets", "second")
    assert second.hold(ORDERS, ID) == StoredOffset(18, 3, 4)
    second.close()


def test_a_change_that_was_interrupted_as_it_began_is_taken_back(tmp_path: Path) -> None:
    store = PartitionStore(tmp_path / "store", ORDERS, ID, "test")
    left = store.transaction(lambda: StoredOffset(1))
    left.__enter__()  # a signal handler raises before the block's first line: nothing leaves it
    store.write(StoredOffset(2))
    assert store.read() == StoredOffset(2)
    del left  # with the exception's traceback
    store.write(StoredOffset(3))
    assert store.read() == StoredOffset(3)
    store.close()


def test_folders_and_files_are_private(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "deep" / "offsets", "test")
    store.hold(ORDERS, ID)
    paths = [tmp_path / "deep" / "offsets", *(tmp_path / "deep" / "offsets").rglob("*")]
    assert {path.name for path in paths} >= {"data.mdb", "lock.mdb", "held.lock"}
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    store.close()


def test_a_second_holder_is_refused_and_told_who_holds(tmp_path: Path) -> None:
    first = LocalStore(tmp_path, "first consumer")
    first.hold(ORDERS, ID)
    second = LocalStore(tmp_path, "second consumer")
    with pytest.raises(
        DataFolderError, match=rf"orders-0 .*held by process {os.getpid()} \(first consumer\)"
    ):
        second.hold(ORDERS, ID)
    second.hold(TopicPartition("orders", 1), ID)
    first.release(KEY)
    assert second.hold(ORDERS, ID) is None
    first.close()
    second.close()


def test_a_recreated_topic_does_not_get_the_old_offsets(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "test")
    store.hold(ORDERS, ID)
    store.write({KEY: StoredOffset(17)})
    store.release(KEY)
    assert store.hold(ORDERS, bytes(16)) is None
    store.close()


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "test")
    store.hold(ORDERS, ID)
    store.close()
    newer = msgspec.msgpack.encode({"format": FORMAT + 1, "something": "new"})
    put(folder_of(tmp_path), b"identity", newer)
    with pytest.raises(DataFolderError, match=f"format {FORMAT + 1}, this Tailrace knows {FORMAT}"):
        store.hold(ORDERS, ID)
    assert get(folder_of(tmp_path), b"identity") == newer
    store.close()


def test_a_renamed_folder_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "test")
    store.hold(ORDERS, ID)
    store.write({KEY: StoredOffset(1)})
    store.close()
    folder_of(tmp_path).rename(folder_of(tmp_path, partition=5))
    with pytest.raises(DataFolderError, match="belongs to orders-0"):
        store.hold(TopicPartition("orders", 5), ID)
    store.close()


def test_a_damaged_file_is_reported_and_does_not_stay_locked(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "test")
    folder_of(tmp_path).mkdir()
    (folder_of(tmp_path) / "data.mdb").write_bytes(b"not LMDB" * 4096)
    for _ in range(2):
        with pytest.raises(DataFolderError, match="damaged or not one of ours"):
            store.hold(ORDERS, ID)
    store.close()


def test_a_file_that_was_cut_short_is_reported_and_does_not_stay_locked(tmp_path: Path) -> None:
    """LMDB would end the application by SIGBUS."""
    store = LocalStore(tmp_path, "test")
    store.hold(ORDERS, ID)
    store.write({KEY: StoredOffset(1)})
    store.release(KEY)
    data = folder_of(tmp_path) / "data.mdb"
    whole = data.read_bytes()
    os.truncate(data, 2 * 4096 + 1)
    for _ in range(2):
        with pytest.raises(
            DataFolderError, match=r"damaged: data\.mdb was cut short.* Put a copy of it back"
        ):
            store.hold(ORDERS, ID)
    data.write_bytes(whole)
    assert store.hold(ORDERS, ID) == StoredOffset(1)
    store.close()


def test_a_file_in_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "offsets").write_text("a file")
    with pytest.raises(
        DataFolderError, match=r"offset_store folder .*offsets: a file is there, and no folder"
    ):
        LocalStore(tmp_path / "offsets", "test").hold(ORDERS, ID)


def test_the_identity_names_partition_and_machine(tmp_path: Path) -> None:
    partition = PartitionStore(tmp_path / "p", ORDERS, ID, "test")
    partition.write(StoredOffset(1))
    partition.close()
    identity = msgspec.msgpack.decode(get(tmp_path / "p", b"identity"), type=Identity)
    assert (identity.format, identity.topic, identity.topic_id, identity.partition) == (
        FORMAT,
        "orders",
        ID,
        0,
    )
    assert identity.host


CHILD = """
    import os, sys
    from pathlib import Path
    from tailrace.consumer.local.store import LocalStore
    from tailrace.consumer.stored_offset import StoredOffset
    from tailrace.protocol.record import TopicPartition

    store = LocalStore(Path(sys.argv[1]), "child")
    store.hold(TopicPartition("orders", 0), bytes(range(16)))
    for offset in range(1_000_000):
        store.write({(bytes(range(16)), 0): StoredOffset(offset)})
        print(offset, flush=True)
"""


def test_kill_9_loses_nothing_that_was_written_and_frees_the_lock(tmp_path: Path) -> None:
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for _ in range(50):
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
            written = [50 - 1, *map(int, (line for line in child.stdout if line.endswith("\n")))]
        store = LocalStore(tmp_path, "parent")
        stored = store.hold(ORDERS, ID)
        store.close()
        assert stored is not None
        assert written[-1] <= stored.offset <= written[-1] + 1


FORKING = """
    import os, sys
    from pathlib import Path
    from tailrace.consumer.local.store import LocalStore
    from tailrace.protocol.record import TopicPartition

    store = LocalStore(Path(sys.argv[1]), "parent")
    store.hold(TopicPartition("orders", 0), bytes(range(16)))
    if os.fork() == 0:
        print("forked", flush=True)
        sys.stdin.read()
        os._exit(0)
    sys.stdin.close()
    os.kill(os.getpid(), 9)
"""


def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FORKING), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "forked\n"
        assert parent.wait() == -signal.SIGKILL
        store = LocalStore(tmp_path, "next")
        assert store.hold(ORDERS, ID) is None
        store.close()


def put(folder: Path, key: bytes, value: bytes) -> None:
    with lmdb.open(str(folder), max_dbs=8) as environment, environment.begin(write=True) as transaction:
        transaction.put(key, value, db=environment.open_db(b"tailrace", txn=transaction))


def get(folder: Path, key: bytes) -> bytes:
    with lmdb.open(str(folder), max_dbs=8) as environment, environment.begin(write=True) as transaction:
        value = transaction.get(key, db=environment.open_db(b"tailrace", txn=transaction))
    assert value is not None
    return bytes(value)


def test_many_partitions_cost_one_sync_of_the_folder_and_two_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing for a partition without an offset; LMDB's own sync of each write comes on top."""
    store = LocalStore(tmp_path, "test")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for number in range(10):
        assert store.hold(TopicPartition("orders", number), ID) is None
    assert not synced
    for _ in range(2):
        for number in range(10):
            store.write({(ID, number): StoredOffset(number)})
    assert len(synced) == 1 + 10
    store.hold(TopicPartition("orders", 10), ID)
    store.write({(ID, 10): StoredOffset(0)})
    assert len(synced) == 1 + 10 + 2
    store.close()


def test_a_folder_of_another_machine_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "test")
    store.hold(ORDERS, ID)
    store.write({KEY: StoredOffset(1)})
    store.close()
    here = msgspec.msgpack.decode(get(folder_of(tmp_path), b"identity"), type=Identity)
    there = msgspec.structs.replace(here, host="another")
    put(folder_of(tmp_path), b"identity", msgspec.msgpack.encode(there))
    with pytest.raises(DataFolderError, match=r"made on another machine \(another, this is "):
        store.hold(ORDERS, ID)
    store.close()
