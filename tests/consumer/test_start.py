"""Where reading starts, and which positions are stored when."""

from math import inf
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any, cast

import pytest

from tailrace.client.engine import Engine
from tailrace.consumer.assigned import AssignedPartition, Reset
from tailrace.consumer.assignment import Assignment
from tailrace.consumer.commits import Commits
from tailrace.consumer.fetcher import Fetcher
from tailrace.consumer.local.partition import PartitionStore
from tailrace.consumer.local.store import LocalStore
from tailrace.consumer.offsets import Done, LocalOffsets, Offsets
from tailrace.consumer.start import LogRange, new_partitions, start_offset
from tailrace.consumer.stored_offset import StoredOffset
from tailrace.protocol.cluster import ClusterState, TopicInfo
from tailrace.protocol.errors import (
    BusyError,
    ClosedError,
    DataFolderError,
    InvalidArgumentError,
    OffsetOutOfRangeError,
    TailraceError,
)
from tailrace.protocol.record import TopicPartition

from .model import TOPIC, TOPIC_ID, ModelCluster

LOG = LogRange(10, 20)
NAMES = [TopicPartition(TOPIC, number) for number in range(4)]


@pytest.mark.parametrize(
    ("stored", "reset", "start"),
    [
        (None, "earliest", 10), (None, "latest", 20),
        (10, "latest", 10), (15, "latest", 15), (20, "earliest", 20), (15, "none", 15),
        (9, "earliest", 10), (9, "latest", 20), (21, "earliest", 10), (21, "latest", 20),
    ],
)  # fmt: skip
def test_a_stored_offset_counts_if_the_log_has_it(stored: int | None, reset: Reset, start: int) -> None:
    offset = None if stored is None else StoredOffset(stored)
    assert start_offset(NAMES[0], offset, LOG, reset) == start


@pytest.mark.parametrize(
    ("stored", "says"), [(None, "no offset is stored, the log starts at 10"), (5, "offset 5 is out of range")]
)
def test_without_a_policy_there_may_be_no_start(stored: int | None, says: str) -> None:
    offset = None if stored is None else StoredOffset(stored)
    error = start_offset(NAMES[0], offset, LOG, "none")
    assert isinstance(error, OffsetOutOfRangeError)
    assert says in str(error)


def test_partitions_that_came_while_nobody_read_are_read_from_their_beginning() -> None:
    two_then = StoredOffset(5, partition_count=2)
    assert new_partitions(dict(zip(NAMES, [two_then, two_then, None, None], strict=True)), {}) == set(
        NAMES[2:]
    )
    assert (
        new_partitions(dict(zip(NAMES, [two_then, None, None, StoredOffset(1, -1, 4)], strict=True)), {})
        == set()
    )
    assert new_partitions(dict.fromkeys(NAMES), {}) == set()


class Clerk:
    """Commits of four partitions with a store of its own."""

    def __init__(self, folder: Path, interval_s: float | None) -> None:
        self.commits = Commits(
            LocalOffsets(LocalStore(folder, "test")),
            interval_s=interval_s,
            partition_count=lambda _: 4,
            timeout_s=1.0,
        )
        self.partitions = [AssignedPartition(name, TOPIC_ID, 0, "earliest", Random(0)) for name in NAMES]
        self.commits.hold(dict.fromkeys(NAMES, TOPIC_ID), 1.0)

    def stored(self) -> list[StoredOffset | None]:
        return [self.commits._stored[partition.key] for partition in self.partitions]


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    clerk = Clerk(tmp_path, 1.0)
    clerk.commits.store_settled(clerk.partitions, now=0.0)
    assert clerk.stored() == [StoredOffset(0, -1, 4)] * 4
    assert clerk.commits.writes == 4
    assert not clerk.commits.has_news(clerk.partitions)
    clerk.partitions[2].settled, clerk.partitions[2].settled_epoch = 7, 3
    clerk.partitions[1].position = 9
    assert clerk.commits.has_news(clerk.partitions)
    clerk.commits.store_settled(clerk.partitions, now=5.0)
    assert clerk.commits.writes == 5
    assert clerk.stored()[2] == StoredOffset(7, 3, 4)
    assert clerk.commits.due_at == 6.0
    clerk.commits.close()


def test_partitions_that_have_no_offset_yet_are_written_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others' partition count would tell that they were there, and so not new."""
    clerk = Clerk(tmp_path, None)
    clerk.commits.store_settled(clerk.partitions[:2], now=0.0)
    for partition in clerk.partitions:
        partition.settled = 5
    written: list[int] = []
    write = PartitionStore.write

    def spy(store: PartitionStore, offset: StoredOffset) -> None:
        written.append(store._identity.partition)
        write(store, offset)

    monkeypatch.setattr(PartitionStore, "write", spy)
    clerk.commits.store_settled(clerk.partitions, now=0.0)
    assert sorted(written[:2]) == [2, 3]
    assert sorted(written[2:]) == [0, 1]
    clerk.commits.close()


def test_without_auto_commit_nothing_is_ever_due(tmp_path: Path) -> None:
    clerk = Clerk(tmp_path, None)
    assert clerk.commits.due_at == inf
    assert not clerk.commits.automatic
    clerk.commits.store_settled(clerk.partitions, now=0.0)
    assert clerk.commits.due_at == inf
    clerk.commits.close()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            BusyError("the coordinator is"),
            "auto-commit failed, the next one covers it too: the coordinator is",
        ),
        (ClosedError("it is closed"), "is perhaps not committed, and read again then: it is closed"),
    ],
)
def test_an_auto_commit_that_fails_tells_what_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: TailraceError, told: str
) -> None:
    class Remote(LocalOffsets):
        remote = True

        def write_later(self, offsets: Offsets, done: Done) -> None:
            done(error)

    clerk = Clerk(tmp_path, 1.0)
    clerk.commits._store = Remote(LocalStore(tmp_path, "remote"))
    clerk.commits.store_in_time(clerk.partitions, now=2.0)
    (record,) = caplog.records
    assert record.getMessage().endswith(told)
    clerk.commits.close()


def test_a_partition_that_cannot_start_is_not_stored(tmp_path: Path) -> None:
    clerk = Clerk(tmp_path, 1.0)
    clerk.partitions[0].settled = -1
    clerk.commits.store_settled(clerk.partitions[:1], now=0.0)
    assert clerk.stored()[0] is None
    clerk.commits.close()


def test_without_a_store_there_is_nothing_to_commit_to() -> None:
    commits = Commits(None, interval_s=1.0, partition_count=lambda _: 1, timeout_s=1.0)
    assert not commits.automatic
    assert commits.hold({NAMES[0]: TOPIC_ID}, 1.0).stored == {NAMES[0]: None}
    with pytest.raises(InvalidArgumentError):
        commits.check()
    commits.close()


class Growing:
    """What an assignment asks an engine, for a topic that gets more partitions."""

    request_timeout_s = 1.0

    def __init__(self) -> None:
        self.state = ClusterState()
        self.grow(2)

    def grow(self, partitions: int, topic_id: bytes = TOPIC_ID) -> None:
        grown = ModelCluster(partitions).topic()
        self.state = ClusterState()
        self.state.topics[topic_id] = TopicInfo(topic_id, TOPIC, grown.config, grown.partitions)
        self.state.topic_ids[TOPIC] = topic_id

    @property
    def cluster(self) -> ClusterState:
        return self.state

    def topic(self, name: str) -> TopicInfo | None:
        return self.state.topic(name)


class Subscriber:
    """An assignment that has subscribed the growing topic while it had two partitions."""

    def __init__(self, store: LocalStore | None = None) -> None:
        self.engine = Growing()
        self.fetcher = Fetcher(partition_bytes=1_000, reset="latest", random=Random(0))
        self.commits = Commits(
            None if store is None else LocalOffsets(store),
            interval_s=1.0,
            partition_count=lambda _: len(self.names),
            timeout_s=1.0,
        )
        self.assignment = Assignment(
            cast(Engine, self.engine), self.fetcher, Lock(), self.commits, reset="latest", random=Random(0)
        )
        self.assignment.topics = (TOPIC,)
        self.assignment.adopt_new()

    @property
    def names(self) -> list[TopicPartition]:
        return list(self.assignment.partitions)


def test_partitions_that_are_added_are_read_from_their_beginning_whatever_the_policy() -> None:
    subscriber = Subscriber()
    subscriber.engine.grow(4)
    subscriber.assignment.adopt_new()
    assert subscriber.names == NAMES
    assert [
        (partition.position, partition.reset) for partition in subscriber.assignment.partitions.values()
    ] == [(0, "earliest")] * 4
    (plan,) = subscriber.fetcher.plan(0.0)
    assert len(cast(Any, plan).entries) == 4


def test_a_topic_created_anew_does_not_slip_into_the_subscription() -> None:
    subscriber = Subscriber()
    subscriber.engine.grow(4, topic_id=bytes(16))
    subscriber.assignment.adopt_new()
    assert subscriber.names == NAMES[:2]


def test_added_partitions_are_held_in_the_store_and_stored_at_once(tmp_path: Path) -> None:
    subscriber = Subscriber(LocalStore(tmp_path, "first"))
    subscriber.engine.grow(3)
    other = LocalStore(tmp_path, "other")
    other.hold(NAMES[2], TOPIC_ID)
    with pytest.raises(DataFolderError, match=r"orders-2 .*held by"):
        subscriber.assignment.adopt_new()
    other.close()
    subscriber.assignment.adopt_new()
    assert subscriber.names == NAMES[:3]
    assert subscriber.commits._stored[TOPIC_ID, 2] == StoredOffset(0, -1, 3)
    subscriber.commits.close()
