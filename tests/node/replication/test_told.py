"""Which failed steps people hear of: those of logs that are followed."""

import logging
from typing import Any

import pytest

from tailrace.node.replication.copying import CopyStep, Source
from tailrace.node.replication.replication import Replication
from tailrace.protocol.errors import OffsetOutOfRangeError, StorageFullError, TailraceError

from .conftest import KEY

FULL = StorageFullError("the disk is full")
BEHIND = OffsetOutOfRangeError("a copy at offset 9, where the log ends at 4")
"""What becomes of a step behind one that failed."""


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("then", ["followed", "left", "of another leader"])
def test_the_step_behind_a_failed_one_is_no_news(
    replication: Replication, log: Any, caplog: pytest.LogCaptureFixture, then: str
) -> None:
    """Also when its topic was deleted in between."""
    replication.resign([KEY])
    replication.copy({KEY: (log, Source(2, 4))})

    def fails(error: TailraceError) -> None:
        replication.copied([(CopyStep(KEY, log, 4, (b"batch",)), error)], 0.001, 0.0)

    fails(FULL)
    assert told(caplog) == ["following t-0: the disk is full"]
    if then != "followed":
        replication.leave([KEY])
    if then == "of another leader":
        replication.copy({KEY: (log, Source(3, 5))})
    fails(BEHIND)
    assert told(caplog) == ["following t-0: the disk is full"]
