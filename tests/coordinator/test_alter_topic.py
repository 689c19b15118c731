"""AlterTopic: partitions spread evenly, configs change key by key, the answer waits for leaders."""

import pytest

from tailrace.coordinator.groups.state import GroupsState
from tailrace.coordinator.handlers import alter_topic, leave_cluster
from tailrace.coordinator.machine import Machine, Settings
from tailrace.coordinator.state import State
from tailrace.protocol.cluster import Listener, TopicConfig
from tailrace.protocol.errors import (
    InvalidConfigError,
    LimitExceededError,
    NotEnoughNodesError,
    UnknownTopicError,
)
from tailrace.protocol.limits import PARTITIONS_PER_TOPIC_MAX
from tailrace.protocol.messages import (
    AlterTopic,
    CreateTopic,
    Heartbeat,
    RegisterNode,
    TopicAltered,
    TopicCreated,
    Update,
)

WALL_MS = 1_700_000_000_000

LISTENER = Listener("tcp://127.0.0.1:1")


@pytest.fixture
def machine() -> Machine:
    machine = Machine(State("c"), GroupsState(), Settings(LISTENER, 6_000), 0.0)
    for node_id in (1, 2):
        request = RegisterNode(0, node_id=node_id, listener=LISTENER, storage_id="s")
        machine.ask(b"node", request, b"", 0.0, WALL_MS)
    machine.ask(
        b"p", CreateTopic(1, name="t", partitions=3, config={"retention.ms": 5}), b"t" * 16, 0.0, WALL_MS
    )
    beat(machine, 1)
    beat(machine, 2)
    return machine


def beat(machine: Machine, node_id: int) -> list[object]:
    cluster = machine.state.cluster
    request = Heartbeat(
        9, node_id=node_id, node_epoch=cluster.nodes[node_id].node_epoch, applied_version=cluster.version
    )
    answers = machine.ask(b"node", request, b"", 1.0, WALL_MS).answers
    return [reply for peer, reply in answers if peer != b"node"]


def test_new_partitions_are_spread_and_answered_when_their_leaders_have_them(machine: Machine) -> None:
    before = machine.state.cluster.topics[b"t" * 16].partitions
    outcome = machine.ask(b"p", AlterTopic(2, name="t", partitions=7), b"", 0.0, WALL_MS)
    assert outcome.answers == ()
    topic = machine.state.cluster.topics[b"t" * 16]
    assert topic.partitions[:3] == before
    assert {partition.leader for partition in topic.partitions[3:]} == {1, 2}
    assert beat(machine, 1) == []
    assert beat(machine, 2) == [TopicAltered(2, topic=topic)]


def test_several_may_wait_for_one_topic(machine: Machine) -> None:
    machine.ask(b"p", CreateTopic(3, name="u", partitions=2), b"u" * 16, 0.0, WALL_MS)
    machine.ask(b"p", AlterTopic(4, name="u", partitions=4), b"", 0.0, WALL_MS)
    beat(machine, 1)
    replies = beat(machine, 2)
    assert [type(reply) for reply in replies] == [TopicCreated, TopicAltered]


def test_a_config_is_answered_at_once_and_keeps_what_is_not_named(machine: Machine) -> None:
    outcome = machine.ask(b"p", AlterTopic(2, name="t", config={"retention.bytes": "7"}), b"", 0.0, WALL_MS)
    topic = machine.state.cluster.topics[b"t" * 16]
    assert topic.config == TopicConfig(retention_ms=5, retention_bytes=7)
    assert outcome.answers == ((b"p", TopicAltered(2, topic=topic)),)
    assert outcome.update is not None
    machine.ask(b"p", AlterTopic(2, name="t", config={"retention_ms": None}), b"", 0.0, WALL_MS)
    assert machine.state.cluster.topics[b"t" * 16].config == TopicConfig(retention_bytes=7)


def test_what_changes_nothing_is_no_version(machine: Machine) -> None:
    outcome = machine.ask(b"p", AlterTopic(2, name="t", partitions=3), b"", 0.0, WALL_MS)
    assert outcome.update is None
    assert isinstance(outcome.answers[0][1], TopicAltered)


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (AlterTopic(0, name="x"), UnknownTopicError, "does not exist"),
        (AlterTopic(0, name="t", partitions=2), InvalidConfigError, "none can be taken away"),
        (AlterTopic(0, name="t", partitions=-1), InvalidConfigError, "none can be taken away"),
        (AlterTopic(0, name="t", partitions=PARTITIONS_PER_TOPIC_MAX + 1), LimitExceededError, "at most"),
        (AlterTopic(0, name="t", config={"retention.mss": None}), InvalidConfigError, "did you mean"),
    ],
)
def test_refusals(machine: Machine, request_: AlterTopic, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        alter_topic.decide(machine.state, request_)


def test_without_living_nodes_no_partitions_are_added() -> None:
    state = State("c")
    machine = Machine(state, GroupsState(), Settings(LISTENER, 6_000), 0.0)
    machine.ask(b"n", RegisterNode(0, node_id=1, listener=LISTENER, storage_id="s"), b"", 0.0, WALL_MS)
    machine.ask(b"p", CreateTopic(1, name="t"), b"t" * 16, 0.0, WALL_MS)
    state.apply(Update(0, state.cluster.version + 1, list(leave_cluster.die(state, [1]).changes)))
    with pytest.raises(NotEnoughNodesError):
        alter_topic.decide(state, AlterTopic(0, name="t", partitions=2))
