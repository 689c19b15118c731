"""The size that is counted for the cluster state bounds the size that it has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.coordinator.snapshot_size import node_bytes, topic_bytes
from tailrace.protocol.cluster import Listener, NodeInfo, PartitionInfo, Snapshot, TopicConfig, TopicInfo
from tailrace.protocol.limits import PARTITIONS_MAX, PARTITIONS_PER_TOPIC_MAX, SNAPSHOT_BYTES_MAX
from tailrace.protocol.messages import NodeRegistered
from tailrace.protocol.wire import encode

int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(max_size=60)


@st.composite
def partition_infos(draw: st.DrawFn) -> PartitionInfo:
    replicas = tuple(draw(st.lists(int32, min_size=1, max_size=16, unique=True)))
    in_sync = draw(st.integers(0, len(replicas)))
    return PartitionInfo(
        replicas,
        draw(int32),
        draw(int32),
        draw(int32),
        replicas[:in_sync],
        replicas[in_sync:],
        *((replicas, replicas) if draw(st.booleans()) else ()),
    )


nodes = st.builds(NodeInfo, int32, int64, st.builds(Listener, text, text, text), text, st.booleans(), text)
topics = st.builds(
    TopicInfo,
    st.binary(min_size=16, max_size=16),
    text,
    st.builds(TopicConfig, int64, int64, st.integers(1, 16)),
    st.lists(partition_infos(), max_size=20).map(tuple),
)


@given(st.lists(nodes, max_size=5), st.lists(topics, max_size=5))
def test_bound(nodes: list[NodeInfo], topics: list[TopicInfo]) -> None:
    empty = len(encode(NodeRegistered(2**63 - 1, snapshot=Snapshot(2**63 - 1, 2**63 - 1, (), ()))))
    snapshot = Snapshot(2**63 - 1, 2**63 - 1, tuple(nodes), tuple(topics))
    size = len(encode(NodeRegistered(2**63 - 1, snapshot=snapshot)))
    assert size - empty <= sum(map(node_bytes, nodes)) + sum(map(topic_bytes, topics)) + 8


@pytest.mark.parametrize("replicas", range(1, 17))
def test_the_largest_partitions(replicas: int) -> None:
    ids = tuple(2**31 - 1 - n for n in range(replicas))
    worst = PartitionInfo(ids, ids[0], 2**31 - 1, 2**31 - 1, ids)
    topic = TopicInfo(b"i" * 16, "n" * 249, TopicConfig(2**63 - 1, 2**63 - 1), (worst,) * 1_000)
    size = len(encode(NodeRegistered(0, snapshot=Snapshot(0, 0, (), (topic,)))))
    assert size <= topic_bytes(topic)
    assert size > 0.9 * topic_bytes(topic), "not so far off that it refuses what would fit"


def test_all_partitions_fit() -> None:
    sole = PartitionInfo((2**31 - 1,), 0, 0, 0, (2**31 - 1,))
    topic = TopicInfo(b"i" * 16, "n" * 249, TopicConfig(), (sole,) * PARTITIONS_PER_TOPIC_MAX)
    topics = PARTITIONS_MAX // PARTITIONS_PER_TOPIC_MAX
    assert topics * topic_bytes(topic) <= SNAPSHOT_BYTES_MAX
