"""AlterIsr: what each proposal is refused for, and what it makes of a partition."""

from typing import Any

import pytest

from tailrace.coordinator.handlers import alter_isr, move_partitions
from tailrace.coordinator.state import State
from tailrace.protocol.admin_messages import MovePartitions, PartitionMove
from tailrace.protocol.cluster import NO_LEADER, PartitionChanged, PartitionInfo
from tailrace.protocol.errors import ErrorCode, StaleNodeEpochError, UnknownNodeError
from tailrace.protocol.replica_messages import AlterIsr, IsrAltered, IsrProposal, IsrResult

from .test_handlers import accept, create, kill, register

TOPIC = b"t" + b"-" * 15


@pytest.fixture
def state() -> State:
    """Nodes 1 to 4; t-0 is led by 1, t-1 by 2, of 3 replicas each; all in sync."""
    state = State("cluster")
    for node_id in (1, 2, 3):
        register(state, node_id)
    create(state, "t", partitions=2, replication_factor=3, config={"min_insync_replicas": 2})
    register(state, 4)
    return state


def partition(state: State, index: int = 0) -> PartitionInfo:
    return state.cluster.topics[TOPIC].partitions[index]


def proposal(state: State, isr: tuple[int, ...], index: int = 0, **fields: Any) -> IsrProposal:
    now = partition(state, index)
    epochs = {"leader_epoch": now.leader_epoch, "partition_epoch": now.partition_epoch} | fields
    return IsrProposal(TOPIC, index, epochs["leader_epoch"], epochs["partition_epoch"], isr)


def ask(state: State, *proposals: IsrProposal, node_id: int = 1, **fields: Any) -> list[IsrResult]:
    nodes = state.cluster.nodes
    epochs = {
        "node_epoch": nodes[node_id].node_epoch,
        "member_epochs": {n: nodes[n].node_epoch for n in nodes},
    }
    request = AlterIsr(7, node_id=node_id, proposals=list(proposals), **epochs | fields)
    reply = accept(state, alter_isr.decide(state, request)).reply
    assert isinstance(reply, IsrAltered)
    assert reply.request_id == 7
    return reply.results


def test_members_leave_to_the_elr_while_too_few_are_left_and_it_clears() -> None:
    state = State("cluster")
    for node_id in (1, 2, 3):
        register(state, node_id)
    create(state, "t", partitions=1, replication_factor=3, config={"min_insync_replicas": 2})
    [result] = ask(state, proposal(state, (1, 2)))
    assert result.partition == partition(state) == PartitionInfo((1, 2, 3), 1, 0, 1, (1, 2))
    ask(state, proposal(state, (1,)))
    assert partition(state) == PartitionInfo((1, 2, 3), 1, 0, 2, (1,), (2,))
    ask(state, proposal(state, (3, 1)))
    assert partition(state) == PartitionInfo((1, 2, 3), 1, 0, 3, (1, 3))


def test_each_proposal_stands_alone(state: State) -> None:
    results = ask(
        state,
        proposal(state, (1, 2)),
        proposal(state, (1, 2), index=1),
        IsrProposal(b"?" * 16, 0, 0, 0, (1,)),
        IsrProposal(TOPIC, 2, 0, 0, (1,)),
    )
    assert [result.error.code for result in results] == [
        ErrorCode.NONE, ErrorCode.NOT_LEADER, ErrorCode.UNKNOWN_TOPIC, ErrorCode.UNKNOWN_PARTITION,
    ]  # fmt: skip
    assert [result.partition for result in results] == [partition(state, 0), partition(state, 1), None, None]
    assert partition(state).isr == (1, 2)


def test_changes_are_published_once_a_partition(state: State) -> None:
    nodes = state.cluster.nodes
    request = AlterIsr(
        7,
        node_id=1,
        node_epoch=nodes[1].node_epoch,
        proposals=[proposal(state, (1, 2)), proposal(state, (1,), partition_epoch=1)],
    )
    decision = alter_isr.decide(state, request)
    [change] = decision.changes
    assert isinstance(change, PartitionChanged)
    assert change.partition.isr == (1,)
    assert change.partition.elr == (2,)


def test_what_is_so_already_changes_nothing(state: State) -> None:
    version = state.cluster.version
    [result] = ask(state, proposal(state, (3, 2, 1)))
    assert (result.error.code, result.partition) == (ErrorCode.NONE, partition(state))
    assert state.cluster.version == version


@pytest.mark.parametrize(
    ("fields", "isr", "code"),
    [
        ({"leader_epoch": -1}, (1,), ErrorCode.FENCED_LEADER_EPOCH),
        ({"leader_epoch": 1}, (1,), ErrorCode.NOT_LEADER),
        ({"partition_epoch": 1}, (1,), ErrorCode.STALE_PARTITION_EPOCH),
        ({}, (2, 3), ErrorCode.INVALID_ARGUMENT),
        ({}, (), ErrorCode.INVALID_ARGUMENT),
        ({}, (1, 4), ErrorCode.INVALID_ARGUMENT),
    ],
)
def test_a_proposal_is_refused(
    state: State, fields: dict[str, Any], isr: tuple[int, ...], code: ErrorCode
) -> None:
    before = partition(state)
    [result] = ask(state, proposal(state, isr, **fields))
    assert (result.error.code, result.partition) == (code, before)
    assert partition(state) == before


def test_who_enters_must_be_alive_and_the_process_that_was_seen(state: State) -> None:
    kill(state, 3)
    assert partition(state).isr == (1, 2)
    [result] = ask(state, proposal(state, (1, 2, 3)))
    assert result.error.code == ErrorCode.STALE_PARTITION_EPOCH
    assert "node 3 is not alive" in result.error.message
    register(state, 3)
    epochs = {n: node.node_epoch for n, node in state.cluster.nodes.items()}
    for seen in ({**epochs, 3: epochs[3] - 1}, {}):
        [result] = ask(state, proposal(state, (1, 2, 3)), member_epochs=seen)
        assert result.error.code == ErrorCode.STALE_PARTITION_EPOCH
        assert f"node 3 is in node epoch {epochs[3]}" in result.error.message
    [result] = ask(state, proposal(state, (1, 2, 3)), member_epochs={3: epochs[3]})
    assert result.error.code == ErrorCode.NONE
    assert partition(state).isr == (1, 2, 3)


def test_the_sender_must_be_who_it_says(state: State) -> None:
    with pytest.raises(UnknownNodeError):
        alter_isr.decide(state, AlterIsr(7, node_id=9, node_epoch=1, proposals=[proposal(state, (1,))]))
    with pytest.raises(StaleNodeEpochError):
        ask(state, proposal(state, (1,)), node_epoch=0)
    kill(state, 1)
    with pytest.raises(StaleNodeEpochError, match="declared dead"):
        ask(state, proposal(state, (1,)))


def test_a_leader_that_was_replaced_is_fenced(state: State) -> None:
    late = proposal(state, (1,))
    register(state, 1)
    [result] = ask(state, late)
    assert result.error.code == ErrorCode.FENCED_LEADER_EPOCH
    kill(state, 1, 2, 3)
    register(state, 4)
    assert partition(state).leader == NO_LEADER


def test_a_move_ends_when_all_of_its_target_are_in_sync(state: State) -> None:
    request = MovePartitions(1, moves=[PartitionMove(TOPIC, 0, (4, 2))])
    accept(state, move_partitions.decide(state, request))
    moving = partition(state)
    assert (moving.replicas, moving.target, moving.adding) == ((1, 2, 3, 4), (4, 2), (4,))
    [result] = ask(state, proposal(state, (1, 2, 3, 4)))
    assert result.error.code == ErrorCode.NONE
    assert partition(state) == PartitionInfo((4, 2), 4, 1, 2, (4, 2))
