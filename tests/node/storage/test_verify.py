"""The walk through everything finds whatever does not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailrace.node.storage import PartitionLog, Storage, schema
from tailrace.node.storage.verify import PROBLEMS_MAX, verify_folder

from .support import NOW, batch, commit, one_log, open_storage


@pytest.fixture
def damaged(tmp_path: Path) -> Any:
    """Storage with a bit of everything, that is not checked at the end."""
    storage = open_storage(tmp_path / "node-1")
    log = one_log(storage)
    for place in range(6):
        commit(storage, log, batch(2, size=3_000, timestamps=NOW + place, producer=3, sequence=2 * place))
    storage.retain(log, -1, log.size_bytes - 4_000, NOW)
    storage.begin_epochs([(log, 4)])
    commit(storage, log, batch(1, timestamps=NOW))
    assert storage.verify().problems == []
    yield storage
    storage.close(clean=True)


def put(table: str, key: bytes, value: bytes | None) -> Callable[[Storage, PartitionLog], None]:
    """Change one row behind the storage's back; None deletes it."""

    def change(storage: Storage, log: PartitionLog) -> None:
        tables = storage._tables
        database = log.database if table == "log" else getattr(tables, table)
        with tables.environment.begin(write=True) as transaction:
            if value is None:
                assert transaction.delete(key, db=database)
            else:
                transaction.put(key, value, db=database)

    return change


def flip(storage: Storage, log: PartitionLog) -> None:
    """One bit of one batch."""
    with storage._tables.environment.begin(write=True) as transaction:
        data = bytearray(transaction.get(schema.offset_key(5), db=log.database))
        data[100] ^= 4
        transaction.put(schema.offset_key(5), bytes(data), db=log.database)


def window(*entries: tuple[int, int, int]) -> bytes:
    """A producer's row."""
    packed = b"".join(schema.WINDOW_ENTRY.pack(*entry) for entry in entries)
    return schema.ProducerRow(0, 12, NOW, -1, packed).pack()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (flip, "offset 5: CRC-32C"),
        (put("log", schema.offset_key(5), None), "base offset: 6, expected 4"),
        (put("log", schema.offset_key(12), None), "log end offset: 13, expected 12"),
        (put("log", schema.offset_key(20), bytes(500)), "offset 20: 500 bytes that say"),
        (put("time_index", schema.time_key(0, NOW + 3), None), "time index"),
        (put("time_index", schema.time_key(0, NOW + 9), schema.pack_number(3)), "time index"),
        (put("time_index", schema.time_key(8, NOW), schema.pack_number(3)), "partition ids in time_index"),
        (put("epochs", schema.epoch_key(0, 4), None), "the last epoch: 4, expected 1"),
        (put("epochs", schema.epoch_key(0, 4), schema.pack_number(4)), "leader epoch at 5: 1, expected 4"),
        (put("epochs", schema.epoch_key(0, 9), schema.pack_number(99)), "epoch starts past the log end"),
        (put("producers", schema.producer_key(0, 3), b"x" * 24), "cannot hold"),
        (put("producers", schema.producer_key(0, 3), window((8, 2, 8), (9, 2, 10))), "sequences"),
        (put("producers", schema.producer_key(0, 3), window((8, 2, 10), (10, 2, 8))), "offsets in order"),
        (put("producers", schema.producer_key(0, 3), window((8, 2, 6), (10, 2, 10))), "the batch"),
        (put("producers", schema.producer_key(5, 3), window((10, 2, 10))), "partition ids in producers"),
        (put("partitions", schema.partition_key(0), None), "the logs"),
        (put("node", schema.NODE_STORAGE_ID, b""), "length of the storage id"),
        (put("node", schema.NODE_NEXT_PARTITION_ID, None), "partition ids that were not given out"),
        (lambda _, log: setattr(log, "live_pages", 3), "pages in memory"),
        (lambda _, log: setattr(log, "size_bytes", 3), "row in memory"),
        (lambda _, log: setattr(log, "high_watermark", 3), "high watermark in memory"),
        (lambda _, log: setattr(log, "high_watermark", 14), "high watermark in memory"),
        (lambda _, log: setattr(log, "epochs", ((1, 0),)), "epochs in memory"),
    ],
)
def test_damage_is_found(
    damaged: Storage, change: Callable[[Storage, PartitionLog], None], complaint: str
) -> None:
    (log,) = damaged.logs.values()
    change(damaged, log)
    report = damaged.verify()
    assert any(complaint in problem for problem in report.problems), report.problems
    assert report.problem_count == len(report.problems)


def test_a_report_is_bounded(damaged: Storage) -> None:
    tables = damaged._tables
    with tables.environment.begin(write=True) as transaction:
        for number in range(1, PROBLEMS_MAX + 50):
            key = schema.producer_key(0, number)
            transaction.put(key, b"x" * 24, db=tables.producers)
    report = damaged.verify()
    assert len(report.problems) == PROBLEMS_MAX
    assert report.problem_count > PROBLEMS_MAX


def test_a_folder_at_rest(tmp_path: Path, house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    commit(storage, log, batch(3), batch(4))
    house.close(clean=False)
    before = {path.name: path.stat().st_mtime_ns for path in house.folder.iterdir()}
    report = verify_folder(house.folder)
    assert (report.problems, report.partitions, report.batches, report.records) == ([], 1, 2, 7)
    after = {path.name: path.stat().st_mtime_ns for path in house.folder.iterdir()}
    assert after["data.mdb"] == before["data.mdb"]
    assert not house.open().clean, "looking changed nothing"
