"""A follower's log: copies in the group commit, the high watermark, and what is refused."""

from collections.abc import Sequence
from typing import Any

import pytest

from tailrace.node.storage import Appended, PartitionLog, Replicated, Storage
from tailrace.protocol.batch import parse_header, stamp
from tailrace.protocol.errors import (
    CorruptBatchError,
    FencedLeaderEpochError,
    InvalidRecordError,
    OffsetOutOfRangeError,
    StorageFullError,
    UnknownPartitionError,
)
from tailrace.protocol.limits import MIB, TIMESTAMP_AHEAD_MS_MAX

from .support import KEY, NOW, TOPIC, Redirected, append, bases, batch, commit, data_descriptors, one_log

OTHER = (TOPIC, 1)


def empty_log(storage: Storage, key: tuple[bytes, int] = KEY) -> PartitionLog:
    """A follower's, of no epoch."""
    storage.create([key])
    return storage.logs[key]


def copy(log: PartitionLog, offset: int, epoch: int, data: bytes | None = None) -> Replicated:
    """Of a batch that the leader of `epoch` has at `offset`."""
    made = bytearray(batch() if data is None else data)
    stamp(memoryview(made), offset, epoch)
    whole = bytes(made)
    return Replicated(log, memoryview(whole), parse_header(whole), NOW)


def copied(storage: Storage, log: PartitionLog, *placed: tuple[int, int]) -> None:
    """Batches of one record at these (offset, leader epoch)."""
    results = storage.commit([copy(log, offset, epoch) for offset, epoch in placed])
    assert results == [Appended(offset, offset, False) for offset, _ in placed]


def kinds(results: Sequence[object]) -> list[type]:
    return [type(result) for result in results]


def test_copies_and_new_batches_share_a_commit(storage: Storage) -> None:
    log, led = empty_log(storage), one_log(storage, OTHER)
    data = batch(3, size=5_000)
    group = [
        copy(log, 0, 4, data),
        append(led, batch(2)),
        copy(log, 3, 4),
        copy(log, 4, 6),
        append(led, batch(1)),
    ]
    assert storage.commit(group) == [
        Appended(0, 2, False),
        Appended(0, 1, False),
        Appended(3, 3, False),
        Appended(4, 4, False),
        Appended(2, 2, False),
    ]
    assert bytes(group[0].batch) == storage.read(log, 0, 1, 5, bytes)[0]
    assert list(log.epochs) == [(4, 0), (6, 4)]
    assert (log.leader_epoch, storage.last_epoch(log)) == (6, 6)
    assert (log.log_end_offset, log.high_watermark) == (5, 0), "the owner raises it"
    assert led.high_watermark == 3
    assert bases(storage.read(log, 3, MIB, log.log_end_offset, bytes)) == [3, 4], "followers read to the end"


def test_the_leader_has_decided(storage: Storage) -> None:
    """Neither clock nor sequence is a reason to refuse what the leader has stored."""
    log = empty_log(storage)
    group = [
        copy(log, 0, 1, batch(timestamps=NOW + 2 * TIMESTAMP_AHEAD_MS_MAX)),
        copy(log, 1, 1, batch(2, producer=3, sequence=70)),
        copy(log, 3, 1, batch(1, producer=3, sequence=72)),
        copy(log, 4, 1, batch(1, producer=3, sequence=0)),
        copy(log, 5, 1, batch(1, producer=4, sequence=0, epoch=2)),
        copy(log, 6, 1, batch(1, producer=4, sequence=0, epoch=1)),
    ]
    assert kinds(storage.commit(group)) == [Appended] * 6
    assert commit(storage, log, batch(1, producer=3, sequence=0)) == [Appended(4, 4, True)]
    assert commit(storage, log, batch(1, producer=4, sequence=0, epoch=1)) == [Appended(6, 6, True)]
    assert commit(storage, log, batch(1, producer=3, sequence=1)) == [Appended(7, 7, False)]


def test_what_does_not_continue_the_log_is_refused(storage: Storage) -> None:
    log, other = empty_log(storage), empty_log(storage, OTHER)
    copied(storage, log, (0, 3), (1, 5))
    broken = bytearray(copy(log, 2, 5).batch)
    broken[-1] ^= 1
    header = parse_header(broken)
    for bad, error in (
        (copy(log, 1, 5), OffsetOutOfRangeError),
        (copy(log, 3, 5), OffsetOutOfRangeError),
        (copy(log, 2, 4), FencedLeaderEpochError),
        (copy(log, 2, -1), CorruptBatchError),
        (Replicated(log, memoryview(broken), header, NOW), CorruptBatchError),
        (copy(other, 1, 1), OffsetOutOfRangeError),
    ):
        assert kinds(storage.commit([bad])) == [error]
    transactional = copy(log, 2, 5)
    attributes = transactional.header._replace(attributes=0x10)
    assert kinds(storage.commit([transactional._replace(header=attributes)])) == [InvalidRecordError]
    assert (log.log_end_offset, other.log_end_offset) == (2, 0)
    assert list(log.epochs) == [(3, 0), (5, 1)]


def test_what_follows_a_refused_copy_shares_its_error(storage: Storage) -> None:
    log, other = empty_log(storage), empty_log(storage, OTHER)
    damaged = copy(log, 1, 1)
    damaged = damaged._replace(header=damaged.header._replace(crc=1))
    group = [copy(log, 0, 1), damaged, copy(other, 0, 1), copy(log, 2, 1), copy(log, 3, 1)]
    results = storage.commit(group)
    assert kinds(results) == [Appended, CorruptBatchError, Appended, CorruptBatchError, CorruptBatchError]
    copied(storage, log, (1, 1), (2, 1))


def test_a_full_disk_refuses_copies_for_a_while(house: Any) -> None:
    storage = house.open()
    log = empty_log(storage)
    copied(storage, log, (0, 1))
    data, _ = data_descriptors(house.folder)
    with Redirected(data, "/dev/full"):
        results = storage.commit([copy(log, 1, 1), copy(log, 2, 1), copy(log, 3, 2)])
    assert kinds(results) == [StorageFullError] * 3
    assert (log.log_end_offset, list(log.epochs)) == (1, [(1, 0)])
    copied(storage, log, (1, 1), (2, 1), (3, 2))


def test_an_epoch_without_a_batch_gives_way(storage: Storage) -> None:
    """Its leader stored nothing in it; the next one may even go on in an older epoch."""
    log = empty_log(storage)
    copied(storage, log, (0, 3))
    storage.begin_epochs([(log, 5)])
    assert (log.leader_epoch, storage.last_epoch(log)) == (5, 3)
    copied(storage, log, (1, 4), (2, 6))
    assert list(log.epochs) == [(3, 0), (4, 1), (6, 2)]
    storage.begin_epochs([(log, 8)])
    copied(storage, log, (3, 8))
    assert list(log.epochs) == [(3, 0), (4, 1), (6, 2), (8, 3)]
    storage.begin_epochs([(log, 9)])
    assert storage.truncate(log, 4) == 4
    assert list(log.epochs)[-1] == (8, 3)


def test_an_empty_log_follows_any_leader(storage: Storage) -> None:
    """What it had is deleted; it still tells the epoch of that, so that the leader sees whether they part."""
    log = empty_log(storage)
    copied(storage, log, (0, 3), (1, 5))
    storage.advance_start(log, 2)
    assert storage.last_epoch(log) == 5
    copied(storage, log, (2, 4))
    assert list(log.epochs) == [(3, 0), (4, 2)]


def test_where_an_epoch_ends(house: Any) -> None:
    storage = house.open()
    log = empty_log(storage)
    assert (storage.end_of_epoch(log, 3), storage.last_epoch(log)) == ((3, 0), -1)
    copied(storage, log, (0, 2), (1, 2), (2, 5), (3, 5))
    storage.begin_epochs([(log, 7)])
    for current in (storage, house.reopen(clean=False)):
        log = current.logs[KEY]
        ends = [current.end_of_epoch(log, epoch) for epoch in (1, 2, 3, 4, 5, 6, 7, 9)]
        assert ends == [(1, 0), (2, 2), (2, 2), (2, 2), (5, 4), (5, 4), (7, 4), (7, 4)]


def test_the_high_watermark_is_raised_only(house: Any) -> None:
    storage = house.open()
    log = empty_log(storage)
    copied(storage, log, (0, 1), (1, 1), (2, 1), (3, 1))
    assert storage.raise_high_watermark(log, 2)
    assert not storage.raise_high_watermark(log, 1)
    assert not storage.raise_high_watermark(log, 2)
    assert log.high_watermark == 2
    storage = house.reopen(clean=False)
    log = storage.logs[KEY]
    assert log.high_watermark == 0, "in memory only"
    storage.raise_high_watermark(log, 3)
    copied(storage, log, (4, 1))
    assert storage.raise_high_watermark(log, 99)
    assert log.high_watermark == 5, "no higher than the log's end"
    storage = house.reopen(clean=False)
    assert storage.logs[KEY].high_watermark == 3, "stored with the log's commit"
    storage.raise_high_watermark(storage.logs[KEY], 5)
    storage = house.reopen(clean=True)
    assert storage.logs[KEY].high_watermark == 5, "and by a clean stop"


def test_a_removed_partition_takes_no_copies(storage: Storage) -> None:
    log = empty_log(storage)
    storage.remove([KEY])
    assert kinds(storage.commit([copy(log, 0, 1)])) == [UnknownPartitionError]
    for change in (
        lambda: storage.truncate(log, 0),
        lambda: storage.reset(log, 5),
        lambda: storage.advance_start(log, 5),
    ):
        with pytest.raises(UnknownPartitionError):
            change()
