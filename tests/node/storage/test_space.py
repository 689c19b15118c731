"""Full quota and full disk: refused for a while, never lost, and deleting always works."""

import errno
import random
from math import inf
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.node.storage import Appended, PartitionLog, Storage
from tailrace.node.storage.ballast import LOOK_EVERY_S
from tailrace.node.storage.faults import storage_error
from tailrace.node.storage.space import MEASURED_MS, PAGE_BYTES, Space, stored_bytes
from tailrace.protocol.errors import (
    BatchTooLargeError,
    InvalidConfigError,
    StorageFaultError,
    StorageFullError,
)
from tailrace.protocol.limits import BALLAST_BYTES, GIB, MIB

from ...small_disk import run_on_small_disk
from .support import (
    KEY,
    NOW,
    TOPIC,
    Redirected,
    append,
    batch,
    capacity,
    commit,
    data_descriptors,
    fill,
    one_log,
    open_storage,
)

SCRIPT = Path(__file__).with_name("full_disk.py")


def lmdb_error(code: int) -> lmdb.Error:
    """As LMDB raises it for a failed call of the system."""
    error = lmdb.Error("commit")
    error.code = code  # type: ignore[misc]
    return error


def fill_up(storage: Storage, log: PartitionLog, size: int) -> int:
    """Append batches until one is refused; returns how many were stored."""
    stored = 0
    while True:
        (result,) = commit(storage, log, batch(size=size))
        if not isinstance(result, Appended):
            assert isinstance(result, StorageFullError)
            return stored
        stored += 1


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=40))
@settings(max_examples=30, deadline=None)
def test_the_estimate_is_never_below_the_use(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    storage = open_storage(tmp_path_factory.mktemp("space") / "node-1", ephemeral=True)
    log = one_log(storage)
    made = [batch(size=size) for size in sizes]
    commit(storage, log, *made)
    tree = 4 * PAGE_BYTES
    assert log.live_pages * PAGE_BYTES <= sum(stored_bytes(len(one)) for one in made) + tree
    assert sum(map(len, made)) <= log.live_pages * PAGE_BYTES
    storage.close(clean=True)


def test_a_full_quota_refuses_then_resumes_after_retention(house: Any) -> None:
    storage = house.open(quota_bytes=8 * MIB, reserve_bytes=64 * MIB)
    log = one_log(storage)
    stored = fill_up(storage, log, 50_000)
    assert stored * 50_000 > 5 * MIB
    assert storage.used_bytes <= capacity(storage)
    assert len(storage.read(log, 0, 60_000, log.high_watermark, bytes)) == 1, "reads go on"
    storage = house.reopen(quota_bytes=8 * MIB, reserve_bytes=64 * MIB)
    log = storage.logs[KEY]
    assert fill_up(storage, log, 50_000) == 0
    storage.retain(log, -1, log.size_bytes // 2, NOW)
    assert fill_up(storage, log, 50_000) >= stored // 2 - 3
    assert storage.faulted is None


def test_a_full_quota_resumes_after_a_partition_is_deleted(house: Any) -> None:
    storage = house.open(quota_bytes=8 * MIB)
    log = one_log(storage)
    fill_up(storage, log, 100_000)
    storage.create([(TOPIC, 1)])
    other = storage.logs[TOPIC, 1]
    assert fill_up(storage, other, 100_000) == 0
    while storage.delete_slice(KEY):
        pass
    assert fill_up(storage, other, 100_000) > 40


def test_what_follows_a_refused_batch_is_refused_for_the_same(house: Any) -> None:
    """Not for the gap in the sequence, which would make the producer give up."""
    storage = house.open(quota_bytes=4 * MIB)
    log = one_log(storage)
    large = 3_340_000  # nothing else may be there beside it
    first = batch(producer=1, sequence=0)
    results = commit(
        storage,
        log,
        first,
        batch(size=large, producer=1, sequence=1),
        batch(producer=1, sequence=2),
        batch(size=large, producer=2, sequence=0),
        batch(producer=2, sequence=1),
        batch(producer=3, sequence=0),
        first,
    )
    kinds = [Appended, *[StorageFullError] * 4, Appended, Appended]
    assert [type(result) for result in results] == kinds
    assert commit(storage, log, batch(producer=1, sequence=1)) == [Appended(2, 2, False)]


def test_a_batch_that_never_fits_is_refused_for_good(house: Any) -> None:
    storage = house.open(quota_bytes=4 * MIB)
    log = one_log(storage)
    refused, taken = commit(storage, log, batch(size=4 * MIB), batch())
    assert isinstance(refused, BatchTooLargeError)
    assert "can never be stored within this node's quota" in str(refused)
    assert taken == Appended(0, 0, False)


def test_mixed_sizes_at_the_limit_never_fill_the_map(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fragmentation has its share of the file, so that the space check comes first."""
    quota = 48 * MIB
    storage = house.open(quota_bytes=quota, ephemeral=True)
    logs = [one_log(storage, (TOPIC, number)) for number in range(4)]
    chance = random.Random(1)
    pool = [batch(size=int(300 * 2 ** (place / 8))) for place in range(80)]
    written = refused = 0
    while written < 6 * quota:
        group = [append(chance.choice(logs), chance.choice(pool)) for _ in range(16)]
        results = storage.commit(group)
        written += sum(len(one.batch) for one in group)
        errors = [result for result in results if not isinstance(result, Appended)]
        assert all("no room for a batch" in str(error) for error in errors)
        if errors:
            refused += 1
            while storage.used_bytes > capacity(storage) * 0.95:
                log = max(logs, key=lambda log: log.size_bytes)
                storage.retain(log, -1, log.size_bytes - 2 * MIB, NOW)
    assert refused > 20


def test_reserve_and_ballast_shrink_with_the_quota(tmp_path: Path) -> None:
    assert Space(tmp_path / "data.mdb", 8 * MIB, 64 * MIB).reserve_bytes == MIB
    assert Space(tmp_path / "data.mdb", 8 * GIB, 64 * MIB).reserve_bytes == 64 * MIB
    assert Space(tmp_path / "data.mdb", 8 * GIB, 0).reserve_bytes == 0
    for quota, reserve in ((MIB, 0), (GIB, -1)):
        with pytest.raises(InvalidConfigError):
            Space(tmp_path / "data.mdb", quota, reserve)
    open_storage(tmp_path / "small", quota_bytes=8 * MIB, reserve_bytes=MIB).close(clean=True)
    assert (tmp_path / "small/ballast").stat().st_size == MIB // 4
    open_storage(tmp_path / "large", quota_bytes=8 * GIB, reserve_bytes=64 * MIB).close(clean=True)
    assert (tmp_path / "large/ballast").stat().st_size == BALLAST_BYTES


def test_the_ballast_comes_back(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = house.open()
    ballast = house.folder / "ballast"
    assert storage.ballast.drop()
    assert not ballast.exists()
    assert not storage.ballast.drop()
    with monkeypatch.context() as full:
        full.setattr(storage.space, "disk_free", lambda: MIB)
        storage.ballast.restore(100.0)
    assert storage.ballast.look_at == 100.0 + LOOK_EVERY_S
    storage.ballast.restore(101.0)
    assert not ballast.exists(), "it looks now and then"
    storage.ballast.restore(100.0 + LOOK_EVERY_S)
    assert storage.ballast.look_at == inf
    assert ballast.stat().st_size == MIB // 4


def test_deleting_gives_up_the_ballast(house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    fill(storage, log, 3)
    data, _ = data_descriptors(house.folder)
    with Redirected(data, "/dev/full"):
        (refused,) = commit(storage, log, batch())
        assert isinstance(refused, StorageFullError)
        assert (house.folder / "ballast").exists(), "appends do not touch it"
        with pytest.raises(StorageFullError):
            storage.retain(log, -1, 0, NOW)
        assert not (house.folder / "ballast").exists()
    assert not storage.retain(log, -1, 0, NOW)
    assert log.log_start_offset == 3
    storage.ballast.restore(0.0)
    assert (house.folder / "ballast").exists()


@pytest.mark.parametrize(
    ("error", "free", "kind"),
    [
        (lmdb.MapFullError("mdb_put: MDB_MAP_FULL: please use a larger map_size"), GIB, StorageFullError),
        (lmdb.TxnFullError("put"), GIB, StorageFullError),
        (lmdb_error(errno.ENOSPC), GIB, StorageFullError),
        (lmdb_error(errno.EDQUOT), GIB, StorageFullError),
        (lmdb_error(errno.EIO), 0, StorageFullError),
        (lmdb_error(errno.EIO), GIB, StorageFaultError),
        (lmdb.CorruptedError("put"), 0, StorageFaultError),
        (lmdb.PanicError("begin"), 0, StorageFaultError),
        (lmdb.BadTxnError("put"), 0, StorageFaultError),
    ],
)
def test_a_full_disk_is_no_broken_disk(error: Any, free: int, kind: type[Exception]) -> None:
    told = storage_error(error, "appending", free)
    assert type(told) is kind
    if kind is StorageFullError:
        assert "map_size" not in str(told), "what LMDB advises is for its programmers"


def test_a_real_full_disk(tmp_path: Path) -> None:
    """On a small tmpfs of its own: writes are refused, reads and deleting go on, writing resumes."""
    run_on_small_disk(SCRIPT, tmp_path)


def test_fill_leaves_room_for_everything_else(house: Any) -> None:
    """With the quota full, epochs, partitions and deletion still find pages."""
    storage = house.open(quota_bytes=4 * MIB, reserve_bytes=MIB)
    log = one_log(storage)
    fill_up(storage, log, 3_000)
    fill_up(storage, log, 10)
    for number in range(1, 30):
        storage.create([(TOPIC, number)])
        storage.begin_epochs([(log, number + 1)])
    storage.see_controller_epoch(5)
    while storage.delete_slice(KEY):
        pass
    fill(storage, storage.logs[TOPIC, 1], 10)


def test_the_disk_is_looked_at_again_once_what_was_found_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "data.mdb"
    file.write_bytes(bytes(MIB))
    space = Space(file, 64 * GIB, MIB)
    monkeypatch.setattr(space, "disk_free", lambda: GIB)
    before = space.capacity(NOW)
    monkeypatch.setattr(space, "disk_free", lambda: GIB // 2)
    assert space.capacity(NOW + MEASURED_MS - 1) == before
    assert space.capacity(NOW + MEASURED_MS) < before
    monkeypatch.setattr(space, "disk_free", lambda: GIB)
    assert space.capacity(NOW) == before, "a clock that was put back makes it old"
