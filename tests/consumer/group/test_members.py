"""Consumers of a real cluster as members of a group whose coordinator is a model in this process."""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tailrace.client.engine import Engine
from tailrace.consumer import Consumer, OffsetAndMetadata, RebalanceListener
from tailrace.consumer.group.membership import Heartbeat, Join, Key
from tailrace.protocol.errors import (
    ErrorCode,
    FencedMemberError,
    InstanceIdInUseError,
    InvalidArgumentError,
    OffsetOutOfRangeError,
    SerializationError,
    TailraceError,
    UnknownMemberError,
)
from tailrace.protocol.group_messages import (
    CommitOffsets,
    CommittedOffset,
    FetchOffsets,
    GroupAssigned,
    GroupHeartbeat,
    GroupLeft,
    JoinGroup,
    LeaveGroup,
    OffsetsCommitted,
    OffsetsFetched,
)
from tailrace.protocol.message import ErrorInfo
from tailrace.protocol.partition_sets import keys_of, partition_set
from tailrace.protocol.record import TopicPartition
from tailrace.testing import Cluster

from ...patience import PATIENCE_S, wait_until
from ..conftest import Feeder, at, values_of
from .group_model import ModelGroup

GROUP_REQUESTS = (JoinGroup, GroupHeartbeat, LeaveGroup, CommitOffsets, FetchOffsets)


class ModelCoordinator:
    """Answers the group's requests of all engines; keeps a heartbeat until it has news."""

    def __init__(self, keys: list[Key]) -> None:
        self.lock = threading.RLock()
        self.group = ModelGroup(keys)
        self.offsets: dict[Key, CommittedOffset] = {}
        self.parked: dict[str, tuple[GroupHeartbeat, Callable[[Any], None]]] = {}
        self.told: dict[str, tuple[int, frozenset[Key]]] = {}
        self.refusals: list[TailraceError] = []
        """For those who ask to join next."""

    def take(self, request: Any, answer: Callable[[Any], None]) -> None:
        with self.lock:
            try:
                self._take(request, answer)
            except TailraceError as error:
                answer(error)
            self._tell_news()

    def remove(self, member_id: str) -> None:
        with self.lock:
            self.group.remove(member_id)
            kept = self.parked.pop(member_id, None)
            if kept is not None:
                kept[1](UnknownMemberError("thrown out"))
            self._tell_news()

    def change(self, change: Callable[[], object]) -> None:
        """Another target; everybody who waits is told."""
        with self.lock:
            change()
            self.group.epoch += 1
            self.group.reconcile()
            self._tell_news()

    def _take(self, request: Any, answer: Callable[[Any], None]) -> None:
        if isinstance(request, JoinGroup):
            if self.refusals:
                raise self.refusals.pop()
            told = self.group.tell(Join(0, request.member_id, request.topics))
            self._answer(request.member_id, told, answer)
        elif isinstance(request, GroupHeartbeat):
            owned = frozenset(keys_of(request.owned))
            told = self.group.tell(Heartbeat(0, request.member_id, request.member_epoch, owned, None))
            before = self.parked.pop(request.member_id, None)
            if before is not None:
                self._answer(request.member_id, told, before[1])
            if told != self.told.get(request.member_id):
                self._answer(request.member_id, told, answer)
            else:
                self.parked[request.member_id] = (request, answer)
        elif isinstance(request, LeaveGroup):
            answer(GroupLeft(0))
            self.remove(request.member_id)
        elif isinstance(request, CommitOffsets):
            answer(OffsetsCommitted(0, errors=tuple(self._commit(request))))
        else:
            wanted = frozenset(keys_of(request.partitions or ()))
            found = tuple(offset for key, offset in self.offsets.items() if key in wanted)
            answer(OffsetsFetched(0, offsets=found))

    def _commit(self, request: CommitOffsets) -> Iterator[ErrorInfo]:
        member = self.group.members.get(request.member_id)
        for entry in request.offsets:
            key = (entry.topic_id, entry.partition)
            if (member is None or key not in member.assigned | member.revoking) and self.group.members:
                yield ErrorInfo(ErrorCode.FENCED_MEMBER, "it is another member's")
            else:
                self.offsets[key] = CommittedOffset(
                    *key, entry.offset, entry.leader_epoch, entry.metadata, 1, len(self.group.keys)
                )
                yield ErrorInfo(ErrorCode.NONE, "")

    def _tell_news(self) -> None:
        for member_id, (_, answer) in list(self.parked.items()):
            member = self.group.members[member_id]
            told = (member.epoch, frozenset(member.assigned))
            if told != self.told[member_id]:
                del self.parked[member_id]
                self._answer(member_id, told, answer)

    def _answer(
        self, member_id: str, told: tuple[int, frozenset[Key]], answer: Callable[[Any], None]
    ) -> None:
        self.told[member_id] = told
        answer(GroupAssigned(0, member_epoch=told[0], assigned=partition_set(told[1])))


class Journal(RebalanceListener):
    def __init__(self) -> None:
        self.events: list[tuple[str, list[int]]] = []

    def on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.events.append(("assigned", sorted(one.partition for one in partitions)))

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.events.append(("revoked", sorted(one.partition for one in partitions)))

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        self.events.append(("lost", sorted(one.partition for one in partitions)))


@pytest.fixture
def topic(feeder: Feeder) -> str:
    return feeder.topic(4)


@pytest.fixture
def coordinator(feeder: Feeder, topic: str, monkeypatch: pytest.MonkeyPatch) -> ModelCoordinator:
    """The group's requests go there instead of out."""
    topic_id = feeder.engine.wait_for_topic(topic, PATIENCE_S).topic_id
    model = ModelCoordinator([(topic_id, number) for number in range(4)])
    request, call = Engine.request, Engine.call

    def divert(self: Engine, to: int, make: Any, frames: Any = (), *, on_reply: Any, **options: Any) -> None:
        if isinstance(made := make(0), GROUP_REQUESTS):
            model.take(made, lambda reply: self._loop.defer(partial(on_reply, reply, [])))
        else:
            request(self, to, make, frames, on_reply=on_reply, **options)

    def divert_call(self: Engine, to: int, make: Any, frames: Any = (), **options: Any) -> Any:
        if not isinstance(made := make(0), GROUP_REQUESTS):
            return call(self, to, make, frames, **options)
        replies: list[Any] = []
        model.take(made, replies.append)
        if isinstance(replies[0], TailraceError):
            raise replies[0]
        return replies[0], []

    monkeypatch.setattr(Engine, "request", divert)
    monkeypatch.setattr(Engine, "call", divert_call)
    return model


Make = Callable[..., Consumer]


@pytest.fixture
def consume(cluster: Cluster, coordinator: ModelCoordinator) -> Iterator[Make]:
    """Makes consumers; they are closed while the model still answers."""
    made: list[Consumer] = []

    def make(**options: Any) -> Consumer:
        options = {"auto_offset_reset": "earliest", "request_timeout_ms": int(PATIENCE_S * 1_000)} | options
        made.append(Consumer(bootstrap_servers=cluster.bootstrap_servers, **options))
        return made[-1]

    yield make
    for consumer in made:
        with suppress(FencedMemberError):
            consumer.close()


def member(consume: Make, topic: str, **options: Any) -> tuple[Consumer, Journal]:
    consumer, journal = consume(group_id="g", **options), Journal()
    consumer.subscribe([topic], listener=journal)
    return consumer, journal


def until(condition: Callable[[], bool], *consumers: Consumer) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        for consumer in consumers:
            consumer.poll(10)


def has(consumer: Consumer, count: int) -> Callable[[], bool]:
    return lambda: len(consumer.assignment()) == count


def test_the_first_member_reads_everything_when_subscribe_returns(
    consume: Make, topic: str, feeder: Feeder
) -> None:
    consumer, journal = member(consume, topic, auto_offset_reset="latest")
    assert journal.events == [("assigned", [0, 1, 2, 3])]
    feeder.send(topic, b"after", partition=2)
    assert values_of(consumer, 1) == [b"after"]


def test_partitions_move_without_two_that_hold_them_and_come_back(consume: Make, topic: str) -> None:
    first, journal = member(consume, topic)
    second, other = member(consume, topic)
    assert not first.assignment() & second.assignment()
    until(lambda: has(first, 2)() and has(second, 2)(), first, second)
    assert not first.assignment() & second.assignment()
    assert [what for what, _ in journal.events] == ["assigned", "revoked"]
    second.close()
    assert other.events[-1][0] == "revoked"
    until(has(first, 4), first)


def test_what_is_given_up_is_committed_first_and_goes_on_there(
    consume: Make, topic: str, feeder: Feeder
) -> None:
    for number in range(4):
        feeder.send_numbers(topic, range(10), partition=number)
    first, _ = member(consume, topic, auto_commit_interval_ms=600_000)
    assert len(values_of(first, 40)) == 40
    second, _ = member(consume, topic)
    until(has(second, 2), first, second)
    for number in range(4):
        feeder.send(topic, b"new", partition=number)
    got = []
    until(lambda: len(got) == 4, *[Take(one, got) for one in (first, second)])
    assert got == [b"new"] * 4


class Take:
    """Polls into a list."""

    def __init__(self, consumer: Consumer, values: list[bytes]) -> None:
        self.consumer, self.values = consumer, values

    def poll(self, timeout_ms: float) -> None:
        self.values += [one.value for records in self.consumer.poll(timeout_ms).values() for one in records]


def test_a_slow_loop_gives_partitions_up_between_two_records(
    consume: Make, topic: str, feeder: Feeder, coordinator: ModelCoordinator
) -> None:
    for number in range(4):
        feeder.send_numbers(topic, range(100), partition=number)
    first, journal = member(consume, topic)
    loop = iter(first)
    seen = [(one.partition, one.offset) for one in (next(loop) for _ in range(3))]
    second, _ = member(consume, topic)
    until(lambda: first._session.asking.house_keeping_due(0.0), second)
    record = next(loop)
    seen.append((record.partition, record.offset))
    assert journal.events[-1][0] == "revoked"
    assert len(set(seen)) == 4
    stored = {key[1]: offset.offset for key, offset in coordinator.offsets.items()}
    (busy,) = {partition for partition, _ in seen[:3]}
    if busy in journal.events[-1][1]:
        assert stored[busy] == 3, "the record in hand was asked past, and so is covered"


def test_what_was_taken_away_while_the_application_gave_up_something_else_is_not_taken(
    consume: Make, topic: str, coordinator: ModelCoordinator
) -> None:
    first, journal = member(consume, topic)
    second, _ = member(consume, topic)
    until(lambda: has(first, 2)() and has(second, 2)(), first, second)
    membership = first._session.group.membership  # type: ignore[union-attr]
    one, two = membership.member_id, second._session.group.membership.member_id  # type: ignore[union-attr]
    (kept, gone), (moving, _) = (sorted(each.assignment()) for each in (first, second))
    group, key_of = coordinator.group, {key[1]: key for key in coordinator.group.keys}

    def hand(partition: TopicPartition, giver: str, taker: str) -> None:
        key = key_of[partition.partition]
        group.target = {giver: group.target[giver] - {key}, taker: group.target[taker] | {key}}

    def change_again(_: Collection[TopicPartition]) -> None:
        coordinator.change(lambda: hand(moving, one, two))
        wait_until(lambda: key_of[moving.partition] in group.members[two].assigned, "it is the other's")

    coordinator.change(lambda: (hand(gone, one, two), hand(moving, two, one)))
    until(lambda: key_of[moving.partition] in group.members[one].assigned, second)
    wait_until(lambda: key_of[moving.partition] in membership.assigned, "the first has heard of both")
    journal.on_revoked = change_again  # type: ignore[method-assign]
    first.poll(0)
    assert first.assignment() == {kept}
    assert ("assigned", [moving.partition]) not in journal.events
    until(lambda: has(second, 3)(), first, second)


def test_a_member_that_was_thrown_out_is_told_and_comes_back(
    consume: Make, topic: str, feeder: Feeder, coordinator: ModelCoordinator
) -> None:
    feeder.send_numbers(topic, range(5))
    consumer, journal = member(consume, topic, enable_auto_commit=False)
    assert len(values_of(consumer, 5)) == 5
    other, _ = member(consume, topic)
    coordinator.remove(consumer._session.group.membership.member_id)  # type: ignore[union-attr]
    until(has(other, 4), other)
    with pytest.raises(FencedMemberError):
        consumer.commit()
    until(lambda: journal.events[-1][0] == "assigned" and len(journal.events) > 2, consumer, other)
    assert ("lost", [0, 1, 2, 3]) in journal.events


def test_commits_with_metadata_and_asynchronous_ones(
    consume: Make, topic: str, coordinator: ModelCoordinator
) -> None:
    consumer, _ = member(consume, topic, enable_auto_commit=False)
    consumer.commit({at(topic, 1): OffsetAndMetadata(7, "so far")})
    assert consumer.committed(at(topic, 1)) == 7
    assert consumer.committed_metadata(at(topic, 1)) == OffsetAndMetadata(7, "so far", -1)
    assert consumer.committed(at(topic, 0)) is None
    done: list[object] = []
    consumer.commit_async({at(topic, 0): 3}, done.append)
    until(lambda: done == [None])
    assert consumer.committed(at(topic, 0)) == 3
    assert len(coordinator.offsets) == 2


def test_who_waits_for_an_instance_id_is_told_at_once_and_once(
    consume: Make, topic: str, coordinator: ModelCoordinator, caplog: pytest.LogCaptureFixture
) -> None:
    coordinator.refusals += [InstanceIdInUseError("'one' is in use")] * 2
    consumer, _ = member(consume, topic, group_instance_id="one", client_id="me")
    assert has(consumer, 4)()
    told = [record.getMessage() for record in caplog.records if "in use" in record.getMessage()]
    assert told == ["me: 'one' is in use; trying for 3 s"]


@pytest.mark.parametrize(("reset", "first"), [("earliest", [b"0"]), ("latest", [b"new"]), ("none", None)])
def test_an_offset_past_the_end_is_stored_and_where_reading_starts_is_up_to_the_policy(
    consume: Make, topic: str, feeder: Feeder, caplog: pytest.LogCaptureFixture, reset: str, first: Any
) -> None:
    feeder.send_numbers(topic, range(10))
    alone = consume(group_id="g", enable_auto_commit=False)
    alone.assign([at(topic)])
    for offset in (-1, OffsetAndMetadata(-1)):
        with pytest.raises(InvalidArgumentError, match="offset is -1"):
            alone.commit({at(topic): offset})
    assert alone.committed(at(topic)) is None
    alone.commit({at(topic): 1_000})
    assert alone.committed(at(topic)) == 1_000

    consumer = consume(group_id="g", auto_offset_reset=reset)
    consumer.assign([at(topic)])
    if first is None:
        with pytest.raises(OffsetOutOfRangeError, match="offset 1000 is out of range, the log starts at 0"):
            consumer.poll(PATIENCE_S * 1_000)
        return
    assert consumer.metrics()["offset_resets"] == 1
    feeder.send(topic, b"new")
    assert values_of(consumer, 1) == first
    assert f"{topic}-0: the stored offset 1000 is not in 0 to 10: going on at" in caplog.text


def test_a_consumer_that_assigns_commits_to_the_group_while_nobody_is_in_it(
    consume: Make, topic: str, feeder: Feeder
) -> None:
    feeder.send_numbers(topic, range(10))
    alone = consume(group_id="g", enable_auto_commit=False)
    alone.assign([at(topic)])
    alone.commit({at(topic): 5})
    consumer, _ = member(consume, topic)
    assert consumer.position(at(topic)) == 5
    with pytest.raises(FencedMemberError):
        alone.commit({at(topic): 6})
    assert consumer.committed(at(topic)) == 5


@pytest.mark.parametrize("after", ["a poll in vain", "records", "an error"])
def test_a_member_that_does_not_ask_in_time_leaves(
    consume: Make, topic: str, feeder: Feeder, coordinator: ModelCoordinator, after: str
) -> None:
    failures = [ValueError("once")]

    def deserialize(value: bytes) -> bytes:
        if failures and after == "an error":
            raise failures.pop()
        return value

    consumer, journal = member(consume, topic, max_poll_interval_ms=300, value_deserializer=deserialize)
    if after == "a poll in vain":
        assert consumer.poll(1) == {}
    feeder.send_numbers(topic, range(5))
    if after == "records":
        assert consumer.poll(PATIENCE_S * 1_000)
    if after == "an error":
        with pytest.raises(SerializationError, match="once"):
            consumer.poll(PATIENCE_S * 1_000)
    deadline = time.monotonic() + PATIENCE_S
    while coordinator.group.members:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    consumer.poll(0)
    assert journal.events[1:2] == [("lost", [0, 1, 2, 3])]
    until(has(consumer, 4), consumer)
