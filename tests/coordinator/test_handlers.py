"""What each request is refused for and what it reports, one decision at a time."""

from typing import Any

import pytest

from tailrace.coordinator.decision import Decision
from tailrace.coordinator.handlers import (
    create_topic,
    delete_topic,
    init_producer,
    leave_cluster,
    register_node,
)
from tailrace.coordinator.private_state import (
    ProducerEpochRaised,
    ProducerIdIssued,
    TombstoneDropped,
    TopicBuried,
)
from tailrace.coordinator.state import State
from tailrace.protocol import limits
from tailrace.protocol.cluster import Listener, NodeChanged, PartitionChanged
from tailrace.protocol.errors import (
    InvalidArgumentError,
    InvalidConfigError,
    InvalidTopicError,
    LimitExceededError,
    NodeIdInUseError,
    NotEnoughNodesError,
    TailraceError,
    TopicExistsError,
    UnknownTopicError,
)
from tailrace.protocol.messages import (
    CreateTopic,
    DeleteTopic,
    InitProducer,
    NodeRegistered,
    ProducerReady,
    RegisterNode,
    Update,
)

TIMEOUT_MS = 6_000


def accept(state: State, decision: Decision) -> Decision:
    for change in decision.private:
        state.apply_private(change)
    if decision.changes:
        cluster = state.cluster
        state.apply(Update(cluster.controller_epoch, cluster.version + 1, list(decision.changes)))
    return decision


def register(state: State, node_id: int, **fields: Any) -> Decision:
    fields = {"listener": Listener("tcp://127.0.0.1:1"), "storage_id": "s"} | fields
    return accept(state, register_node.decide(state, RegisterNode(0, node_id=node_id, **fields), TIMEOUT_MS))


def create(state: State, name: str, **fields: Any) -> Decision:
    topic_id = name.encode()[:16].ljust(16, b"-")
    return accept(state, create_topic.decide(state, CreateTopic(0, name=name, **fields), topic_id))


def kill(state: State, *node_ids: int) -> Decision:
    return accept(state, leave_cluster.die(state, node_ids))


@pytest.fixture
def state() -> State:
    state = State("cluster")
    register(state, 1)
    register(state, 2)
    return state


@pytest.mark.parametrize(
    "fields",
    [{"node_id": -1}, {"listener": Listener("")}, {"storage_id": ""}],
    ids=lambda fields: next(iter(fields)),
)
def test_an_incomplete_registration_is_refused(state: State, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="storage id"):
        register(state, **({"node_id": 5} | fields))


def test_a_registration_tells_all_that_the_node_must_know(state: State) -> None:
    decision = register(state, 3, rack="r")
    assert isinstance(decision.reply, NodeRegistered)
    assert decision.reply.session_timeout_ms == TIMEOUT_MS
    assert decision.changes == (NodeChanged(state.cluster.nodes[3]),)
    assert state.cluster.nodes[3].node_epoch == state.cluster.version == 3
    assert decision.warnings == ()
    assert decision.notes == ("node 3 registered at tcp://127.0.0.1:1 in epoch 3",)
    assert register(state, 3, clean=False).notes[0].endswith("in epoch 4, after an unclean stop")


def test_the_id_of_a_living_node_is_taken(state: State) -> None:
    with pytest.raises(NodeIdInUseError, match=r"node 1 is alive at tcp://127\.0\.0\.1:1"):
        register(state, 1, storage_id="other")


def test_other_storage_is_reported_with_what_was_lost(state: State) -> None:
    create(state, "t", partitions=30)
    kill(state, 1)
    [warning] = register(state, 1, storage_id="other").warnings
    assert warning.startswith("node 1 came back with other storage (other, before s)")
    assert "all records of 15 partitions that only it holds may be lost: t-0, t-2, " in warning
    assert warning.endswith("t-18, ...")
    assert all(p.leader in (1, 2) for p in state.cluster.topics[b"t" + b"-" * 15].partitions)


def test_other_storage_of_a_node_without_partitions_is_reported_too(state: State) -> None:
    kill(state, 1)
    assert register(state, 1, storage_id="other").warnings == (
        "node 1 came back with other storage (other, before s)",
    )


def test_logs_of_unknown_topics_are_kept_and_reported(state: State) -> None:
    create(state, "t")
    create(state, "gone")
    accept(state, delete_topic.decide(state, DeleteTopic(0, name="gone")))
    known, deleted, unknown = b"t" + b"-" * 15, b"gone" + b"-" * 12, b"\xff" * 16
    decision = register(state, 1, topic_ids=[known, deleted, unknown])
    assert isinstance(decision.reply, NodeRegistered)
    assert decision.reply.deleted_topics == [deleted]
    [warning] = decision.warnings
    assert "1 topics that this cluster does not know and keeps them: " + "ff" * 16 in warning


def test_a_node_that_died_leads_nothing_and_all_again_when_it_returns(state: State) -> None:
    create(state, "t", partitions=4)
    died = kill(state, 1, 2)
    assert [type(change) for change in died.changes] == [NodeChanged] * 2 + [PartitionChanged] * 4
    returned = register(state, 2)
    assert [change.index for change in returned.changes if isinstance(change, PartitionChanged)] == [1, 3]
    partitions = state.cluster.topics[b"t" + b"-" * 15].partitions
    assert [(p.leader, p.leader_epoch, p.partition_epoch) for p in partitions] == [(-1, 0, 1), (2, 1, 2)] * 2


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"name": "a b"}, InvalidTopicError, "'a b'"),
        ({"name": "t"}, TopicExistsError, "'t' exists"),
        ({"partitions": 0}, InvalidArgumentError, "at least one partition, not 0"),
        ({"partitions": limits.PARTITIONS_PER_TOPIC_MAX + 1}, LimitExceededError, "4001 partitions"),
        ({"replication_factor": 0}, InvalidConfigError, "at least 1, not 0"),
        ({"replication_factor": 17}, InvalidConfigError, "at most 16 is possible"),
        ({"replication_factor": 3}, NotEnoughNodesError, "2 nodes are alive, 3 are needed"),
        ({"config": {"retention": 1}}, InvalidConfigError, "did you mean 'retention_ms'"),
    ],
)
def test_a_topic_that_cannot_be(
    state: State, fields: dict[str, Any], error: type[TailraceError], message: str
) -> None:
    create(state, "t")
    version = state.cluster.version
    with pytest.raises(error, match=message):
        create(state, **({"name": "new"} | fields))
    assert state.cluster.version == version


def test_a_topic_needs_a_living_node(state: State) -> None:
    kill(state, 1, 2)
    with pytest.raises(NotEnoughNodesError, match="0 nodes are alive, 1 is needed"):
        create(state, "t")


def test_only_living_nodes_get_partitions(state: State) -> None:
    kill(state, 1)
    create(state, "t", partitions=5)
    assert {p.replicas for p in state.cluster.topics[b"t" + b"-" * 15].partitions} == {(2,)}


def test_bounds_of_the_cluster(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    create(state, "t", partitions=3)
    monkeypatch.setattr(create_topic, "PARTITIONS_MAX", 4)
    with pytest.raises(LimitExceededError, match="there are 3 partitions; 2 more"):
        create(state, "u", partitions=2)
    monkeypatch.setattr(create_topic, "TOPICS_MAX", 1)
    with pytest.raises(LimitExceededError, match="there are 1 topics"):
        create(state, "u")
    monkeypatch.setattr(register_node, "NODES_MAX", 2)
    with pytest.raises(LimitExceededError, match="has 2 nodes"):
        register(state, 3)
    register(state, 1)


def test_the_state_must_fit_into_one_message(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create_topic, "SNAPSHOT_BYTES_MAX", state.snapshot_bytes + 200)
    monkeypatch.setattr(register_node, "SNAPSHOT_BYTES_MAX", state.snapshot_bytes + 200)
    with pytest.raises(LimitExceededError, match="no room for this topic"):
        create(state, "t", partitions=10)
    create(state, "t")
    register(state, 1)
    with pytest.raises(LimitExceededError, match="no room for another node"):
        register(state, 3, listener=Listener("tcp://" + "h" * 200 + ":1"))


def test_an_unknown_topic_is_not_deleted_but_named(state: State) -> None:
    create(state, "flights")
    with pytest.raises(UnknownTopicError, match="'flihgts' does not exist; did you mean 'flights'"):
        delete_topic.decide(state, DeleteTopic(0, name="flihgts"))
    with pytest.raises(UnknownTopicError) as raised:
        delete_topic.decide(state, DeleteTopic(0, name="f" * 4096))
    assert len(str(raised.value)) < 350


def test_the_oldest_tombstone_gives_way(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delete_topic, "TOMBSTONES_MAX", 2)
    for name in ("a", "b", "c"):
        create(state, name)
        decision = accept(state, delete_topic.decide(state, DeleteTopic(0, name=name)))
    version = state.cluster.version
    assert decision.private == (
        TopicBuried(b"c" + b"-" * 15, version),
        TombstoneDropped(b"a" + b"-" * 15, version - 4),
    )
    assert [topic_id[:1] for topic_id in state.tombstones] == [b"b", b"c"]


def test_an_exhausted_epoch_gives_a_new_id(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(state, init_producer.decide(state, InitProducer(0)))
    state.apply_private(ProducerEpochRaised(0, limits.PRODUCER_EPOCH_MAX))
    decision = init_producer.decide(state, InitProducer(0, producer_id=0, producer_epoch=2**15 - 1))
    assert decision == Decision(
        ProducerReady(0, producer_id=1, producer_epoch=0), private=(ProducerIdIssued(1),)
    )


def test_a_bounded_number_of_epochs_is_remembered(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init_producer, "PRODUCER_EPOCHS_MAX", 1)
    for _ in range(2):
        accept(state, init_producer.decide(state, InitProducer(0)))
    replies = [
        accept(state, init_producer.decide(state, InitProducer(0, producer_id=i, producer_epoch=epoch))).reply
        for i, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert replies == [
        ProducerReady(0, producer_id=0, producer_epoch=1),
        ProducerReady(0, producer_id=0, producer_epoch=2),
        ProducerReady(0, producer_id=2, producer_epoch=0),
    ]
