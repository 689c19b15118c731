"""Offsets by time, against a brute-force answer, also after retention has cut the log."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.node.storage import Storage, reading
from tailrace.protocol.limits import MIB

from .model import ModelLog
from .support import KEY, NOW, batch, commit, fill, one_log, open_storage

TIMES = st.integers(0, 40)
STEPS = st.lists(
    st.one_of(
        st.lists(st.lists(TIMES, min_size=1, max_size=3), min_size=1, max_size=5),
        st.integers(1, 6),
    ),
    min_size=1,
    max_size=8,
)
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_every_lookup_is_right(steps: list[list[list[int]] | int]) -> None:
    """A step is a group of batches, or a number of batches that retention takes from the head."""
    with TemporaryDirectory(dir=MEMORY) as parent:
        storage = open_storage(Path(parent) / "node-1")
        log, model = one_log(storage), ModelLog()
        for step in steps:
            if isinstance(step, int):
                keep = sum(one.size for one in model.batches[step:])
                model.retain(None, keep)
                while storage.retain(log, -1, keep, NOW):
                    pass
            else:
                group = [batch(len(times), timestamps=times) for times in step]
                for times, data in zip(step, group, strict=True):
                    model.append(times, data)
                commit(storage, log, *group)
            for timestamp in range(-1, 42):
                found = storage.offset_for_timestamp(log, timestamp)
                assert found == model.offset_for_timestamp(timestamp), timestamp
        assert storage.verify().problems == []
        storage.close(clean=True)


def index_entries(storage: Storage) -> int:
    """Rows in the time index."""
    tables = storage._tables
    with tables.environment.begin() as transaction:
        return transaction.stat(tables.time_index)["entries"]


def test_an_entry_only_when_the_maximum_rises(storage: Storage) -> None:
    log = one_log(storage)
    commit(storage, log, *(batch(timestamps=NOW + time) for time in (0, 5, 3, 5, 6, 1)))
    assert index_entries(storage) == 3
    assert log.max_timestamp == NOW + 6


def test_retention_keeps_one_entry_below_the_log_start_and_none_of_an_empty_log(house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    times = (0, 5, 9, 3, 4)
    made = [batch(timestamps=NOW + time) for time in times]
    commit(storage, log, *made)
    storage.retain(log, -1, sum(map(len, made[3:])), NOW)
    assert index_entries(storage) == 1
    assert storage.offset_for_timestamp(log, NOW + 4) == (4, NOW + 4)
    storage = house.reopen()
    log = storage.logs[KEY]
    assert storage.offset_for_timestamp(log, NOW + 2) == (3, NOW + 3)
    assert storage.offset_for_timestamp(log, NOW + 5) is None
    storage.retain(log, -1, 0, NOW)
    assert index_entries(storage) == 0
    commit(storage, log, batch(timestamps=NOW + 1))
    assert storage.offset_for_timestamp(log, NOW) == (5, NOW + 1)


def test_a_lookup_passes_over_many_batches_in_slices(storage: Storage) -> None:
    log = one_log(storage)
    commit(storage, log, batch(timestamps=NOW + 1_000_000))
    for _ in range(3):
        fill(storage, log, reading.SCAN_SLICE_BATCHES, timestamps=NOW)
    commit(storage, log, batch(timestamps=NOW + 500))
    storage.retain(log, -1, log.size_bytes - 1_000, NOW)
    assert 0 < log.log_start_offset < 20
    last = log.log_end_offset - 1
    assert storage.offset_for_timestamp(log, NOW + 100) == (last, NOW + 500)
    assert storage.offset_for_timestamp(log, NOW + 501) is None


def test_nothing_at_or_above_the_high_watermark_is_found(storage: Storage) -> None:
    log = one_log(storage)
    commit(storage, log, batch(2, timestamps=[NOW, NOW + 1]), batch(2, timestamps=[NOW + 2, NOW + 3]))
    log.high_watermark = 2
    assert storage.offset_for_timestamp(log, NOW + 1) == (1, NOW + 1)
    assert storage.offset_for_timestamp(log, NOW + 2) is None
    log.high_watermark = 3
    assert storage.offset_for_timestamp(log, NOW + 2) == (2, NOW + 2)
    assert storage.offset_for_timestamp(log, NOW + 3) is None
    log.high_watermark = 4


def test_an_exact_answer_inside_a_large_compressible_batch(storage: Storage) -> None:
    log = one_log(storage)
    times = [NOW + place * 7 for place in range(5_000)]
    commit(storage, log, batch(5_000, size=MIB // 50_000, timestamps=times))
    assert storage.offset_for_timestamp(log, NOW + 7 * 4_321 - 3) == (4_321, NOW + 7 * 4_321)
