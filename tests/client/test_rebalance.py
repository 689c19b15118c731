"""The even plan: evenly held and led, little moved, racks kept."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tailrace.client.rebalance import even_plan
from tailrace.protocol.cluster import ClusterState, Listener, NodeInfo, PartitionInfo, TopicConfig, TopicInfo


def cluster(racks: dict[int, str], replicas: list[tuple[int, ...]]) -> ClusterState:
    state = ClusterState()
    for node_id, rack in racks.items():
        state.nodes[node_id] = NodeInfo(node_id, 1, Listener("tcp://x:1"), "s", True, rack)
    partitions = tuple(PartitionInfo(each, each[0], 0, 0, each) for each in replicas)
    state.topics[b"t" * 16] = TopicInfo(b"t" * 16, "t", TopicConfig(), partitions)
    return state


def after(state: ClusterState) -> list[tuple[int, ...]]:
    plan = even_plan(state)
    partitions = state.topics[b"t" * 16].partitions
    return [plan.get((b"t" * 16, index), each.replicas) for index, each in enumerate(partitions)]


@given(st.data(), st.integers(2, 6), st.integers(1, 3))
def test_evenly_held_and_led(data: st.DataObject, nodes: int, factor: int) -> None:
    ids = st.integers(1, nodes)
    some = st.lists(ids, min_size=min(factor, nodes), max_size=min(factor, nodes), unique=True).map(tuple)
    before = data.draw(st.lists(some, min_size=1, max_size=30))
    state = cluster(dict.fromkeys(range(1, nodes + 1), ""), before)
    now = after(state)
    assert all(len(set(each)) == len(old) for each, old in zip(now, before, strict=True))
    held = Counter(dict.fromkeys(range(1, nodes + 1), 0))
    held.update(n for each in now for n in each)
    assert max(held.values()) - min(held.values()) <= 1
    settled = cluster(dict.fromkeys(range(1, nodes + 1), ""), now)
    assert even_plan(settled) == {}


@given(st.data())
def test_nothing_is_planned_beside_a_plan_that_is_under_way(data: st.DataObject) -> None:
    """Partitions that move count as what they will be, so that a plan may be made again at any time."""
    racks = dict.fromkeys(range(1, 5), "")
    some = st.lists(st.integers(1, 3), min_size=2, max_size=2, unique=True).map(tuple)
    state = cluster(racks, data.draw(st.lists(some, min_size=1, max_size=30)))
    plan = even_plan(state)
    topic = state.topics[b"t" * 16]
    partitions = list(topic.partitions)
    for (_, index), target in plan.items():
        before = partitions[index]
        if set(target) == set(before.replicas):  # only the order changes, which is at once
            partitions[index] = replace(before, replicas=target)
        else:
            both = tuple(dict.fromkeys(before.replicas + target))
            adding = tuple(n for n in both if n not in before.replicas)
            partitions[index] = replace(before, replicas=both, target=target, adding=adding)
    state.topics[b"t" * 16] = replace(topic, partitions=tuple(partitions))
    assert even_plan(state) == {}


def test_a_new_node_gets_its_share_and_no_more_moves_than_that() -> None:
    before = [(1, 2), (2, 1), (1, 2), (2, 1), (1, 2), (2, 1)]
    now = after(cluster({1: "", 2: "", 3: ""}, before))
    assert Counter(n for each in now for n in each) == {1: 4, 2: 4, 3: 4}
    assert Counter(each[0] for each in now) == {1: 2, 2: 2, 3: 2}
    assert sum(3 in each for each in now) == 4


def test_leaders_alone_change_places() -> None:
    before = [(1, 2, 3)] * 6
    now = after(cluster({1: "", 2: "", 3: ""}, before))
    assert all(set(each) == {1, 2, 3} for each in now)
    assert Counter(each[0] for each in now) == {1: 2, 2: 2, 3: 2}


def test_the_lead_travels_over_a_node_that_holds_both() -> None:
    """1 and 3 share no partition: 1 gives one to 2, and 2 gives one to 3."""
    now = after(cluster({1: "", 2: "", 3: ""}, [(1, 2), (1, 2), (2, 3), (3, 2), (1, 2), (2, 3), (3, 1)]))
    leads = Counter(each[0] for each in now)
    assert max(leads.values()) - min(leads.values()) <= 1


def test_racks_are_kept_apart() -> None:
    racks = {1: "a", 2: "a", 3: "b"}
    now = after(cluster(racks, [(1, 3), (1, 3), (1, 3), (1, 3)]))
    assert all({racks[n] for n in each} == {"a", "b"} for each in now)
    assert Counter(n for each in now for n in each) == {1: 2, 2: 2, 3: 4}


def test_dead_and_draining_nodes_get_nothing_and_moves_are_left_alone() -> None:
    state = cluster({1: "", 2: "", 3: "", 4: ""}, [(1,)] * 6)
    state.nodes[3] = replace(state.nodes[3], alive=False)
    state.nodes[4] = replace(state.nodes[4], draining=True)
    topic = state.topics[b"t" * 16]
    moving = replace(topic.partitions[0], replicas=(1, 2), target=(2,), adding=(2,))
    state.topics[b"t" * 16] = replace(topic, partitions=(moving, *topic.partitions[1:]))
    plan = even_plan(state)
    assert set(plan.values()) == {(2,)}
    assert len(plan) == 2
    assert (b"t" * 16, 0) not in plan
    assert even_plan(ClusterState()) == {}
