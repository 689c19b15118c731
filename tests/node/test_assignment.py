"""Following a state step by step leads to the same partitions as looking at it once."""

from hypothesis import given
from hypothesis import strategies as st

from tailrace.node.assignment import Assignment, Plan
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
    partitions = tuple(PartitionInfo((leader,), leader, epoch, epoch, (leader,)) for leader, epoch in leaders)
    return TopicInfo(topic_id, topic_id.hex(), TopicConfig(retention_ms=retention_ms), partitions)


LEADERS = st.lists(st.tuples(st.sampled_from([-1, NODE, 2]), st.integers(0, 3)), max_size=3)
CHANGES = st.one_of(
    st.builds(TopicChanged, st.builds(topic, st.sampled_from(TOPIC_IDS), LEADERS)),
    st.builds(TopicRemoved, st.sampled_from(TOPIC_IDS)),
)


def apply(led: dict[tuple[bytes, int], int], plan: Plan) -> None:
    for key in plan.resign:
        del led[key]
    led.update(plan.lead)


@given(st.lists(st.tuples(CHANGES, st.booleans()), max_size=20))
def test_steps_lead_to_the_whole(steps: list[tuple[TopicChanged | TopicRemoved, bool]]) -> None:
    cluster, assignment = ClusterState(), Assignment(NODE)
    led: dict[tuple[bytes, int], int] = {}
    touched: set[bytes] = set()
    for change, all_at_once in steps:
        cluster.apply(change)
        touched.add(change.topic_id if isinstance(change, TopicRemoved) else change.topic.topic_id)
        if all_at_once:
            apply(led, assignment.follow(cluster, None, []))
        else:
            apply(led, assignment.follow(cluster, touched, []))
        touched.clear()
        whole = Assignment(NODE).follow(cluster, None, []).lead
        assert led == whole
        assert {key: assignment.epoch(key) for key in led} == led


def test_an_epoch_that_went_up_is_led_anew() -> None:
    assignment = Assignment(NODE)
    cluster = ClusterState(Snapshot(1, 1, (), (topic(TOPIC_IDS[0], [(NODE, 0), (NODE, 0)]),)))
    assert assignment.follow(cluster, None, []).lead == {(TOPIC_IDS[0], 0): 0, (TOPIC_IDS[0], 1): 0}
    cluster.apply(TopicChanged(topic(TOPIC_IDS[0], [(NODE, 2), (NODE, 0)])))
    plan = assignment.follow(cluster, {TOPIC_IDS[0]}, [])
    assert (plan.lead, plan.resign) == ({(TOPIC_IDS[0], 0): 2}, [])


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
