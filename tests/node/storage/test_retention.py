"""What is deleted from the head of a log, when, and in what portions."""

from typing import Any

import pytest

from tailrace.node.storage import Storage, retention
from tailrace.protocol.errors import CorruptBatchError, OffsetOutOfRangeError, StorageFullError

from .support import KEY, NOW, bases, batch, commit, fill, one_log


def test_by_time_a_batch_goes_with_its_newest_record(storage: Storage) -> None:
    log = one_log(storage)
    commit(storage, log, batch(2, timestamps=[NOW - 100, NOW - 50]), batch(1, timestamps=NOW - 80), batch(1))
    assert not storage.retain(log, 50, -1, NOW)
    assert log.log_start_offset == 0, "exactly retention_ms old is not too old"
    assert not storage.retain(log, 49, -1, NOW)
    assert log.log_start_offset == 3
    assert bases(storage.read(log, 3, 10_000, 4, bytes)) == [3]
    with pytest.raises(OffsetOutOfRangeError, match="holds 3 to 4"):
        storage.read(log, 2, 10_000, 4, bytes)


def test_by_time_only_the_head_goes(storage: Storage) -> None:
    log = one_log(storage)
    commit(storage, log, batch(timestamps=NOW), batch(timestamps=NOW - 1_000))
    storage.retain(log, 10, -1, NOW)
    assert log.log_start_offset == 0


def test_by_bytes_at_least_as_many_remain(storage: Storage) -> None:
    log = one_log(storage)
    made = [batch(size=size) for size in (10, 500, 20, 30)]
    commit(storage, log, *made)
    sizes = [len(one) for one in made]
    storage.retain(log, -1, sum(sizes[1:]) + 1, NOW)
    assert log.log_start_offset == 0
    storage.retain(log, -1, sum(sizes[1:]), NOW)
    assert (log.log_start_offset, log.size_bytes) == (1, sum(sizes[1:]))
    storage.retain(log, -1, sum(sizes[2:]) + 1, NOW)
    assert log.log_start_offset == 1
    storage.retain(log, -1, 0, NOW)
    assert (log.log_start_offset, log.size_bytes, log.live_pages) == (4, 0, 0)


def test_no_bound_deletes_nothing(storage: Storage) -> None:
    log = one_log(storage)
    fill(storage, log, 3, timestamps=0)
    assert not storage.retain(log, -1, -1, NOW)
    assert log.log_start_offset == 0


def test_nothing_at_or_above_the_high_watermark_goes(storage: Storage) -> None:
    log = one_log(storage)
    log.sole_replica = False
    fill(storage, log, 4)
    assert log.high_watermark == 0, "raised by the node"
    storage.retain(log, 0, 0, NOW + 10_000)
    assert log.log_start_offset == 0
    log.high_watermark = 3
    storage.retain(log, 0, 0, NOW + 10_000)
    assert log.log_start_offset == 3


def test_slices_are_bounded_by_batches(storage: Storage) -> None:
    log = one_log(storage)
    fill(storage, log, retention.SLICE_BATCHES * 2 + 1)
    assert storage.retain(log, -1, 0, NOW)
    assert log.log_start_offset == retention.SLICE_BATCHES
    assert storage.retain(log, -1, 0, NOW)
    assert not storage.retain(log, -1, 0, NOW)
    assert log.log_start_offset == log.log_end_offset


def test_slices_are_bounded_by_bytes(storage: Storage) -> None:
    log = one_log(storage)
    fill(storage, log, 5, size=retention.SLICE_BYTES // 4)
    assert storage.retain(log, -1, 0, NOW)
    assert log.log_start_offset == 3
    assert not storage.retain(log, -1, 0, NOW)


def test_it_lasts_and_offsets_go_on(house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    fill(storage, log, 3, records=2)
    storage.retain(log, -1, 0, NOW)
    storage = house.reopen(clean=False)
    log = storage.logs[KEY]
    assert (log.log_start_offset, log.log_end_offset, log.high_watermark, log.hot_offset) == (6, 6, 6, 6)
    fill(storage, log, 1)
    assert bases(storage.read(log, 6, 10_000, 7, bytes)) == [6]


def test_freed_space_is_counted(storage: Storage) -> None:
    log = one_log(storage)
    empty = storage.used_bytes
    fill(storage, log, 20, size=50_000)
    full = storage.used_bytes
    assert full - empty >= 20 * 50_000
    storage.retain(log, -1, 0, NOW)
    assert storage.used_bytes - empty <= 4 * 4_096


def test_a_head_that_cannot_be_read_is_not_deleted(house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    fill(storage, log, 1)
    tables = storage._tables
    with tables.environment.begin(write=True) as transaction:
        good = transaction.get(b"\0" * 8, db=log.database)
        transaction.put(b"\0" * 8, good + b"x", db=log.database)
    with pytest.raises(CorruptBatchError, match="offset 0"):
        storage.retain(log, 0, 0, NOW + 10)
    problems = storage.verify().problems
    with tables.environment.begin(write=True) as transaction:
        transaction.put(b"\0" * 8, good, db=log.database)
    assert len(problems) == 2
    assert "offset 0: 113 bytes that say 100 + 12" in problems[0]
    assert "size" in problems[1]


def test_what_there_was_no_room_to_delete_goes_later(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = one_log(storage)
    commit(storage, log, batch(timestamps=NOW - 1_000), batch(timestamps=NOW, size=500))

    def full(*_: object) -> None:
        raise StorageFullError("no room even to delete")

    with monkeypatch.context() as patch:
        patch.setattr(retention, "cut_off", full)
        with pytest.raises(StorageFullError):
            storage.retain(log, 10, -1, NOW)
    assert log.log_start_offset == 0
    storage.retain(log, 10, -1, NOW)
    assert log.log_start_offset == 1
