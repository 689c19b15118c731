"""Random histories of replicas: whoever may be elected has every committed record.

`replica_model.py` says what that is. Each guard has a short history that goes wrong without it.
"""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tailrace.coordinator import election, machine
from tailrace.coordinator.handlers import alter_isr, alter_topic, register_node
from tailrace.protocol.cluster import NO_LEADER
from tailrace.protocol.errors import ErrorCode

from .replica_model import Cluster, Place
from .test_machine import picture

NODES = (1, 2, 3, 4)
node_ids = st.sampled_from(NODES)
numbers = st.integers(0, 50)


class ReplicaHistory(RuleBasedStateMachine):
    """Drives a `Cluster`, which checks itself after each event."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster()
        for node_id in NODES:
            self.cluster.register(node_id)
        self.cluster.create("a", 3, min_insync_replicas=2)
        self.cluster.create("b", 3, unclean_leader_election=True)
        self.cluster.create("c", 1)
        self.places = sorted(self.cluster.complete)

    def place(self, number: int) -> Place:
        return self.places[number % len(self.places)]

    @rule(node_id=node_ids, how=st.sampled_from(["clean", "killed", "relaxed", "wiped"]))
    def register(self, node_id: int, how: str) -> None:
        self.cluster.register(
            node_id, clean=how == "clean", durable=how in ("clean", "killed"), wiped=how == "wiped"
        )

    @rule(node_id=node_ids)
    def leave(self, node_id: int) -> None:
        self.cluster.leave(node_id)

    @rule(nodes=st.sets(node_ids, min_size=1), killed=st.booleans())
    def cut_off(self, nodes: set[int], killed: bool) -> None:
        self.cluster.cut_off(nodes, killed=killed)

    @rule(seconds=st.sampled_from([0.3, 5.1]))
    def pass_time(self, seconds: float) -> None:
        self.cluster.pass_time(seconds)

    @rule(number=numbers, node_id=node_ids)
    def catch_up(self, number: int, node_id: int) -> None:
        self.cluster.catch_up(self.place(number), node_id)

    @rule(number=numbers, node_id=node_ids)
    def drop(self, number: int, node_id: int) -> None:
        self.cluster.drop(self.place(number), node_id)

    @precondition(lambda self: self.cluster.sent)
    @rule(number=numbers, again=st.booleans())
    def arrive(self, number: int, again: bool) -> None:
        self.cluster.arrive(number % len(self.cluster.sent), again=again)

    @rule(number=numbers)
    def commit(self, number: int) -> None:
        self.cluster.commit(self.place(number))

    @rule(minimum=st.integers(1, 3), unclean=st.booleans())
    def alter(self, minimum: int, unclean: bool) -> None:
        self.cluster.alter("a", min_insync_replicas=minimum, unclean_leader_election=unclean)

    @rule(number=numbers, replicas=st.lists(node_ids, min_size=1, max_size=3, unique=True))
    def move(self, number: int, replicas: list[int]) -> None:
        self.cluster.move(self.place(number), replicas)

    @rule(node_id=node_ids, draining=st.booleans())
    def drain(self, node_id: int, draining: bool) -> None:
        self.cluster.drain(node_id, draining=draining)

    @rule()
    def elect(self) -> None:
        self.cluster.elect()

    @rule()
    def restart(self) -> None:
        before = picture(self.cluster.machine.state)
        self.cluster.start()
        after = picture(self.cluster.machine.state)
        assert before.pop("epochs")[1] == after.pop("epochs")[1]
        assert before == after

    @invariant()
    def index_agrees(self) -> None:
        state = self.cluster.machine.state
        fresh = type(state)(state.cluster_id, state.cluster)
        fresh.next_producer_id, fresh.producer_epochs = state.next_producer_id, state.producer_epochs
        assert picture(state) == picture(fresh)


TestReplicaHistory = ReplicaHistory.TestCase
TestReplicaHistory.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


# ------------------------------------------------------------ without each guard


def three(**config: int) -> tuple[Cluster, Place]:
    """Nodes 1 to 4, and a partition of 1, 2 and 3 that 1 leads."""
    cluster = Cluster()
    for node_id in (1, 2, 3):
        cluster.register(node_id)
    cluster.create("t", 3, **config)
    [place] = [p for p, partition in cluster.partitions() if partition.leader == 1]
    cluster.register(4)
    return cluster, place


def code(cluster: Cluster) -> int:
    """What becomes of the last proposal."""
    result = cluster.arrive()
    return ErrorCode.STALE_NODE_EPOCH if result is None else result.error.code


def stale_proposal(guarded: bool) -> None:
    """A proposal from before another one, and from before records that were committed without its member."""
    cluster, place = three()
    cluster.drop(place, 2)
    cluster.arrive()
    cluster.catch_up(place, 2)
    late = cluster.sent.pop()
    cluster.drop(place, 3)
    cluster.arrive()
    cluster.commit(place)
    cluster.sent.append(late)
    assert code(cluster) == ErrorCode.STALE_PARTITION_EPOCH or not guarded


def restarted_member(guarded: bool) -> None:
    """A member that has lost its disk since the leader saw it in sync (KIP-903)."""
    cluster, place = three()
    cluster.drop(place, 2)
    cluster.arrive()
    cluster.commit(place)
    cluster.catch_up(place, 2)
    cluster.leave(2)
    cluster.register(2, wiped=True)
    assert code(cluster) == ErrorCode.STALE_PARTITION_EPOCH or not guarded


def dead_member(guarded: bool) -> None:
    """A member that has died since (KIP-841)."""
    cluster, place = three()
    cluster.drop(place, 2)
    cluster.arrive()
    cluster.catch_up(place, 2)
    cluster.leave(2)
    assert code(cluster) == ErrorCode.STALE_PARTITION_EPOCH or not guarded


def killed_relaxed(guarded: bool) -> None:
    """A node that was killed before its records were on its disk (R7)."""
    cluster, place = three()
    cluster.commit(place)
    cluster.cut_off([2, 3])
    cluster.leave(1)
    cluster.register(1, clean=False, durable=False)
    assert cluster.at(place).leader == NO_LEADER or not guarded
    assert cluster.at(place).isr == () or not guarded


def last_replica_standing(guarded: bool) -> None:
    """Who left a small ISR may lead only while nothing was committed without it (KIP-966)."""
    cluster, place = three(min_insync_replicas=2)
    cluster.cut_off([2, 3])
    assert cluster.at(place).elr == (2, 3) or not guarded
    cluster.register(2)
    cluster.catch_up(place, 2)
    cluster.arrive()
    cluster.commit(place)
    cluster.leave(1)
    cluster.leave(2)
    cluster.register(3)
    assert cluster.at(place).leader == NO_LEADER or not guarded


def fewer_needed(guarded: bool) -> None:
    """With a lower minimum records are committed without the ELR from then on."""
    cluster, place = three(min_insync_replicas=2)
    cluster.cut_off([2, 3])
    cluster.alter("t", min_insync_replicas=1)
    cluster.commit(place)
    cluster.leave(1)
    cluster.register(3)
    assert cluster.at(place).leader == NO_LEADER or not guarded


def nobody_left(guarded: bool) -> None:
    """A replica that was not in sync is alive, and nobody has allowed it to lead."""
    cluster, place = three()
    cluster.drop(place, 3)
    cluster.arrive()
    cluster.commit(place)
    cluster.cut_off([2])
    cluster.leave(1)
    assert cluster.at(place).leader == NO_LEADER or not guarded


def early_end_of_a_move(guarded: bool) -> None:
    """The old replicas leave when the new ones have everything, not before."""
    cluster, place = three()
    cluster.move(place, [4])
    cluster.commit(place)
    assert set(cluster.at(place).isr) == {1, 2, 3} or not guarded


def unnoticed_restart(guarded: bool) -> None:
    """A leader that was killed and is back before anybody missed it leads in a new epoch (KIP-380)."""
    cluster, place = three()
    before = cluster.at(place)
    cluster.register(1, clean=False)
    assert cluster.at(place).leader_epoch == before.leader_epoch + 1, "a new process in the old one's epoch"


def forgetful_elr(partition: Any, isr: tuple[int, ...], rules: Any) -> Any:
    """`election._with_isr` of which the ELR never clears."""
    elr = tuple(n for n in partition.replicas if n in {*partition.isr, *partition.elr}.difference(isr))
    leader = partition.leader if partition.leader in isr else isr[0]
    return election._changed(partition, leader, isr, elr)


def hasty_finish(before: Any, moving: Any, rules: Any) -> Any:
    """`election._finish_move` that does not wait."""
    moved = election.replace(moving, replicas=moving.target, isr=moving.target, target=())
    led = election._with_isr(moved, moved.isr, rules)
    return election.replace(led, partition_epoch=moving.partition_epoch)


def trusting(partition: Any, node_id: int, rules: Any, **_: bool) -> Any:
    """`election.return_node` that takes every node to have what it had."""
    return election.return_node(partition, node_id, rules, intact=True)


GUARDS: dict[Any, tuple[Any, str, Any]] = {
    stale_proposal: (alter_isr, "_check_partition_epoch", lambda *_: None),
    restarted_member: (alter_isr, "_check_entry", lambda *_: None),
    dead_member: (alter_isr, "_check_entry", lambda *_: None),
    killed_relaxed: (register_node, "return_node", trusting),
    last_replica_standing: (election, "_with_isr", forgetful_elr),
    fewer_needed: (alter_topic, "settle", lambda partition, _: partition),
    nobody_left: (
        machine.leave_cluster,
        "settle",
        lambda partition, rules: election.settle(partition, rules._replace(unclean=True)),
    ),
    early_end_of_a_move: (election, "_finish_move", hasty_finish),
    unnoticed_restart: (register_node, "return_node", lambda partition, *_, **__: partition),
}


@pytest.mark.parametrize("history", GUARDS, ids=lambda history: history.__name__)
def test_a_guard_holds_and_is_needed(history: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    history(True)
    monkeypatch.setattr(*GUARDS[history])
    with pytest.raises(AssertionError):
        history(False)
