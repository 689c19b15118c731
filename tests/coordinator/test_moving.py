"""Who holds and who leads: elections of first replicas, moves, nodes that are drained and removed."""

from typing import Any

import pytest

from tailrace.coordinator import preferred
from tailrace.coordinator.handlers import (
    alter_topic,
    drain_node,
    elect_leaders,
    leave_cluster,
    move_partitions,
    remove_node,
)
from tailrace.coordinator.preferred import QUIET_S, SLICE_PAUSE_S, PreferredLeaders, next_slice
from tailrace.coordinator.state import State
from tailrace.protocol.admin_messages import (
    DrainNode,
    ElectLeaders,
    LeadersElected,
    MovePartitions,
    NodeDraining,
    NodeForgotten,
    PartitionMove,
    PartitionsMoving,
    RemoveNode,
)
from tailrace.protocol.cluster import NO_LEADER, PartitionInfo
from tailrace.protocol.errors import (
    InvalidArgumentError,
    InvalidConfigError,
    LimitExceededError,
    NotEnoughNodesError,
    TailraceError,
    UnknownNodeError,
    UnknownPartitionError,
    UnknownTopicError,
)
from tailrace.protocol.messages import AlterTopic, LeaveCluster

from .test_alter_isr import TOPIC, ask, partition, proposal
from .test_handlers import accept, create, kill, register


@pytest.fixture
def state() -> State:
    """Nodes 1 to 3 hold t-0 to t-2, and lead one each; node 4 holds nothing."""
    state = State("cluster")
    for node_id in (1, 2, 3):
        register(state, node_id, rack="ab"[node_id % 2])
    create(state, "t", partitions=3, replication_factor=2)
    register(state, 4, rack="a")
    return state


def move(state: State, *moves: tuple[int, tuple[int, ...]]) -> PartitionsMoving:
    request = MovePartitions(1, moves=[PartitionMove(TOPIC, index, target) for index, target in moves])
    reply = accept(state, move_partitions.decide(state, request)).reply
    assert isinstance(reply, PartitionsMoving)
    return reply


def drain(state: State, node_id: int, *, draining: bool = True) -> NodeDraining:
    request = DrainNode(1, node_id=node_id, draining=draining)
    reply = accept(state, drain_node.decide(state, request)).reply
    assert isinstance(reply, NodeDraining)
    return reply


def elect(state: State, *topics: str) -> tuple[int, int, bool]:
    request = ElectLeaders(1, topics=topics or None)
    reply = accept(state, elect_leaders.decide(state, request)).reply
    assert isinstance(reply, LeadersElected)
    return reply.moved, reply.waiting, reply.more


def leaders(state: State) -> list[int]:
    return [each.leader for each in state.cluster.topics[TOPIC].partitions]


def catch_up(state: State, index: int) -> None:
    """All replicas of nodes that are alive get in sync."""
    now = partition(state, index)
    living = tuple(n for n in now.replicas if n in state.alive())
    [result] = ask(state, proposal(state, living, index), node_id=now.leader)
    assert result.error.code == 0


# ---------------------------------------------------------------- first replicas


def test_replicas_lie_in_different_racks(state: State) -> None:
    racks = state.racks()
    for each in state.cluster.topics[TOPIC].partitions:
        assert len({racks[node_id] for node_id in each.replicas}) == 2


def test_first_replicas_lead_again_once_they_are_in_sync(state: State) -> None:
    before = leaders(state)
    kill(state, 2)
    index = before.index(2)
    assert leaders(state)[index] != 2
    assert elect(state) == (0, 1, False)
    register(state, 2)
    assert elect(state) == (0, 1, False)
    catch_up(state, index)
    epoch = partition(state, index).leader_epoch
    assert elect(state, "t") == (1, 0, False)
    assert leaders(state) == before
    assert partition(state, index).leader_epoch == epoch + 1
    with pytest.raises(UnknownTopicError):
        elect(state, "tt")


def test_more_than_fits_into_an_update_is_done_in_turns(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elect_leaders, "PARTITIONS_PER_UPDATE_MAX", 1)
    before = leaders(state)
    for index in range(3):
        first, second = partition(state, index).replicas
        move(state, (index, (second, first)))
    assert elect(state) == (1, 2, True)
    assert elect(state) == (1, 1, True)
    assert elect(state) == (1, 0, False)
    assert all(old != new for old, new in zip(before, leaders(state), strict=True))
    create(state, "other")
    assert elect(state, "other") == (0, 0, False)


def test_leaders_are_looked_after_when_nodes_have_been_quiet_and_in_slices(state: State) -> None:
    looks = PreferredLeaders(10.0)
    assert looks.next_look(state) is None
    first, second = partition(state).replicas
    move(state, (0, (second, first)))
    assert looks.next_look(state) == 10.0 + QUIET_S
    looks.node_changed(12.0)
    assert looks.next_look(state) == 12.0 + QUIET_S
    looks.looked(20.0, more=True)
    assert looks.next_look(state) == 20.0 + SLICE_PAUSE_S
    looks.looked(21.0, more=False)
    assert looks.next_look(state) == 21.0 + QUIET_S
    assert next_slice(state, 0) == ((), True)
    changes, more = next_slice(state, preferred.SLICE_MAX)
    assert ([change.partition.leader for change in changes], more) == ([second], False)


# ------------------------------------------------------------------------- moves


def test_a_move_adds_waits_and_then_takes_away(state: State) -> None:
    old = partition(state)
    assert move(state, (0, (4, old.replicas[1]))).moving == 1
    assert partition(state) == PartitionInfo(
        (*old.replicas, 4), old.leader, 0, 1, old.isr, (), (4, old.replicas[1]), (4,), old.replicas
    )
    assert state.index.load(4).replicas == 1
    catch_up(state, 0)
    assert partition(state) == PartitionInfo((4, old.replicas[1]), 4, 1, 2, (4, old.replicas[1]))
    assert state.index.load(old.replicas[0]).replicas == 1


def test_another_order_or_fewer_replicas_are_there_at_once(state: State) -> None:
    first, second = partition(state).replicas
    assert move(state, (0, (second, first))).moving == 0
    assert partition(state) == PartitionInfo((second, first), first, 0, 1, (second, first))
    assert move(state, (0, (second,))).moving == 0
    assert partition(state) == PartitionInfo((second,), second, 1, 2, (second,))
    assert move(state, (0, (second,))).moving == 0
    assert partition(state).partition_epoch == 2


def test_a_move_is_called_off_by_the_old_replicas(state: State) -> None:
    old = partition(state)
    move(state, (0, (4,)))
    assert move(state, (0, old.replicas)).moving == 0
    assert partition(state) == PartitionInfo(old.replicas, old.leader, 1, 2, old.isr)


def test_who_leaves_the_replicas_begins_a_leader_epoch(state: State) -> None:
    """It deletes its log. What the leader knows of it must not count when it comes back."""
    first, second = partition(state).replicas
    move(state, (0, (first, 3, 4)))
    assert partition(state).leader_epoch == 0, "nobody has left"
    move(state, (0, (first, 4)))
    assert partition(state).replicas == (first, second, 4)
    assert partition(state).leader_epoch == 1, "node 3 has, though nothing was moved yet"
    move(state, (0, (first, 3)))
    assert partition(state).leader_epoch == 2
    catch_up(state, 0)
    assert partition(state) == PartitionInfo((first, 3), first, 3, 4, (first, 3))


def test_who_was_ever_in_sync_stays_until_the_move_is_done(state: State) -> None:
    first, second = partition(state).replicas
    kill(state, second)
    assert partition(state).isr == (first,)
    move(state, (0, (first, 4)))
    assert partition(state).replicas == (first, second, 4)
    catch_up(state, 0)
    assert partition(state).replicas == (first, 4)


def test_a_throttle_goes_with_a_move_and_may_change(state: State) -> None:
    old = partition(state)

    def throttled(target: tuple[int, ...], throttle: int) -> PartitionInfo:
        request = MovePartitions(1, moves=[PartitionMove(TOPIC, 0, target)], throttle=throttle)
        accept(state, move_partitions.decide(state, request))
        return partition(state)

    first = throttled((4,), 100)
    assert (first.throttle, first.former, first.adding) == (100, old.replicas, (4,))
    assert throttled((4,), 100) is first
    second = throttled((4,), 50)
    assert (second.throttle, second.target, second.partition_epoch) == (50, (4,), first.partition_epoch + 1)
    catch_up(state, 0)
    assert (partition(state).throttle, partition(state).former, partition(state).replicas) == (0, (), (4,))


def test_a_throttle_goes_with_a_drained_node(state: State) -> None:
    accept(state, drain_node.decide(state, DrainNode(1, node_id=1, throttle=100)))
    moving = [part for part in state.cluster.topics[TOPIC].partitions if part.target]
    assert moving
    assert {part.throttle for part in moving} == {100}


def test_who_has_never_been_in_sync_does_not_lead_uncleanly(state: State) -> None:
    create(state, "u", config={"unclean_leader_election": "true"})
    topic_id = b"u" + b"-" * 15
    [node_id] = state.cluster.topics[topic_id].partitions[0].replicas
    to = 4 if node_id != 4 else 1
    request = MovePartitions(1, moves=[PartitionMove(topic_id, 0, (to,))])
    accept(state, move_partitions.decide(state, request))
    kill(state, node_id)
    moving = state.cluster.topics[topic_id].partitions[0]
    assert (moving.leader, moving.isr, moving.adding) == (NO_LEADER, (node_id,), (to,))
    register(state, node_id, clean=False, durable=False)
    assert state.cluster.topics[topic_id].partitions[0].leader == node_id


@pytest.mark.parametrize(
    ("moves", "error", "message"),
    [
        ([(b"?" * 16, 0, (1,))], UnknownTopicError, "no topic of id 3f3f"),
        ([(TOPIC, 9, (1,))], UnknownPartitionError, "no partition 9"),
        ([(TOPIC, 0, ())], InvalidArgumentError, "t-0: "),
        ([(TOPIC, 0, (4, 4))], InvalidArgumentError, "none twice"),
        ([(TOPIC, 0, (8,))], UnknownNodeError, "t-0: there is no node 8"),
        ([(TOPIC, 0, (5,))], NotEnoughNodesError, "node 5 is not alive"),
        ([(TOPIC, 0, (6,))], InvalidArgumentError, "node 6 is draining"),
        ([(TOPIC, 0, (4,)), (TOPIC, 0, (1,))], InvalidArgumentError, "t-0 is named twice"),
        ([(b"m" + b"-" * 15, 0, (4,))], InvalidArgumentError, "min_insync_replicas is 2: with 1"),
    ],
)
def test_all_moves_are_accepted_or_none(
    state: State, moves: list[Any], error: type[TailraceError], message: str
) -> None:
    create(state, "m", replication_factor=2, config={"min_insync_replicas": 2})
    for node_id in (5, 6):
        register(state, node_id)
    kill(state, 5)
    drain(state, 6)
    before = state.cluster.snapshot()
    good = PartitionMove(TOPIC, 1, (4,))
    request = MovePartitions(1, moves=[good, *(PartitionMove(*each) for each in moves)])
    with pytest.raises(error, match=message):
        move_partitions.decide(state, request)
    assert state.cluster.snapshot() == before


def test_a_move_needs_room(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move_partitions, "PARTITIONS_PER_NODE_MAX", 1)
    with pytest.raises(LimitExceededError, match="node 4 holds 0 partitions; 2 more"):
        move(state, (0, (4,)), (1, (4,)))
    monkeypatch.setattr(move_partitions, "SNAPSHOT_BYTES_MAX", state.snapshot_bytes)
    with pytest.raises(LimitExceededError, match="no room for so many moves"):
        move(state, (0, (4,)))
    monkeypatch.undo()
    monkeypatch.setattr(move_partitions, "REPLICATION_FACTOR_MAX", 2)
    with pytest.raises(LimitExceededError, match="3 replicas while it moves"):
        move(state, (0, (4,)))


def test_the_minimum_fits_the_partition_with_the_fewest_replicas(state: State) -> None:
    move(state, (2, partition(state, 2).replicas[:1]))
    request = AlterTopic(1, name="t", config={"min_insync_replicas": 2})
    with pytest.raises(InvalidConfigError, match="the replication factor is only 1"):
        alter_topic.decide(state, request)


# --------------------------------------------------------------- drain and remove


def test_a_drained_node_gives_up_leads_and_replicas_and_gets_none(state: State) -> None:
    held = state.index.load(1).replicas
    progress = drain(state, 1)
    assert (progress.held, progress.stuck) == (held, 0)
    assert state.index.load(1).leaders == 0
    assert state.cluster.nodes[1].draining
    create(state, "new", partitions=6, replication_factor=3)
    assert all(1 not in each.replicas for each in state.cluster.topics[b"new" + b"-" * 13].partitions)
    for _ in range(2):  # what is asked again is planned once
        for index in range(3):
            if partition(state, index).target:
                catch_up(state, index)
    assert state.index.load(1).replicas == 0
    assert drain(state, 1).held == 0
    register(state, 1)
    assert state.cluster.nodes[1].draining, "a restart does not end it"
    reply = accept(state, remove_node.decide(state, RemoveNode(1, node_id=1))).reply
    assert isinstance(reply, NodeForgotten)
    assert 1 not in state.cluster.nodes


def test_a_second_drain_plans_nothing_anew(state: State) -> None:
    drain(state, 1)
    before = state.cluster.topics
    again = drain(state, 1)
    assert again.held > 0
    assert state.cluster.topics == before


def test_what_no_other_node_can_take_is_stuck(state: State) -> None:
    kill(state, 3, 4)
    progress = drain(state, 1)
    assert progress.stuck == 2  # node 2, the only other one, holds both already
    assert leaders(state).count(1) == 0
    register(state, 4)
    assert drain(state, 1).stuck == 0


def test_a_draining_node_leads_what_nobody_else_can(state: State) -> None:
    index = leaders(state).index(1)
    other = partition(state, index).replicas[1]
    kill(state, other)
    drain(state, 1)
    assert partition(state, index).leader == 1
    register(state, other)
    catch_up(state, index)
    assert partition(state, index).leader != 1


def test_a_drain_is_taken_back(state: State) -> None:
    drain(state, 1)
    assert drain(state, 1, draining=False).held > 0
    assert not state.cluster.nodes[1].draining


def test_a_dead_nodes_replicas_are_made_anew_elsewhere(state: State) -> None:
    kill(state, 1)
    assert drain(state, 1).held == 2, "until others have them: if all of those die, it has the most there is"
    for index in range(3):
        if partition(state, index).target:
            catch_up(state, index)
        assert 1 not in partition(state, index).replicas
        assert len(partition(state, index).isr) == 2
    accept(state, remove_node.decide(state, RemoveNode(1, node_id=1)))


def test_a_node_that_is_needed_is_not_removed(state: State) -> None:
    with pytest.raises(InvalidArgumentError, match="node 1 holds 2 partitions: drain it first"):
        remove_node.decide(state, RemoveNode(1, node_id=1))
    with pytest.raises(InvalidArgumentError, match="node 4 is alive"):
        remove_node.decide(state, RemoveNode(1, node_id=4))
    for decide, request in (
        (remove_node.decide, RemoveNode(1, node_id=9)),
        (drain_node.decide, DrainNode(1, node_id=9)),
    ):
        with pytest.raises(UnknownNodeError, match="no node 9"):
            decide(state, request)
    epoch = state.cluster.nodes[4].node_epoch
    accept(state, leave_cluster.decide(state, LeaveCluster(1, node_id=4, node_epoch=epoch)))
    accept(state, remove_node.decide(state, RemoveNode(1, node_id=4)))
    assert sorted(state.cluster.nodes) == [1, 2, 3]
