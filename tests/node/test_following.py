"""What the node says of partitions that it cannot open, which it tries again each second."""

from typing import Any
from unittest.mock import Mock

import pytest

from tailrace.node import following
from tailrace.node.following import REOPEN_S, Following
from tailrace.node.leaders import Leaders
from tailrace.node.storage.environment import Storage
from tailrace.node.work import Prepared
from tailrace.protocol.cluster import ClusterState
from tailrace.protocol.errors import ErrorCode, LimitExceededError, StorageFullError, TailraceError
from tailrace.protocol.messages import DeleteTopic, Produce

from ..patience import wait_until
from .conftest import House


class Failing:
    """`Storage.create` that fails as long as there is an error, and counts how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: TailraceError | None = None
        self.failed = 0
        create = Storage.create

        def fail(storage: Storage, keys: Any) -> None:
            new = [key for key in keys if key not in storage.logs]
            if new and self.error is not None:
                self.failed += 1
                raise self.error
            create(storage, keys)

        monkeypatch.setattr(Storage, "create", fail)
        monkeypatch.setattr(following, "REOPEN_S", 0.01)

    def again(self) -> None:
        """Wait until it was tried a few times more."""
        tried = self.failed
        wait_until(lambda: self.failed > tried + 3, "it is tried again")


@pytest.fixture
def failing(house: House, monkeypatch: pytest.MonkeyPatch) -> Failing:
    """In a node that runs."""
    failing = Failing(monkeypatch)
    house.start()
    return failing


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.name == following.__name__]
    return [line for line in lines if "partition" in line]


def test_partitions_that_cannot_be_opened_are_told_once_and_when_it_is_over(
    house: House, failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    failing.error = StorageFullError("creating partitions: the disk is full, 7 bytes are free")
    topic = house.create("a", partitions=2)
    failing.again()
    failing.error = StorageFullError("creating partitions: the disk is full, 8 bytes are free")
    failing.again()
    lines = ["2 partitions cannot be opened: creating partitions: the disk is full, 7 bytes are free"]
    assert told(caplog) == lines, "how much is free is no news"

    house.create("b")
    failing.again()
    lines.append("3 partitions cannot be opened: creating partitions: the disk is full, 8 bytes are free")
    assert told(caplog) == lines

    failing.error = None
    lines.append("all partitions are open now")
    wait_until(lambda: told(caplog) == lines, "it is over")
    reply, _ = house.peer().ask(Produce, [b""], entries=[topic.entry()])
    assert reply.results[0].error.code == ErrorCode.CORRUPT_BATCH, "it is open"


def test_it_is_over_when_nobody_wants_them_any_more(
    house: House, failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    failing.error = LimitExceededError("too many")
    house.create("a")
    lines = ["1 partition cannot be opened: too many"]
    wait_until(lambda: told(caplog) == lines, "it is told")
    house.peer(house.coordinator_ipc).ask(DeleteTopic, name="a")
    lines.append("all partitions are open now")
    wait_until(lambda: told(caplog) == lines, "it is over")
    assert failing.failed == 1, "what does not pass by itself is not tried again"


def test_what_could_not_be_let_go_is_let_go_later() -> None:
    """Nothing else may happen that would have the writer look at it again."""
    writer, key = Mock(), (bytes(16), 0)
    membership = Mock(cluster=ClusterState(), controller_epoch=7)
    node = Following(1, membership, Leaders(), writer, Mock(logs={}))
    node.prepared(Prepared(1, {}, {}, {}, {key: 5}), 10.0)
    assert node.next_tick() == 10.0 + REOPEN_S
    node.tick(10.0 + REOPEN_S)
    [[prepare], _] = writer.submit.call_args
    assert (prepare.controller_epoch, prepare.roles, prepare.released) == (7, {}, {key: 5})
    node.prepared(Prepared(1, {}, {}, {}), 12.0)
    node.tick(99.0)
    assert writer.submit.call_count == 1
