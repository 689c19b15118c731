"""The cluster state: copies that apply the same changes, or take a snapshot anywhere between, agree."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.protocol import wire
from tailrace.protocol.cluster import (
    NO_LEADER,
    Change,
    ClusterState,
    Listener,
    NodeChanged,
    NodeInfo,
    NodeRemoved,
    PartitionChanged,
    PartitionInfo,
    Snapshot,
    TopicChanged,
    TopicConfig,
    TopicInfo,
    TopicRemoved,
)
from tailrace.protocol.errors import UnknownTopicError
from tailrace.protocol.messages import SnapshotTaken, Update


def node(node_id: int, alive: bool = True) -> NodeInfo:
    return NodeInfo(node_id, 1, Listener(f"tcp://127.0.0.1:{7_000 + node_id}"), f"storage-{node_id}", alive)


def partition(leader: int, epoch: int = 1) -> PartitionInfo:
    return PartitionInfo((1, 2), leader, epoch, epoch, (1,))


def topic(number: int, partitions: int = 2) -> TopicInfo:
    return TopicInfo(bytes([number]) * 16, f"topic-{number}", TopicConfig(), (partition(1),) * partitions)


NUMBERS = st.integers(1, 4)


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    """Changes as a coordinator makes them: a topic's partitions change while it exists."""
    changes: list[Change] = []
    sizes: dict[int, int] = {}
    for _ in range(draw(st.integers(0, 25))):
        number = draw(NUMBERS)
        kind = draw(st.sampled_from(["node", "node gone", "topic", "topic gone", "partition", "partition"]))
        if kind == "node":
            changes.append(NodeChanged(node(number, draw(st.booleans()))))
        elif kind == "node gone":
            changes.append(NodeRemoved(number))
        elif kind == "topic":
            sizes[number] = draw(st.integers(sizes.get(number, 1), 5))
            changes.append(TopicChanged(topic(number, sizes[number])))
        elif kind == "topic gone":
            sizes.pop(number, None)
            changes.append(TopicRemoved(topic(number).topic_id))
        elif number in sizes:
            index = draw(st.integers(0, sizes[number] - 1))
            changed = partition(draw(st.sampled_from([1, 2, NO_LEADER])), draw(st.integers(1, 9)))
            changes.append(PartitionChanged(topic(number).topic_id, index, changed))
    return changes


def everything_in(state: ClusterState) -> tuple[Any, ...]:
    return state.controller_epoch, state.version, state.nodes, state.topics, state.topic_ids


def after(changes: list[Change], start: Snapshot | None = None) -> ClusterState:
    state = ClusterState(start)
    for change in changes:
        state.apply(change)
        state.version += 1
    return state


@settings(max_examples=200, deadline=None)
@given(histories(), st.data())
def test_a_snapshot_and_the_rest_lead_to_the_same_state(changes: list[Change], data: st.DataObject) -> None:
    taken_at = data.draw(st.integers(0, len(changes)))
    whole = after(changes)
    sent = SnapshotTaken(1, snapshot=after(changes[:taken_at]).snapshot())
    received = wire.decode_reply(wire.encode(sent))
    assert isinstance(received, SnapshotTaken)
    assert received == sent
    assert everything_in(after(changes[taken_at:], received.snapshot)) == everything_in(whole)


@settings(max_examples=200, deadline=None)
@given(histories())
def test_all_at_once_is_one_by_one(changes: list[Change]) -> None:
    update = wire.decode_published(wire.encode(Update(1, 1, changes)))
    assert isinstance(update, Update)
    state = ClusterState()
    state.apply_all(update.changes)
    state.version = len(changes)
    assert everything_in(state) == everything_in(after(changes))


@settings(max_examples=100, deadline=None)
@given(histories())
def test_names_lead_to_the_topics_there_are(changes: list[Change]) -> None:
    state = after(changes)
    assert state.topic_ids == {info.name: topic_id for topic_id, info in state.topics.items()}
    for info in state.topics.values():
        assert state.topic(info.name) is info
    assert state.topic("no such topic") is None
    assert ClusterState(state.snapshot()).snapshot() == state.snapshot()


def test_a_topic_made_anew_keeps_its_name_when_the_old_one_goes() -> None:
    old, new = topic(1), TopicInfo(b"n" * 16, "topic-1", TopicConfig(), ())
    state = after([TopicChanged(old), TopicChanged(new), TopicRemoved(old.topic_id)])
    assert state.topic("topic-1") is new


def test_changes_leave_earlier_snapshots_alone() -> None:
    state = after([NodeChanged(node(1)), TopicChanged(topic(1))])
    before = state.snapshot()
    state.apply(PartitionChanged(topic(1).topic_id, 1, partition(NO_LEADER, 2)))
    state.apply(NodeRemoved(1))
    assert before.topics[0].partitions == (partition(1), partition(1))
    assert before.nodes == (node(1),)
    changed = state.topic("topic-1")
    assert changed is not None
    assert changed.partitions == (partition(1), partition(NO_LEADER, 2))


def test_what_is_not_there_can_be_removed() -> None:
    assert everything_in(after([NodeRemoved(1), TopicRemoved(bytes(16))])) == (0, 2, {}, {}, {})


def test_a_partition_of_an_unknown_topic_means_that_changes_were_missed() -> None:
    with pytest.raises(LookupError):
        ClusterState().apply(PartitionChanged(bytes(16), 0, partition(1)))
    with pytest.raises(LookupError):
        after([TopicChanged(topic(1, 2)), PartitionChanged(topic(1).topic_id, 2, partition(1))])


def test_a_copy_is_the_same_and_stays_so() -> None:
    state = after([NodeChanged(node(1)), TopicChanged(topic(1))])
    copy = state.copy()
    assert everything_in(copy) == everything_in(state)
    state.apply_all([NodeRemoved(1), TopicRemoved(topic(1).topic_id), TopicChanged(topic(2))])
    assert everything_in(copy) == everything_in(after([NodeChanged(node(1)), TopicChanged(topic(1))]))


def test_a_topic_that_does_not_exist_is_refused_with_similar_names() -> None:
    state = after([TopicChanged(TopicInfo(b"t" * 16, "flights", TopicConfig(), ()))])
    assert state.existing_topic("flights").name == "flights"
    for name, says in [
        ("flihgts", "topic 'flihgts' does not exist; did you mean 'flights'?"),
        ("zzz", "topic 'zzz' does not exist (`tailrace topic create` or Admin.create_topic)"),
    ]:
        with pytest.raises(UnknownTopicError) as caught:
            state.existing_topic(name)
        assert str(caught.value) == says
    state.apply(TopicChanged(TopicInfo(b"u" * 16, "flight", TopicConfig(), ())))
    with pytest.raises(UnknownTopicError, match="did you mean 'flights' or 'flight'"):
        state.existing_topic("flightss")
