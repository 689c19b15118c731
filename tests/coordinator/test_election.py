"""Elections: the rule for ISR and ELR, by example and by random histories."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tailrace.coordinator.election import Rules, return_node, settle
from tailrace.protocol.cluster import NO_LEADER, PartitionInfo

NODES = (1, 2, 3)


def partition(
    leader: int, isr: tuple[int, ...], elr: tuple[int, ...] = (), replicas: tuple[int, ...] = NODES
) -> PartitionInfo:
    return PartitionInfo(replicas, leader, leader_epoch=5, partition_epoch=7, isr=isr, elr=elr)


def test_nothing_changes_while_the_isr_is_alive() -> None:
    before = partition(1, (1, 2, 3))
    assert settle(before, Rules({1, 2, 3, 4}, 2)) is before


def test_the_first_living_replica_of_the_isr_takes_over_in_a_new_epoch() -> None:
    after = settle(partition(1, (1, 2, 3)), Rules({2, 3}, 2))
    assert after == PartitionInfo(NODES, 2, 6, 8, (2, 3), ())


def test_a_follower_that_dies_leaves_the_isr_without_an_election() -> None:
    after = settle(partition(1, (1, 2, 3)), Rules({1, 2}, 2))
    assert after == PartitionInfo(NODES, 1, 5, 8, (1, 2), ())


def test_who_leaves_a_small_isr_stays_eligible() -> None:
    after = settle(partition(1, (1, 2)), Rules({1, 3}, 2))
    assert after == PartitionInfo(NODES, 1, 5, 8, (1,), (2,))


def test_an_eligible_replica_is_elected_when_nobody_in_sync_is_alive() -> None:
    after = settle(partition(1, (1,), (2,)), Rules({2, 3}, 2))
    assert after == PartitionInfo(NODES, 2, 6, 8, (2,), (1,))


def test_nobody_else_is_elected() -> None:
    after = settle(partition(1, (1,), (2,)), Rules({3}, 2))
    assert after == PartitionInfo(NODES, NO_LEADER, 5, 8, (1,), (2,))
    assert settle(after, Rules({3}, 2)) is after


def test_the_last_in_sync_replica_is_elected_when_it_returns() -> None:
    dead = settle(partition(1, (1,), replicas=(1,)), Rules({2}, 1))
    assert dead == PartitionInfo((1,), NO_LEADER, 5, 8, (1,))
    back = return_node(dead, 1, Rules({2}, 1), intact=True)
    assert back == PartitionInfo((1,), 1, 6, 9, (1,))


def test_all_that_die_together_stay_electable() -> None:
    dead = settle(partition(1, (1, 2)), Rules({3}, 1))
    assert dead.isr == (1, 2)
    assert return_node(dead, 2, Rules({3}, 1), intact=True) == PartitionInfo(NODES, 2, 6, 9, (2,), ())


def test_a_sole_leader_that_was_not_missed_gets_a_new_epoch() -> None:
    before = partition(1, (1,), replicas=(1,))
    assert return_node(before, 1, Rules({1}, 1), intact=True) == PartitionInfo((1,), 1, 6, 8, (1,))


def test_a_leader_that_was_not_missed_hands_over() -> None:
    after = return_node(partition(1, (1, 2, 3)), 1, Rules({1, 2, 3}, 1), intact=True)
    assert after == PartitionInfo(NODES, 2, 6, 8, (2, 3), ())


def test_a_replica_without_its_storage_is_not_eligible() -> None:
    before = partition(NO_LEADER, (1,), (2,))
    assert return_node(before, 2, Rules(set(), 2), intact=False) == PartitionInfo(
        NODES, NO_LEADER, 5, 8, (1,), ()
    )
    assert return_node(before, 2, Rules(set(), 2), intact=True).leader == 2


def test_a_sole_replica_without_its_storage_is_electable() -> None:
    before = partition(NO_LEADER, (1,), replicas=(1,))
    assert return_node(before, 1, Rules(set(), 1), intact=False).leader == 1


def test_who_is_no_replica_in_sync_changes_nothing() -> None:
    before = partition(1, (1, 2))
    assert return_node(before, 3, Rules({1, 2}, 2), intact=True) is before
    assert return_node(before, 3, Rules({1, 2}, 2), intact=False) is before


@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(
            st.sampled_from(("die", "return", "wipe", "catch up", "commit")),
            st.sets(st.sampled_from(NODES), min_size=1),
        )
    ),
)
def test_no_election_loses_a_committed_record(min_insync: int, history: list[tuple[str, set[int]]]) -> None:
    """`holders` have every committed record: only one of them may ever lead."""
    current = partition(1, NODES)
    alive, holders = set(NODES), set(NODES)
    leaders = {current.leader_epoch: 1}
    for event, nodes in history:
        before = current
        if event == "die":
            alive -= nodes
            current = settle(current, Rules(alive, min_insync))
        elif event in ("return", "wipe"):
            node_id = min(nodes)
            if event == "wipe" and node_id not in alive:
                holders.discard(node_id)
            intact = event == "return" or node_id in alive
            current = return_node(current, node_id, Rules(alive, min_insync), intact=intact)
            alive.add(node_id)
        elif event == "catch up" and current.leader != NO_LEADER:
            joined = tuple(n for n in NODES if n in current.isr or n in alive & nodes)
            holders.update(joined)
            elr = tuple(n for n in current.elr if n not in joined) if len(joined) < min_insync else ()
            current = replace(current, isr=joined, elr=elr)
        elif event == "commit" and current.leader != NO_LEADER and len(current.isr) >= min_insync:
            holders = set(current.isr)
        assert current.leader == NO_LEADER or current.leader in alive & holders & set(current.isr)
        if current.leader != NO_LEADER:
            assert leaders.setdefault(current.leader_epoch, current.leader) == current.leader
        assert not set(current.isr) & set(current.elr)
        assert current.partition_epoch - before.partition_epoch in (0, 1)
        assert current.leader_epoch - before.leader_epoch in (0, 1)
        if event == "return" and before.leader == min(nodes):
            assert current.leader_epoch == before.leader_epoch + 1
