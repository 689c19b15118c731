"""A page of one log that LMDB cannot read hurts that log alone, which can be made anew."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace.node.storage import PartitionLog, Storage
from tailrace.node.storage.folder import DATA
from tailrace.node.storage.space import PAGE_BYTES
from tailrace.protocol.errors import CorruptBatchError

from .support import KEY, NOW, TOPIC, fill, one_log, open_storage

OTHER = (TOPIC, 1)
LEAF = 2
COUNT = 300

_PAGE = struct.Struct("<QHHHHH")
"""Its number, padding, flags, lower and upper end of its free room, and where its first node lies."""
_NODE = struct.Struct("<4xHH8s")
"""Flags, length of the key, and a key of 8 bytes."""


def damage(folder: Path) -> None:
    """The page that a log begins in is none any more: LMDB's format, lmdb.h and mdb.c."""
    with (folder / DATA).open("r+b") as file:
        pages = file.read()
        for at in range(0, len(pages), PAGE_BYTES):
            number, _, flags, lower, _, first = _PAGE.unpack_from(pages, at)
            if (number, flags) == (at // PAGE_BYTES, LEAF) and lower > _PAGE.size - 2:
                _, length, key = _NODE.unpack_from(pages, at + first)
                if (length, key) == (8, bytes(8)):
                    file.seek(at + 10)
                    file.write(bytes(2))
                    return
    raise AssertionError("there is no such page")


@pytest.fixture
def log(tmp_path: Path) -> tuple[Storage, PartitionLog]:
    storage = open_storage(tmp_path / "node")
    log = one_log(storage)
    fill(storage, log, COUNT, size=5_000)
    damage(tmp_path / "node")
    fill(storage, one_log(storage, OTHER), 3)
    return storage, log


@pytest.mark.parametrize(
    "use",
    [
        lambda storage, log: storage.read(log, 0, 1, COUNT, bytes),
        lambda storage, log: storage.offset_for_timestamp(log, NOW),
        lambda storage, log: storage.retain(log, -1, 0, NOW),
        lambda storage, log: storage.advance_start(log, 5),
        lambda storage, log: storage.truncate(log, 2),
    ],
    ids=["read", "offset_for_timestamp", "retain", "advance_start", "truncate"],
)
def test_it_is_a_fault_of_the_log_alone(
    log: tuple[Storage, PartitionLog], use: Callable[[Storage, PartitionLog], object]
) -> None:
    storage, damaged = log
    with pytest.raises(CorruptBatchError, match=damaged.name):
        use(storage, damaged)
    assert storage.faulted is None
    fill(storage, storage.logs[OTHER], 1)
    storage.close(clean=True)


def test_a_log_that_cannot_be_deleted_is_replaced_all_the_same(
    log: tuple[Storage, PartitionLog], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage, damaged = log
    storage.remove([KEY])
    assert not storage.delete_slice(KEY)
    assert f"{damaged.name} is damaged and cannot be deleted" in caplog.text
    fill(storage, one_log(storage), 5)
    storage.close(clean=True)

    storage = open_storage(tmp_path / "node")
    assert set(storage.removed) == {KEY}
    assert not storage.delete_slice(KEY), "tried again at each start"
    assert len(storage.read(storage.logs[KEY], 0, 10_000, 5, bytes)) == 5
    assert storage.verify().problems == []
    while storage.delete_slice(KEY):
        pass
    assert set(storage.logs) == {OTHER}
    storage.close(clean=True)
