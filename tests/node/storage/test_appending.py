"""Group commits: offsets, isolation of what fails, and nothing visible that is not stored."""

import errno
from pathlib import Path
from typing import Any

import lmdb
import pytest

from tailrace.node.storage import Append, Appended, Storage
from tailrace.node.storage.planner import Plan
from tailrace.node.storage.writing import PlanWriter
from tailrace.protocol.batch import check_crc, parse_header
from tailrace.protocol.errors import (
    CorruptBatchError,
    InvalidRecordError,
    InvalidTimestampError,
    OutOfOrderSequenceError,
    StorageFaultError,
    StorageFullError,
    UnknownPartitionError,
    UnknownProducerIdError,
)
from tailrace.protocol.limits import TIMESTAMP_AHEAD_MS_MAX

from .support import (
    KEY,
    NOW,
    TOPIC,
    Redirected,
    append,
    bases,
    batch,
    capacity,
    commit,
    data_descriptors,
    fill,
    one_log,
)

OTHER = (TOPIC, 1)


def test_a_group_gets_offsets_in_order(storage: Storage) -> None:
    log, other = one_log(storage), one_log(storage, OTHER)
    results = storage.commit(
        [append(log, batch(3)), append(other, batch(2)), append(log, batch(1)), append(other, batch(5))]
    )
    assert results == [
        Appended(0, 2, duplicate=False),
        Appended(0, 1, duplicate=False),
        Appended(3, 3, duplicate=False),
        Appended(2, 6, duplicate=False),
    ]
    assert (log.log_end_offset, log.high_watermark, other.log_end_offset) == (4, 4, 7)


def test_batches_are_stamped_and_otherwise_stored_as_they_came(storage: Storage) -> None:
    log = one_log(storage)
    fill(storage, log, 2, records=5)
    storage.begin_epochs([(log, 7)])
    sent = batch(3, size=5_000)
    commit(storage, log, sent)
    (stored,) = storage.read(log, 10, 1, 13, bytes)
    header = parse_header(stored)
    check_crc(stored, header)
    assert (header.base_offset, header.leader_epoch) == (10, 7)
    assert stored[16:] == sent[16:]


def test_a_bad_batch_fails_alone(storage: Storage) -> None:
    log = one_log(storage)
    broken = bytearray(batch(2))
    broken[-1] ^= 1
    ahead = NOW + TIMESTAMP_AHEAD_MS_MAX
    results = commit(
        storage,
        log,
        batch(2),
        bytes(broken),
        batch(timestamps=ahead),
        batch(timestamps=ahead + 1),
        batch(timestamps=-1),
        batch(producer=9, sequence=4),
        batch(1),
    )
    wrong = (CorruptBatchError, InvalidTimestampError, InvalidTimestampError, UnknownProducerIdError)
    good = [result for result in results if isinstance(result, Appended)]
    assert [result.base_offset for result in good] == [0, 2, 3]
    assert [type(result) for result in results if not isinstance(result, Appended)] == list(wrong)


@pytest.mark.parametrize(
    ("timestamp", "asked"), [(NOW + 3_700_000, "is its clock right"), (NOW * 1_000, "are they milliseconds")]
)
def test_a_time_ahead_names_the_clock_that_it_is_ahead_of(
    storage: Storage, timestamp: int, asked: str
) -> None:
    (result,) = commit(storage, one_log(storage), batch(timestamps=timestamp))
    assert isinstance(result, InvalidTimestampError)
    assert f"{timestamp - NOW} ms ahead of the node's clock, {NOW}: " in str(result)
    assert asked in str(result)


def test_headers_that_contradict_themselves(storage: Storage) -> None:
    log = one_log(storage)
    made = append(log, batch(2))
    gap = made._replace(header=made.header._replace(last_offset_delta=5))
    transactional = made._replace(header=made.header._replace(attributes=0x10))
    results = storage.commit([gap, transactional])
    assert [type(result) for result in results] == [CorruptBatchError, InvalidRecordError]
    assert log.log_end_offset == 0


def test_a_retry_in_the_same_group_is_a_duplicate(storage: Storage) -> None:
    log = one_log(storage)
    first, second = batch(2, producer=5, sequence=0), batch(3, producer=5, sequence=2)
    results = commit(storage, log, first, second, first, batch(1, producer=5, sequence=7), second)
    assert results[:3] == [Appended(0, 1, False), Appended(2, 4, False), Appended(0, 1, True)]
    assert isinstance(results[3], OutOfOrderSequenceError)
    assert results[4] == Appended(2, 4, True)
    assert commit(storage, log, second) == [Appended(2, 4, True)]


def test_dedupe_is_per_partition_and_survives_restarts(house: Any) -> None:
    storage = house.open()
    log, other = one_log(storage), one_log(storage, OTHER)
    sent = [batch(1, producer=5, sequence=number) for number in range(70)]
    commit(storage, log, *sent)
    commit(storage, other, batch(1, producer=5, sequence=0))
    storage = house.reopen(clean=False)
    results = commit(storage, storage.logs[KEY], *sent[6:], batch(1, producer=5, sequence=70))
    assert results == [*(Appended(number, number, True) for number in range(6, 70)), Appended(70, 70, False)]
    (too_old,) = commit(storage, storage.logs[KEY], sent[5])
    assert isinstance(too_old, OutOfOrderSequenceError)
    assert commit(storage, storage.logs[OTHER], batch(1, producer=5, sequence=1)) == [Appended(1, 1, False)]


def test_a_log_that_is_not_where_memory_says_fails_alone(storage: Storage) -> None:
    """LMDB answers an append out of order with False and no exception."""
    log, broken = one_log(storage), one_log(storage, OTHER)
    fill(storage, broken, 3)
    broken.log_end_offset = 1
    group = [append(log, batch(2)), append(broken, batch(1)), append(log, batch(2))]
    results = storage.commit(group)
    assert results[0] == Appended(0, 1, False)
    assert isinstance(results[1], StorageFaultError)
    assert results[2] == Appended(2, 3, False)
    assert storage.faulted is None
    broken.log_end_offset = 3
    assert bases(storage.read(log, 0, 10_000, 4, bytes)) == [0, 2]


def test_a_removed_partition_takes_nothing(storage: Storage) -> None:
    log, other = one_log(storage), one_log(storage, OTHER)
    storage.remove([KEY])
    results = storage.commit([append(log, batch()), append(other, batch())])
    assert isinstance(results[0], UnknownPartitionError)
    assert results[1] == Appended(0, 0, False)


def test_a_full_disk_refuses_for_a_while_and_loses_nothing(house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    first = batch(2, producer=3, sequence=0)
    commit(storage, log, first)
    data, _ = data_descriptors(house.folder)
    with Redirected(data, "/dev/full"):
        results = commit(
            storage, log, batch(1), batch(2, producer=3, sequence=2), batch(2, producer=3, sequence=4), first
        )
        assert [type(result) for result in results] == [StorageFullError] * 3 + [Appended]
        assert results[3] == Appended(0, 1, True), "what is stored needs no disk"
        assert bases(storage.read(log, 0, 10_000, log.high_watermark, bytes)) == [0]
    assert (log.log_end_offset, log.size_bytes) == (2, len(first))
    assert commit(storage, log, batch(1), batch(2, producer=3, sequence=2)) == [
        Appended(2, 2, False),
        Appended(3, 4, False),
    ]


@pytest.mark.parametrize("which", [0, 1], ids=["data", "meta"])
def test_a_failing_disk_ends_all_writing(house: Any, which: int, tmp_path: Path) -> None:
    storage = house.open()
    log = one_log(storage)
    commit(storage, log, batch(1), batch(1))
    readable = tmp_path / "readable"
    readable.write_bytes(bytes(100_000))
    with Redirected(data_descriptors(house.folder)[which], str(readable)), pytest.raises(StorageFaultError):
        commit(storage, log, batch(1), batch(1))
    assert storage.faulted is not None
    for attempt in (
        lambda: commit(storage, log, batch(1)),
        lambda: storage.create([OTHER]),
        lambda: storage.begin_epochs([(log, 2)]),
        lambda: storage.retain(log, 0, 0, NOW),
        lambda: storage.delete_slice(KEY),
    ):
        with pytest.raises(StorageFaultError, match="faulted"):
            attempt()
    assert (log.log_end_offset, log.high_watermark) == (2, 2)
    if which == 0:
        assert bases(storage.read(log, 0, 10_000, log.high_watermark, bytes)) == [0, 1]
    else:
        with pytest.raises(StorageFaultError):
            storage.read(log, 0, 10_000, log.high_watermark, bytes)
    storage.close(clean=True)
    storage = house.open()
    assert not storage.clean, "a faulted stop is no clean one"
    assert storage.logs[KEY].log_end_offset == 2


def test_one_batch_without_adjacent_pages_fails_alone(house: Any) -> None:
    """The map can be full for a large batch while small ones still fit."""
    storage = house.open(quota_bytes=8 * 2**20, reserve_bytes=2**20)
    log, kept = one_log(storage), one_log(storage, OTHER)
    while True:
        group = [append(target, batch(size=5_000)) for target in (log, kept) * 16]
        if any(isinstance(result, StorageFullError) for result in storage.commit(group)):
            break
    while storage.retain(log, -1, 0, NOW):
        pass
    large: list[Append] = [append(log, batch(size=900_000)) for _ in range(3)]
    room = capacity(storage) - storage.used_bytes
    assert room > 3 * 900_000
    group = [append(log, batch(size=100)), *large, append(log, batch(size=100))]
    results = storage.commit(group)
    assert isinstance(results[0], Appended)
    assert isinstance(results[-1], Appended)
    assert any(isinstance(result, StorageFullError) for result in results[1:-1])
    assert storage.faulted is None


def test_transaction_errors_leave_no_trace_in_memory(house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    data, _ = data_descriptors(house.folder)
    with Redirected(data, "/dev/full"):
        for change in (
            lambda: storage.create([OTHER]),
            lambda: storage.begin_epochs([(log, 4)]),
            lambda: storage.see_controller_epoch(9),
            lambda: storage.remove([KEY]),
        ):
            with pytest.raises(StorageFullError):
                change()
    assert list(storage.logs) == [KEY]
    assert (log.leader_epoch, log.removed, storage.controller_epoch) == (1, False, 0)
    storage.create([OTHER])
    storage.begin_epochs([(log, 4)])
    storage.see_controller_epoch(9)
    assert list(log.epochs) == [(1, 0), (4, 0)]
    storage = house.reopen()
    assert storage.controller_epoch == 9
    assert set(storage.logs) == {KEY, OTHER}


def test_a_failed_sync_is_never_tried_again(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports a failed write-back once, and calls the pages clean after that."""
    storage = house.open()
    log = one_log(storage)
    write, calls = PlanWriter.write, []

    def fail_once(self: PlanWriter, plan: Plan) -> int:
        calls.append(plan)
        if len(calls) > 1:
            return write(self, plan)
        error = lmdb.Error("mdb_txn_commit")
        error.code = errno.EIO  # type: ignore[misc]
        raise error

    monkeypatch.setattr(PlanWriter, "write", fail_once)
    with pytest.raises(StorageFaultError):
        commit(storage, log, batch(1), batch(1), batch(1))
    assert len(calls) == 1
    assert log.log_end_offset == 0
