"""A replica with a fault in its log counts for nothing, unless it is the last one."""

import pytest

from tailrace.coordinator.decision import Decision
from tailrace.coordinator.handlers import alter_isr, leave_isr
from tailrace.coordinator.state import State
from tailrace.protocol.cluster import NO_LEADER, PartitionInfo
from tailrace.protocol.errors import ErrorCode, StaleNodeEpochError
from tailrace.protocol.replica_messages import (
    AlterIsr,
    IsrAltered,
    IsrProposal,
    IsrResult,
    LeaveIsr,
    ReplicaPlace,
)

from .test_handlers import accept, create, kill, register

TOPIC = b"t" + b"-" * 15


@pytest.fixture
def state() -> State:
    state = State("cluster")
    for node_id in (1, 2, 3):
        register(state, node_id)
    create(state, "t", replication_factor=3, config={"min_insync_replicas": 2})
    return state


def partition(state: State) -> PartitionInfo:
    return state.cluster.topics[TOPIC].partitions[0]


def ask(state: State, node_id: int, index: int = 0) -> tuple[IsrResult, Decision]:
    epoch = state.cluster.nodes[node_id].node_epoch
    request = LeaveIsr(1, node_id=node_id, node_epoch=epoch, replicas=[ReplicaPlace(TOPIC, index)])
    decision = accept(state, leave_isr.decide(state, request))
    assert isinstance(decision.reply, IsrAltered)
    [result] = decision.reply.results
    return result, decision


def test_another_one_leads(state: State) -> None:
    result, decision = ask(state, 1)
    assert partition(state) == PartitionInfo((1, 2, 3), 2, 1, 1, (2, 3)) == result.partition
    [warning] = decision.warnings
    assert warning == "node 1 has a fault in its log of t-0: it is out of sync, node 2 leads"


def test_one_that_was_out_before_cannot_be_taken_in_by_what_was_seen_before(state: State) -> None:
    """The leader may have proposed it already: it has seen the log before it was faulty."""
    ask(state, 2)
    proposed = partition(state)
    result, _ = ask(state, 2)
    assert result.error.code == ErrorCode.NONE
    assert result.partition == partition(state)
    assert partition(state).isr == proposed.isr == (1, 3)
    nodes = state.cluster.nodes
    request = AlterIsr(
        1,
        node_id=1,
        node_epoch=nodes[1].node_epoch,
        proposals=[IsrProposal(TOPIC, 0, proposed.leader_epoch, proposed.partition_epoch, (1, 2, 3))],
        member_epochs={2: nodes[2].node_epoch},
    )
    decision = alter_isr.decide(state, request)
    assert isinstance(decision.reply, IsrAltered)
    assert decision.reply.results[0].error.code == ErrorCode.FENCED_LEADER_EPOCH


def test_it_is_not_eligible_either(state: State) -> None:
    kill(state, 3)
    result, _ = ask(state, 1)
    assert result.partition == PartitionInfo((1, 2, 3), 2, 1, 2, (2,))
    kill(state, 2)
    assert partition(state).leader == NO_LEADER


def test_what_the_leader_knows_of_a_follower_is_void(state: State) -> None:
    result, _ = ask(state, 2)
    after = PartitionInfo((1, 2, 3), 1, 1, 1, (1, 3))
    assert result.partition == after
    nodes = state.cluster.nodes
    request = AlterIsr(
        1,
        node_id=1,
        node_epoch=nodes[1].node_epoch,
        proposals=[IsrProposal(TOPIC, 0, 0, 1, (1, 2, 3))],
        member_epochs={2: nodes[2].node_epoch},
    )
    decision = alter_isr.decide(state, request)
    assert isinstance(decision.reply, IsrAltered)
    assert decision.reply.results[0].error.code == ErrorCode.FENCED_LEADER_EPOCH
    assert partition(state) == after


def test_the_last_one_in_sync_stays(state: State) -> None:
    kill(state, 2)
    kill(state, 3)
    before = partition(state)
    result, decision = ask(state, 1)
    assert result.error.code == ErrorCode.NOT_ENOUGH_REPLICAS
    assert (result.partition, partition(state), decision.changes) == (before, before, ())


def test_one_that_was_elected_from_the_elr_is_the_last_one(state: State) -> None:
    kill(state, 1)
    kill(state, 2)
    kill(state, 3)
    assert (partition(state).leader, partition(state).isr, partition(state).elr) == (NO_LEADER, (3,), (2,))
    register(state, 2)
    result, _ = ask(state, 2)
    assert result.partition == partition(state)
    assert result.error.code == ErrorCode.NOT_ENOUGH_REPLICAS
    assert partition(state).leader == 2


def test_who_may_ask(state: State) -> None:
    assert ask(state, 1, index=7)[0].error.code == ErrorCode.UNKNOWN_PARTITION
    epoch = state.cluster.nodes[1].node_epoch
    kill(state, 1)
    request = LeaveIsr(1, node_id=1, node_epoch=epoch, replicas=[ReplicaPlace(TOPIC, 0)])
    with pytest.raises(StaleNodeEpochError):
        leave_isr.decide(state, request)
