"""Reads: bounds, checks of what comes back, and readers beside a writer."""

import threading
from typing import Any

import pytest

from tailrace.node.storage import PartitionLog, Storage, hot, schema
from tailrace.node.storage.partition_log import LAST_BATCH_BYTES_MAX
from tailrace.node.storage.schema import PartitionRow
from tailrace.protocol.batch import parse_header
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import (
    CorruptBatchError,
    OffsetOutOfRangeError,
    TailraceError,
    UnknownPartitionError,
)
from tailrace.protocol.limits import MIB

from ...patience import wait_until
from .support import KEY, NOW, TOPIC, bases, batch, commit, fill, one_log


def test_the_batch_that_holds_the_offset_comes_first(storage: Storage) -> None:
    log = one_log(storage)
    fill(storage, log, 4, records=10)
    assert bases(storage.read(log, 0, MIB, 40, bytes)) == [0, 10, 20, 30]
    assert bases(storage.read(log, 19, MIB, 40, bytes)) == [10, 20, 30]
    assert bases(storage.read(log, 20, MIB, 40, bytes)) == [20, 30]
    assert storage.read(log, 40, MIB, 40, bytes) == []


def test_bounds(storage: Storage) -> None:
    log = one_log(storage)
    fill(storage, log, 5, size=1_000)
    (first,) = storage.read(log, 0, 1, 5, bytes)
    size = len(first)
    assert bases(storage.read(log, 0, size - 1, 5, bytes)) == [0], "one batch always"
    assert bases(storage.read(log, 0, 2 * size - 1, 5, bytes)) == [0]
    assert bases(storage.read(log, 0, 2 * size, 5, bytes)) == [0, 1]
    assert bases(storage.read(log, 0, MIB, 3, bytes)) == [0, 1, 2]
    assert storage.read(log, 0, MIB, 0, bytes) == []
    wanted = iter([b"one", b"two"])
    assert storage.read(log, 1, MIB, 5, lambda _: next(wanted, None)) == [b"one", b"two"], "no more than that"


def test_a_batch_that_ends_at_or_above_the_bound_stays_out(storage: Storage) -> None:
    log = one_log(storage)
    fill(storage, log, 2, records=10)
    assert bases(storage.read(log, 0, MIB, 19, bytes)) == [0]
    assert bases(storage.read(log, 0, MIB, 20, bytes)) == [0, 10]


def test_the_last_batch_is_in_memory_while_it_is_small(storage: Storage) -> None:
    log = one_log(storage)
    fill(storage, log, 3, records=10)
    from_disk = storage.read(log, 0, MIB, 30, bytes)[2:]
    overwrite(storage, log, 29, b"rotten")
    for offset in (20, 25, 29):
        assert storage.read(log, offset, 1, 30, bytes) == from_disk, "the disk was not asked"
        assert storage.read(log, offset, MIB, 29, bytes) == [], "it ends at the bound"
        assert storage.read(log, offset, MIB, 30, lambda _: None) == []
    with pytest.raises(CorruptBatchError):
        storage.read(log, 19, MIB, 30, bytes)
    overwrite(storage, log, 29, from_disk[0])
    fill(storage, log, 1, size=LAST_BATCH_BYTES_MAX)
    assert log.last_batch is None


@pytest.mark.parametrize("what", ["truncate", "retain", "begin_epochs", "remove"])
def test_nothing_in_memory_outlives_its_log(storage: Storage, what: str) -> None:
    log = one_log(storage)
    fill(storage, log, 2, records=10)
    assert log.last_batch is not None
    if what == "truncate":
        log.high_watermark = 10
        storage.truncate(log, 10)
        assert log.last_batch is None
        fill(storage, log, 1, records=5)
        assert bases(storage.read(log, 10, MIB, 15, bytes)) == [10]
    elif what == "retain":
        while storage.retain(log, 0, -1, NOW + 10**9):
            pass
        assert log.log_start_offset == 20
        with pytest.raises(OffsetOutOfRangeError):
            storage.read(log, 10, MIB, 20, bytes)
    elif what == "begin_epochs":
        storage.begin_epochs([(log, 7)])
        assert bases(storage.read(log, 10, MIB, 20, bytes)) == [10]
    else:
        storage.remove([KEY])
        with pytest.raises(UnknownPartitionError):
            storage.read(log, 10, MIB, 20, bytes)


@pytest.mark.parametrize("offset", [-1, 3, 2**40])
def test_offsets_that_are_not_there(storage: Storage, offset: int) -> None:
    log = one_log(storage)
    fill(storage, log, 2)
    with pytest.raises(OffsetOutOfRangeError, match="holds 0 to 2"):
        storage.read(log, offset, MIB, 2, bytes)


def overwrite(storage: Storage, log: PartitionLog, last_offset: int, data: bytes) -> None:
    """What a failing disk could make of a batch."""
    with storage._tables.environment.begin(write=True) as transaction:
        transaction.put(schema.offset_key(last_offset), data, db=log.database)


def test_what_cannot_be_the_batch_is_not_served(storage: Storage) -> None:
    log = one_log(storage)
    fill(storage, log, 3, records=2)
    good = storage.read(log, 2, 1, 6, bytes)[0]
    moved = bytearray(good)
    moved[7] ^= 1
    for wrong in (good[:-1], good + b"x", bytes(moved), good[:30], b""):
        overwrite(storage, log, 3, wrong)
        assert bases(storage.read(log, 0, 1, 6, bytes)) == [0]
        with pytest.raises(CorruptBatchError, match=f"{log.name}, offset 3"):
            storage.read(log, 0, MIB, 6, bytes)
        with pytest.raises(CorruptBatchError):
            storage.read(log, 2, MIB, 6, bytes)
        with pytest.raises(CorruptBatchError):
            decode(wrong) if len(wrong) != len(good) else storage.read(log, 3, 1, 6, bytes)
        assert any("offset 3" in problem for problem in storage.verify().problems)
    overwrite(storage, log, 3, good)


def test_readers_beside_a_writer_see_whole_groups_up_to_the_high_watermark(house: Any) -> None:
    storage = house.open(quota_bytes=256 * MIB)
    log = one_log(storage)
    failures: list[BaseException] = []
    done = threading.Event()

    def follow() -> None:
        offset = 0
        try:
            while not done.is_set() or offset < log.high_watermark:
                upto = log.high_watermark
                try:
                    found = storage.read(log, max(offset, log.log_start_offset), 100_000, upto, bytes)
                except OffsetOutOfRangeError:
                    # What is committed is published a moment later.
                    wait_until(lambda at=offset: at < log.log_start_offset, "the log begins behind it")
                    offset = log.log_start_offset
                    continue
                for data in found:
                    header = parse_header(data)
                    decode(data)
                    assert header.base_offset >= offset
                    assert header.base_offset == offset or header.base_offset <= log.log_start_offset
                    offset = header.last_offset + 1
                assert offset <= upto or not found
                storage.offset_for_timestamp(log, NOW)
        except BaseException as error:  # noqa: BLE001 (raised again in the test's own thread)
            failures.append(error)

    readers = [threading.Thread(target=follow) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(60):
        fill(storage, log, 4, records=3, size=1 + number * 50)
        if number % 10 == 9:
            storage.retain(log, -1, log.size_bytes // 2, NOW)
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert log.log_end_offset == 720


@pytest.mark.parametrize("kept", [3, 0], ids=["some are left", "none is left"])
def test_what_was_cut_off_is_no_gap(storage: Storage, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """A read that comes between the commit and when it is known: another thread may be anywhere then."""
    log = one_log(storage)
    fill(storage, log, 6, records=2)
    reads: list[str] = []
    adopt = PartitionLog.adopt

    def read_before(log: PartitionLog, row: PartitionRow) -> None:
        assert log.log_start_offset == 0
        with pytest.raises(OffsetOutOfRangeError) as raised:
            storage.read(log, 1, MIB, 12, bytes)
        reads.append(str(raised.value))
        adopt(log, row)

    monkeypatch.setattr(PartitionLog, "adopt", read_before)
    storage.retain(log, -1, kept * log.size_bytes // 6, NOW)
    start = 12 - 2 * kept
    assert reads == [f"offset 1 of partition {log.name}, which holds {start} to 12"]
    assert storage.read(log, 12, MIB, 12, bytes) == []


def test_reads_pin_no_pages(storage: Storage) -> None:
    """A read transaction that stays open would make the file grow without end."""
    log = one_log(storage)
    for _ in range(40):
        fill(storage, log, 5, size=20_000)
        storage.read(log, log.log_start_offset, MIB, log.high_watermark, bytes)
        with pytest.raises(TailraceError):
            storage.read(log, -1, MIB, 1, bytes)
        storage.retain(log, -1, 100_000, NOW)
    assert storage._tables.environment.info()["last_pgno"] * 4096 < MIB


def test_the_hot_end_is_what_was_appended_lately(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "HOT_BYTES", 10_000)
    monkeypatch.setattr(hot, "APPEND_BYTES_MIN", 1)
    storage = house.open()
    log, other = one_log(storage), one_log(storage, (TOPIC, 1))
    fill(storage, log, 1, size=3_000)
    assert log.hot_offset == 0
    fill(storage, log, 3, size=3_000)
    assert log.hot_offset == 1
    fill(storage, log, 1, size=2_000)
    assert log.hot_offset == 4, "a group goes as a whole"
    fill(storage, other, 1, size=12_000)
    assert (log.hot_offset, other.hot_offset) == (5, 1)
    storage = house.reopen()
    assert storage.logs[KEY].hot_offset == 5, "nothing is known of what was cached before"


def test_small_appends_are_not_remembered_without_end(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "HOT_BYTES", 3 * hot.APPEND_BYTES_MIN)
    log = one_log(storage)
    for end in range(1, 7):
        fill(storage, log, 1, size=10)
        assert log.hot_offset == max(0, end - 3)


def test_commit_order_of_what_readers_see(storage: Storage) -> None:
    log = one_log(storage)
    log.sole_replica = False
    commit(storage, log, batch(2))
    assert (log.log_end_offset, log.high_watermark) == (2, 0)
    assert storage.read(log, 0, MIB, log.high_watermark, bytes) == []
    assert bases(storage.read(log, 0, MIB, log.log_end_offset, bytes)) == [0]
