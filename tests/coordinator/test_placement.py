"""Where partitions go: evenly in the topic, then in the cluster."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.coordinator.placement import place, substitute
from tailrace.coordinator.replica_index import Load
from tailrace.protocol.errors import LimitExceededError, NotEnoughNodesError
from tailrace.protocol.limits import PARTITIONS_PER_NODE_MAX

loads = st.dictionaries(
    st.integers(0, 50), st.builds(Load, st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=8
)


@given(st.integers(1, 60), st.integers(1, 3), loads)
def test_even_within_the_topic(partitions: int, replication_factor: int, loads: dict[int, Load]) -> None:
    if len(loads) < replication_factor:
        with pytest.raises(NotEnoughNodesError):
            place(partitions, replication_factor, loads)
        return
    placed = place(partitions, replication_factor, loads)
    assert len(placed) == partitions
    assert all(len(set(replicas)) == len(replicas) == replication_factor for replicas in placed)
    assert {node_id for replicas in placed for node_id in replicas} <= set(loads)
    leaders = Counter(dict.fromkeys(loads, 0)) | Counter(replicas[0] for replicas in placed)
    counts = [leaders[node_id] for node_id in loads]
    assert max(counts) - min(counts) <= 1
    assert place(partitions, replication_factor, dict(reversed(loads.items()))) == placed


@given(loads, st.integers(1, 3))
def test_followers_are_spread_too(loads: dict[int, Load], replication_factor: int) -> None:
    if len(loads) < replication_factor:
        return
    followers = Counter(dict.fromkeys(loads, 0))
    followers.update(n for replicas in place(len(loads) * 6, replication_factor, loads) for n in replicas[1:])
    assert max(followers.values()) - min(followers.values()) <= replication_factor


@given(st.lists(st.integers(1, 5), max_size=30), st.integers(1, 5))
def test_many_topics_fill_the_nodes_evenly(topics: list[int], nodes: int) -> None:
    led = Counter(dict.fromkeys(range(nodes), 0))
    for partitions in topics:
        loads = {node_id: Load(count, count) for node_id, count in led.items()}
        led.update(replicas[0] for replicas in place(partitions, 1, loads))
    assert max(led.values()) - min(led.values()) <= 1


def test_a_new_node_does_not_get_a_whole_topic() -> None:
    placed = place(4, 1, {1: Load(100, 100), 2: Load(100, 100), 3: Load()})
    assert Counter(replicas[0] for replicas in placed) == {1: 1, 2: 1, 3: 2}


def test_full_nodes_are_left_out() -> None:
    full = Load(PARTITIONS_PER_NODE_MAX, PARTITIONS_PER_NODE_MAX)
    room_for_two = Load(0, PARTITIONS_PER_NODE_MAX - 2)
    assert place(3, 1, {1: full, 2: Load(), 3: Load()}) == [(2,), (3,), (2,)]
    assert place(6, 1, {1: room_for_two, 2: Load()}) == [(1,), (2,), (1,), (2,), (2,), (2,)]
    with pytest.raises(LimitExceededError, match="room for 2 of 3"):
        place(3, 1, {1: room_for_two})
    with pytest.raises(LimitExceededError, match="room for 0 of 1"):
        place(1, 2, {1: full, 2: Load()})


@given(
    st.integers(1, 40),
    st.integers(1, 4),
    st.dictionaries(st.integers(1, 9), st.sampled_from("abc"), min_size=1),
)
def test_replicas_lie_in_as_many_racks_as_there_are(
    partitions: int, replication_factor: int, racks: dict[int, str]
) -> None:
    if len(racks) < replication_factor:
        return
    placed = place(partitions, replication_factor, dict.fromkeys(racks, Load()), racks)
    most = min(replication_factor, len(set(racks.values())))
    assert all(len({racks[n] for n in replicas}) == most for replicas in placed)
    assert all(len(set(replicas)) == replication_factor for replicas in placed)
    leaders = Counter(dict.fromkeys(racks, 0))
    leaders.update(replicas[0] for replicas in placed)
    assert max(leaders.values()) - min(leaders.values()) <= 1


def test_a_node_without_a_rack_is_one_of_its_own() -> None:
    placed = place(12, 2, dict.fromkeys((1, 2, 3), Load()), {1: "a", 2: "a", 3: ""})
    assert all(3 in replicas for replicas in placed)
    placed = place(12, 2, dict.fromkeys((1, 2, 3), Load()), {1: "a", 2: "", 3: ""})
    assert {frozenset(replicas) for replicas in placed} == {
        frozenset({1, 2}), frozenset({2, 3}), frozenset({1, 3})
    }  # fmt: skip


def test_a_rack_without_room_does_not_keep_replicas_from_others() -> None:
    full = Load(0, PARTITIONS_PER_NODE_MAX)
    assert place(1, 2, {1: Load(), 2: Load(), 3: full}, {1: "a", 2: "a", 3: "b"}) == [(1, 2)]


def test_a_substitute_is_in_another_rack_then_has_the_least_to_carry() -> None:
    racks = {1: "a", 2: "b", 3: "a", 4: "c", 5: "c"}
    assert substitute([1, 2], {3: 0, 4: 7, 5: 5}, racks) == 5
    assert substitute([1, 2], {3: 0}, racks) == 3
    assert substitute([1, 2], {1: 0, 2: 0, 4: PARTITIONS_PER_NODE_MAX}, racks) is None
