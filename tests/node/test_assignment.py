"""Following a state step by step leads to the same partitions as looking at it once."""

from hypothesis import given
from hypothesis import strategies as st

from tailrace.node.assignment import Assignment, Plan
from tailrace.node.work import Role
from tailrace.protocol.cluster import (
    ClusterState,
    PartitionInfo,
    Snapshot,
    TopicChanged,
    TopicConfig,
    TopicInfo,
    TopicRemoved,
)

NODE = 1
TOPIC_IDS = [bytes([n]) * 16 for n in range(3)]


def topic(topic_id: bytes, leaders: list[tuple[int, int]], retention_ms: int = -1) -> TopicInfo:
    """Node 3 leads with this node as its follower, the others alone."""
    replicas = {3: (3, NODE), -1: (NODE, 2)}
    partitions = tuple(
        PartitionInfo(replicas.get(leader, (leader,)), leader, epoch, epoch, (leader,))
        for leader, epoch in leaders
    )
    return TopicInfo(topic_id, topic_id.hex(), TopicConfig(retention_ms=retention_ms), partitions)


LEADERS = st.lists(st.tuples(st.sampled_from([-1, NODE, 2, 3]), st.integers(0, 3)), max_size=3)
CHANGES = st.one_of(
    st.builds(TopicChanged, st.builds(topic, st.sampled_from(TOPIC_IDS), LEADERS)),
    st.builds(TopicRemoved, st.sampled_from(TOPIC_IDS)),
)


def apply(roles: dict[tuple[bytes, int], Role], plan: Plan) -> None:
    for key in plan.resign:
        assert roles.pop(key).source is None
    for key in plan.leave:
        assert roles.pop(key).source is not None
    roles.update(plan.roles)


@given(st.lists(st.tuples(CHANGES, st.booleans()), max_size=20))
def test_steps_lead_to_the_whole(steps: list[tuple[TopicChanged | TopicRemoved, bool]]) -> None:
    cluster, assignment = ClusterState(), Assignment(NODE)
    roles: dict[tuple[bytes, int], Role] = {}
    touched: set[bytes] = set()
    for change, all_at_once in steps:
        cluster.apply(change)
        touched.add(change.topic_id if isinstance(change, TopicRemoved) else change.topic.topic_id)
        if all_at_once:
            apply(roles, assignment.follow(cluster, None, []))
        else:
            apply(roles, assignment.follow(cluster, touched, []))
        touched.clear()
        assert roles == Assignment(NODE).follow(cluster, None, []).roles
        assert {key: assignment.role(key) for key in roles} == roles


def test_an_epoch_that_went_up_is_led_anew() -> None:
    assignment = Assignment(NODE)
    cluster = ClusterState(Snapshot(1, 1, (), (topic(TOPIC_IDS[0], [(NODE, 0), (NODE, 0)]),)))
    alone = Role(0, sole=True)
    assert assignment.follow(cluster, None, []).roles == {(TOPIC_IDS[0], at): alone for at in (0, 1)}
    cluster.apply(TopicChanged(topic(TOPIC_IDS[0], [(NODE, 2), (NODE, 0)])))
    plan = assignment.follow(cluster, {TOPIC_IDS[0]}, [])
    assert (plan.roles, plan.resign) == ({(TOPIC_IDS[0], 0): Role(2, sole=True)}, [])


def test_from_leader_to_follower_and_back() -> None:
    assignment, key = Assignment(NODE), (TOPIC_IDS[0], 0)
    cluster = ClusterState(Snapshot(1, 1, (), (topic(TOPIC_IDS[0], [(NODE, 0)]),)))
    assignment.follow(cluster, None, [])
    cluster.apply(TopicChanged(topic(TOPIC_IDS[0], [(3, 1)])))
    plan = assignment.follow(cluster, None, [])
    assert (plan.roles, plan.resign, plan.leave) == ({key: Role(1, sole=False, source=3)}, [key], [])
    cluster.apply(TopicChanged(topic(TOPIC_IDS[0], [(3, 2)])))
    plan = assignment.follow(cluster, None, [])
    assert (plan.roles, plan.leave) == ({key: Role(2, sole=False, source=3)}, [key]), "another epoch"
    cluster.apply(TopicChanged(topic(TOPIC_IDS[0], [(-1, 2)])))
    plan = assignment.follow(cluster, None, [])
    assert (plan.roles, plan.leave) == ({}, [key]), "nobody to follow"
    cluster.apply(TopicChanged(topic(TOPIC_IDS[0], [(NODE, 3)])))
    assert assignment.follow(cluster, None, []).roles == {key: Role(3, sole=True)}


def test_only_what_was_deleted_is_dropped() -> None:
    assignment = Assignment(NODE)
    cluster = ClusterState(Snapshot(1, 1, (), tuple(topic(t, [(NODE, 0)]) for t in TOPIC_IDS)))
    assignment.follow(cluster, None, [])
    cluster.apply(TopicRemoved(TOPIC_IDS[0]))
    plan = assignment.follow(cluster, {TOPIC_IDS[0]}, [TOPIC_IDS[0], TOPIC_IDS[2]])
    assert plan.drop == [TOPIC_IDS[0]], "a topic that is in the state is never dropped"
    assert plan.resign == [(TOPIC_IDS[0], 0)]
    cluster.apply(TopicRemoved(TOPIC_IDS[1]))
    plan = assignment.follow(cluster, None, [])
    assert (plan.drop, plan.resign) == ([], [(TOPIC_IDS[1], 0)])


def test_what_others_hold_is_released() -> None:
    assignment, known, unknown = Assignment(NODE), TOPIC_IDS[0], TOPIC_IDS[1]
    cluster = ClusterState(Snapshot(1, 1, (), (topic(known, [(NODE, 0), (2, 3), (2, 4), (-1, 0)]),)))
    held = {(known, 1), (known, 3), (known, 9), (unknown, 0)}
    plan = assignment.follow(cluster, None, [], held)
    assert plan.released == {(known, 1): 3}, (
        "no partition that is not known, and none that it is a replica of"
    )
    cluster.apply(TopicChanged(topic(known, [(2, 1), (2, 3), (2, 4), (-1, 0)])))
    plan = assignment.follow(cluster, {known}, [])
    assert plan.released == {(known, 0): 1}, "a log may be on its way"
    assert plan.resign == [(known, 0)]
