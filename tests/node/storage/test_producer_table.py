"""Producer rows: on disk all of them, in memory the recent ones, gone after a week of silence."""

from typing import Any

import pytest

from tailrace.node.storage import Appended, Storage, producer_table
from tailrace.node.storage.producer_table import CHECK_INTERVAL_MS, EXPIRY_MS
from tailrace.protocol.errors import UnknownProducerIdError

from .support import KEY, NOW, batch, commit, one_log


def rows(storage: Storage) -> int:
    """Producer rows on disk."""
    tables = storage._tables
    with tables.environment.begin() as transaction:
        return transaction.stat(tables.producers)["entries"]


def test_rows_that_memory_has_dropped_are_found_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer_table, "CACHED_ROWS_MAX", 3)
    log = one_log(storage)
    for sequence in range(3):
        for producer in range(10):
            (result,) = commit(storage, log, batch(producer=producer, sequence=sequence))
            assert isinstance(result, Appended)
            assert not result.duplicate
    assert len(storage._producers._cache) == 3
    assert commit(storage, log, batch(producer=0, sequence=1)) == [Appended(10, 10, True)]


def test_a_silent_producer_is_forgotten_and_a_busy_one_kept(house: Any) -> None:
    storage = house.open()
    log = one_log(storage)
    commit(storage, log, batch(producer=1, sequence=0), batch(producer=2, sequence=0))
    later = NOW + EXPIRY_MS
    commit(storage, log, batch(producer=2, sequence=1), now_ms=later)
    assert rows(storage) == 2
    commit(storage, log, batch(), now_ms=later + CHECK_INTERVAL_MS)
    assert rows(storage) == 1
    (refused,) = commit(storage, log, batch(producer=1, sequence=1), now_ms=later)
    assert isinstance(refused, UnknownProducerIdError)
    storage = house.reopen()
    log = storage.logs[KEY]
    assert commit(storage, log, batch(producer=2, sequence=2)) == [Appended(4, 4, False)]


def test_expiry_looks_at_a_few_rows_at_a_time(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_table, "CHECK_SLICE_ROWS", 4)
    log = one_log(storage)
    commit(storage, log, *(batch(producer=producer, sequence=0) for producer in range(10)))
    left, now = [], NOW + 2 * EXPIRY_MS
    for _ in range(4):
        commit(storage, log, batch(), now_ms=now)
        left.append(rows(storage))
        now += CHECK_INTERVAL_MS
    assert left == [6, 4, 0, 0], "from where the first commit of all had looked"


def test_retention_does_not_forget_producers(storage: Storage) -> None:
    log = one_log(storage)
    sent = batch(producer=1, sequence=0)
    commit(storage, log, sent)
    storage.retain(log, -1, 0, NOW)
    assert log.log_start_offset == log.log_end_offset == 1
    assert commit(storage, log, sent) == [Appended(0, 0, True)]
