"""Partitions come and go; leader epochs and the controller epoch are remembered."""

import threading
from typing import Any

import pytest

from tailrace.node.storage import Storage, deletion
from tailrace.protocol.errors import FencedLeaderEpochError, LimitExceededError, UnknownPartitionError
from tailrace.protocol.limits import PARTITIONS_PER_NODE_MAX

from .support import KEY, NOW, TOPIC, append, bases, batch, commit, fill, one_log

OTHER = (TOPIC, 1)


def test_creating_twice_changes_nothing(house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    fill(storage, log, 2)
    storage.create([KEY, OTHER, KEY])
    assert storage.logs[KEY] is log
    assert log.log_end_offset == 2
    storage = house.reopen()
    assert {key: log.log_end_offset for key, log in storage.logs.items()} == {KEY: 2, OTHER: 0}


def test_leader_epochs(house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    fill(storage, log, 2, records=3)
    storage.begin_epochs([(log, 1)])
    storage.begin_epochs([(log, 5)])
    fill(storage, log, 1)
    with pytest.raises(FencedLeaderEpochError):
        storage.begin_epochs([(log, 4)])
    storage = house.reopen()
    log = storage.logs[KEY]
    assert list(log.epochs) == [(1, 0), (5, 6)]
    assert log.leader_epoch == 5


def test_the_controller_epoch_never_goes_back(house: Any) -> None:
    storage = house.open()
    storage.see_controller_epoch(7)
    storage.see_controller_epoch(3)
    storage = house.reopen(clean=False)
    assert storage.controller_epoch == 7


def test_deleting_is_in_slices_and_frees_everything(storage: Storage) -> None:
    log, other = one_log(storage), one_log(storage, OTHER)
    fill(storage, other, 3)
    empty = storage.used_bytes
    for number in range(3):
        first = number * deletion.SLICE_BATCHES
        group = (
            batch(timestamps=NOW + first + place, producer=first + place, sequence=0)
            for place in range(deletion.SLICE_BATCHES)
        )
        commit(storage, log, *group, now_ms=NOW)
    slices = 1
    while storage.delete_slice(KEY):
        slices += 1
        assert KEY not in storage.logs
        assert storage.removed == {KEY: log}
    assert slices == 3
    assert storage.used_bytes <= empty + 2 * 4_096
    assert bases(storage.read(other, 0, 10_000, 3, bytes)) == [0, 1, 2]
    assert not storage.delete_slice(KEY)
    for use in (
        lambda: storage.read(log, 0, 100, 10, bytes),
        lambda: storage.offset_for_timestamp(log, 0),
    ):
        with pytest.raises(UnknownPartitionError):
            use()


def test_a_removed_partition_does_not_come_back(house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    fill(storage, log, deletion.SLICE_BATCHES + 1)
    storage.remove([KEY])
    storage = house.reopen(clean=False)
    assert (list(storage.logs), list(storage.removed)) == ([], [KEY])
    assert storage.delete_slice(KEY)
    storage = house.reopen(clean=False)
    assert list(storage.removed) == [KEY]
    storage.create([KEY])
    assert storage.logs[KEY].log_end_offset == 0
    assert storage.removed == {}


def test_a_reused_handle_is_never_read_as_the_old_log(storage: Storage) -> None:
    """LMDB gives a dropped database's handle to the next one that is opened."""
    old = one_log(storage)
    fill(storage, old, 1, size=100)
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                found = storage.read(old, 0, 10_000, 1, bytes)
            except UnknownPartitionError:
                continue
            wrong.extend(data for data in found if len(data) > 500)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 30):
            while storage.delete_slice((TOPIC, number - 1)):
                pass
            new = one_log(storage, (TOPIC, number))
            commit(storage, new, batch(size=1_000))
    finally:
        stop.set()
        reader.join()
    assert wrong == []


def test_more_partitions_than_a_node_may_have(storage: Storage) -> None:
    with pytest.raises(LimitExceededError):
        storage.create([(TOPIC, number) for number in range(PARTITIONS_PER_NODE_MAX + 1)])
    assert storage.logs == {}


def test_as_many_partitions_as_a_node_may_have(house: Any) -> None:
    storage = house.open()
    keys = [(TOPIC, number) for number in range(PARTITIONS_PER_NODE_MAX)]
    storage.create(keys)
    storage.begin_epochs([(log, 1) for log in storage.logs.values()])
    results = storage.commit([append(storage.logs[key], batch()) for key in keys])
    assert len(results) == PARTITIONS_PER_NODE_MAX
    storage = house.reopen()
    assert all(log.log_end_offset == 1 for log in storage.logs.values())
    assert not storage.delete_slice(keys[0])
    storage.create([(TOPIC, PARTITIONS_PER_NODE_MAX)])
