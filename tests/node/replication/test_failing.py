"""A log that cannot follow is tried again and again: people hear when it begins, at times, when it ends."""

from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.node.replication.copying import CopyStep
from tailrace.node.replication.failing import REMIND_S, Failing
from tailrace.protocol.errors import CorruptBatchError, StorageFullError

FULL = StorageFullError("the disk is full")


def step(number: int, *, batches: bool = True) -> CopyStep:
    log: Any = SimpleNamespace(name=f"t-{number}")
    return CopyStep((bytes(16), number), log, 1, (b"batch",) if batches else ())


@pytest.fixture
def failing() -> Failing:
    return Failing()


def test_one_line_when_it_begins_and_one_when_all_go_on(failing: Failing) -> None:
    told = [failing.take(step(number), FULL, 10.0 + number / 10) for number in (0, 1, 2, 0, 1)]
    assert told == ["following t-0: the disk is full", None, None, None, None]
    assert failing.take(step(0, batches=False), None, 20.0) is None, "that needs no room"
    assert [failing.take(step(number), None, 40.0) for number in (0, 2)] == [None, None]
    assert failing.take(step(1), None, 40.0) == "following goes on, at last t-1, after 30 s"
    assert failing.take(step(1), None, 41.0) is None
    assert failing.take(step(1), FULL, 42.0) == "following t-1: the disk is full"


def test_a_reminder_a_minute(failing: Failing) -> None:
    told = [failing.take(step(now % 3), FULL, now) for now in range(150)]
    assert [(now, text) for now, text in enumerate(told) if text is not None] == [
        (0, "following t-0: the disk is full"),
        (REMIND_S, "following t-0 and 2 other partitions: the disk is full"),
        (2 * REMIND_S, "following t-0 and 2 other partitions: the disk is full"),
    ]


def test_another_reason_is_said(failing: Failing) -> None:
    assert failing.take(step(0), FULL, 0.0) is not None
    assert failing.take(step(1), CorruptBatchError("it is damaged"), 0.0) == "following t-1: it is damaged"
    assert failing.take(step(0), CorruptBatchError("it does not fit"), 0.0) is None, "what follows from it"


def test_what_is_followed_no_more_is_forgotten(failing: Failing) -> None:
    failing.take(step(0), FULL, 0.0)
    failing.take(step(1), FULL, 0.0)
    failing.forget([step(0).key])
    assert failing.take(step(1), None, 5.0) == "following goes on, at last t-1, after 5 s"
    failing.take(step(0), FULL, 6.0)
    failing.forget([step(0).key])
    assert failing.take(step(1), FULL, 7.0) == "following t-1: the disk is full"
