"""What is cut off a log is gone everywhere, at once, and never by accident."""

import logging
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tailrace.node.storage import Appended, PartitionLog, Storage, deletion, retention, schema
from tailrace.node.storage.hot import HotTail
from tailrace.protocol.batch import parse_header
from tailrace.protocol.errors import (
    CorruptBatchError,
    FencedProducerError,
    OffsetOutOfRangeError,
    StorageFaultError,
    StorageFullError,
    UnknownProducerIdError,
)
from tailrace.protocol.limits import MIB

from .support import (
    KEY,
    NOW,
    TOPIC,
    Redirected,
    bases,
    batch,
    commit,
    data_descriptors,
    fill,
    one_log,
    open_storage,
)


def follower(storage: Storage) -> PartitionLog:
    """A log in epoch 1 whose high watermark stays at 0."""
    log = one_log(storage)
    log.sole_replica = False
    return log


def sent(count: int, *, epoch: int = 0, first: int = 0, producer: int = 7) -> list[bytes]:
    """Batches of one record, in sequence."""
    return [batch(producer=producer, epoch=epoch, sequence=first + number) for number in range(count)]


def test_a_tail_goes_with_all_that_points_to_it(house: Any) -> None:
    storage = house.open()
    log = follower(storage)
    commit(storage, one_log(storage, (TOPIC, 1)), batch(producer=7, sequence=0))
    for place in range(4):
        commit(storage, log, batch(2, size=3_000, timestamps=NOW + place))
    storage.begin_epochs([(log, 2)])
    commit(storage, log, batch(2, timestamps=NOW + 9))
    storage.begin_epochs([(log, 4)])
    full = storage.used_bytes
    assert storage.truncate(log, 6) == 6
    assert storage.used_bytes < full
    assert (log.log_end_offset, log.hot_offset, log.max_timestamp) == (6, 0, NOW + 2)
    assert (list(log.epochs), log.leader_epoch) == ([(1, 0)], 1)
    assert bases(storage.read(log, 0, MIB, 100, bytes)) == [0, 2, 4]
    storage = house.reopen(clean=False)
    log = storage.logs[KEY]
    assert (log.log_end_offset, list(log.epochs)) == (6, [(1, 0)])
    fill(storage, log, 1)
    assert bases(storage.read(log, 6, MIB, 100, bytes)) == [6]


def test_a_batch_goes_as_a_whole(storage: Storage) -> None:
    log = follower(storage)
    commit(storage, log, batch(3), batch(5), batch(2))
    assert storage.truncate(log, 99) == 10
    assert storage.truncate(log, 10) == 10
    assert storage.truncate(log, 7) == 3
    assert storage.truncate(log, 3) == 3
    assert storage.truncate(log, 0) == 0
    assert (log.size_bytes, log.live_pages, log.max_timestamp) == (0, 0, -1)
    fill(storage, log, 1)


def test_below_the_high_watermark_there_is_a_warning(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    log = follower(storage)
    fill(storage, log, 6)
    storage.raise_high_watermark(log, 4)
    assert storage.truncate(log, 4) == 4
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING):
        assert storage.truncate(log, 2) == 2
        assert storage.truncate(log, 1) == 1
    assert log.high_watermark == 1
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "its leader lacks what was committed, offsets 2 to 3 are lost",
        "its leader lacks what was committed, offsets 1 to 1 are lost",
    ]


def test_nothing_to_cut_below_the_log_start(storage: Storage) -> None:
    log = follower(storage)
    fill(storage, log, 4)
    storage.advance_start(log, 2)
    with pytest.raises(OffsetOutOfRangeError):
        storage.truncate(log, 1)
    assert storage.truncate(log, 2) == 2
    assert (log.log_start_offset, log.head) == (2, None)


def test_an_emptied_log_has_no_times(storage: Storage) -> None:
    log = follower(storage)
    commit(storage, log, batch(timestamps=NOW), batch(timestamps=NOW))
    storage.advance_start(log, 1)
    assert (log.max_timestamp, storage.truncate(log, 1), log.max_timestamp) == (NOW, 1, -1)


@pytest.mark.parametrize("whole", [True, False])
def test_retention_looks_at_the_new_head(storage: Storage, whole: bool) -> None:
    log = follower(storage)
    commit(storage, log, batch(timestamps=NOW), batch(timestamps=NOW - 100))
    storage.retain(log, 10, -1, NOW)
    assert log.log_start_offset == 0
    if whole:
        storage.truncate(log, 0)
        commit(storage, log, batch(timestamps=NOW - 100))
    else:
        storage.advance_start(log, 1)
    storage.raise_high_watermark(log, 2)
    storage.retain(log, 10, -1, NOW)
    assert log.log_start_offset == log.log_end_offset


def test_what_was_cut_off_is_no_duplicate(house: Any) -> None:
    storage = house.open()
    log = follower(storage)
    batches = sent(6)
    commit(storage, log, *batches)
    storage.truncate(log, 3)
    for current in (storage, house.reopen(clean=False)):
        log = current.logs[KEY]
        assert commit(current, log, batches[1], batches[2]) == [Appended(1, 1, True), Appended(2, 2, True)]
    assert commit(current, log, *batches[3:]) == [Appended(at, at, False) for at in (3, 4, 5)]


def test_a_producer_that_is_gone_as_a_whole_is_unknown(storage: Storage) -> None:
    log = follower(storage)
    fill(storage, log, 2)
    batches = sent(3)
    commit(storage, log, *batches)
    storage.truncate(log, 2)
    assert isinstance(commit(storage, log, batches[1])[0], UnknownProducerIdError)
    assert commit(storage, log, batches[0]) == [Appended(2, 2, False)]


def test_a_window_that_was_cut_off_is_made_anew(house: Any) -> None:
    """From what the log still has: here 64 batches are gone, and 36 older ones are left."""
    storage = house.open()
    log = follower(storage)
    batches = sent(100)
    commit(storage, log, *batches)
    storage.truncate(log, 36)
    assert commit(storage, log, *batches[:36]) == [Appended(at, at, True) for at in range(36)]
    storage.truncate(log, 30)
    storage = house.reopen()
    assert commit(storage, storage.logs[KEY], batches[30]) == [Appended(30, 30, False)]


def test_an_epoch_of_a_producer_that_was_cut_off_gives_its_place_back(storage: Storage) -> None:
    log = follower(storage)
    old, new = sent(4), sent(3, epoch=1)
    other = sent(2, producer=8, epoch=5)
    commit(storage, log, old[0], other[0], *old[1:], *new, other[1])
    assert isinstance(commit(storage, log, old[3])[0], FencedProducerError)
    storage.truncate(log, 5)
    assert commit(storage, log, old[3], other[0]) == [Appended(4, 4, True), Appended(1, 1, True)]
    assert commit(storage, log, batch(producer=7, sequence=4)) == [Appended(5, 5, False)]
    assert commit(storage, log, other[1]) == [Appended(6, 6, False)]


def test_a_window_is_not_made_of_what_retention_has_deleted(storage: Storage) -> None:
    log = follower(storage)
    commit(storage, log, *sent(4), *sent(3, epoch=1))
    storage.advance_start(log, 4)
    storage.truncate(log, 4)
    assert isinstance(commit(storage, log, batch(producer=7, sequence=4))[0], UnknownProducerIdError)


def test_a_full_disk_does_not_stop_it(house: Any) -> None:
    """As long as there is a ballast to give up; if not even that helps, nothing has changed."""
    storage = house.open()
    log = follower(storage)
    commit(storage, log, *sent(5))
    data, _ = data_descriptors(house.folder)
    with Redirected(data, "/dev/full"):
        with pytest.raises(StorageFullError):
            storage.truncate(log, 2)
        assert not (house.folder / "ballast").exists()
        with pytest.raises(StorageFullError):
            storage.reset(log, 9)
    assert (log.log_end_offset, log.size_bytes) == (5, sum(map(len, sent(5))))
    assert commit(storage, log, sent(5)[4][:]) == [Appended(4, 4, True)]
    assert storage.verify().problems == []
    assert storage.truncate(log, 2) == 2


def test_hot_offsets_stay_in_a_log_that_was_cut(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.node.storage.hot.HOT_BYTES", 1_000)
    monkeypatch.setattr("tailrace.node.storage.hot.APPEND_BYTES_MIN", 1)
    log, tail = follower(storage), HotTail()
    monkeypatch.setattr(storage._writer, "_hot", tail)
    fill(storage, log, 8, size=100)
    commit(storage, log, batch(size=100))
    storage.truncate(log, 3)
    commit(storage, log, batch(size=900))
    assert log.log_start_offset <= log.hot_offset <= log.log_end_offset
    storage.advance_start(log, 4)
    commit(storage, log, batch(size=900))
    assert log.log_start_offset <= log.hot_offset <= log.log_end_offset


def test_a_reset_log_starts_elsewhere(house: Any) -> None:
    storage = house.open()
    log = follower(storage)
    commit(storage, log, *sent(5))
    storage.begin_epochs([(log, 3)])
    storage.raise_high_watermark(log, 3)
    while storage.reset(log, 500):
        assert storage.verify().problems == []
    assert isinstance(commit(storage, log, sent(5)[4])[0], UnknownProducerIdError)
    for current in (storage, house.reopen(clean=False)):
        log = current.logs[KEY]
        row = log.row()
        assert (row.log_start_offset, row.log_end_offset, row.high_watermark, log.hot_offset) == (500,) * 4
        assert (row.leader_epoch, row.max_timestamp, row.size_bytes) == (-1, -1, 0)
        assert (list(log.epochs), current.last_epoch(log)) == ([], -1)
    assert isinstance(commit(current, log, sent(5)[4])[0], UnknownProducerIdError)
    current.begin_epochs([(log, 4)])
    fill(current, log, 2)
    assert bases(current.read(log, 500, MIB, 502, bytes)) == [500, 501]


@pytest.mark.parametrize("start", [0, 3, 5, 8, 20])
def test_a_reset_may_go_back(storage: Storage, start: int, caplog: pytest.LogCaptureFixture) -> None:
    log = follower(storage)
    fill(storage, log, 8)
    storage.advance_start(log, 2)
    storage.raise_high_watermark(log, 4)
    with caplog.at_level(logging.WARNING):
        while storage.reset(log, start):
            assert storage.verify().problems == []
    assert (log.log_start_offset, log.log_end_offset, log.high_watermark) == (start,) * 3
    assert len(caplog.messages) == (start < 4)


def test_no_log_goes_on_behind_what_lies_beyond_its_end(tmp_path: Path) -> None:
    """A reset to where such a thing is would take it in: the next batch may end behind it."""
    storage = open_storage(tmp_path / "node-1")
    log = follower(storage)
    fill(storage, log, 3)
    with storage._tables.environment.begin(write=True) as transaction:
        transaction.put(schema.offset_key(8), b"?", db=log.database)
    assert storage.reset(log, 8), "what the log holds goes first"
    with pytest.raises(CorruptBatchError, match="is left beyond its end"):
        storage.reset(log, 8)
    assert (log.log_start_offset, log.log_end_offset) == (3, 3)
    assert isinstance(commit(storage, log, batch(2))[0], StorageFaultError)
    storage.close(clean=False)


def test_large_logs_are_reset_in_slices(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "SLICE_ROWS", 10)
    log = follower(storage)
    count = retention.SLICE_BATCHES + 10
    commit(storage, log, *[sent(1, producer=number)[0] for number in range(count)])
    calls = 1
    while storage.reset(log, count + 1):
        calls += 1
        assert storage.verify().problems == []
    assert calls > 2 + count // 10
    tables = storage._tables
    with tables.environment.begin(db=tables.producers) as transaction:
        assert not transaction.cursor().set_range(schema.producer_key(log.partition_id, 0))


def test_the_start_follows_the_leaders(storage: Storage) -> None:
    log = follower(storage)
    fill(storage, log, retention.SLICE_BATCHES + 20, records=2)
    other = one_log(storage, (TOPIC, 1))
    fill(storage, other, 1)
    assert not storage.advance_start(log, 1), "a batch goes as a whole, or not at all"
    assert log.log_start_offset == 0
    end = log.log_end_offset
    assert storage.advance_start(log, end - 4)
    assert (log.log_start_offset, log.high_watermark) == (2 * retention.SLICE_BATCHES,) * 2
    assert not storage.advance_start(log, end - 3)
    assert (log.log_start_offset, log.high_watermark) == (end - 4, end - 4)
    assert not storage.advance_start(log, end + 100)
    assert (log.log_start_offset, log.log_end_offset, log.size_bytes) == (end, end, 0)
    assert other.log_start_offset == 0


def test_readers_beside_a_truncation_see_whole_batches_or_none(storage: Storage) -> None:
    log = follower(storage)
    done = threading.Event()
    problems: list[object] = []

    def read() -> None:
        while not done.is_set():
            with suppress(OffsetOutOfRangeError):
                found = storage.read(log, log.log_end_offset // 2, MIB, log.log_end_offset, bytes)
                places = [parse_header(data) for data in found]
                problems.extend(
                    pair for pair in pairwise(places) if pair[0].last_offset >= pair[1].base_offset
                )
            problems.extend(number for number in storage.end_of_epoch(log, 1_000) if number < 0)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(20):
        fill(storage, log, 8, records=2, size=3_000)
        storage.begin_epochs([(log, log.leader_epoch + 1)])
        storage.truncate(log, 1 + number % 7)
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []
