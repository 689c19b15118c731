"""Requests that wait for leaders: answered once, by whatever comes first."""

from collections.abc import Iterable

from tailrace.coordinator.openings import Openings
from tailrace.protocol.cluster import ClusterState, PartitionInfo, TopicChanged, TopicConfig, TopicInfo
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.messages import CreateTopic, Failed, TopicCreated

PEER = b"peer"
REQUEST = CreateTopic(7, name="t", timeout_ms=5_000)


def topic_with(leaders: Iterable[int]) -> TopicInfo:
    partitions = tuple(PartitionInfo((abs(n),), n, 0, 0, (abs(n),)) for n in leaders)
    return TopicInfo(b"t" * 16, "t", TopicConfig(), partitions)


def waiting(topic: TopicInfo) -> tuple[Openings, ClusterState]:
    cluster = ClusterState()
    cluster.apply(TopicChanged(topic))
    openings = Openings()
    openings.add(PEER, REQUEST, topic, version=10, now=100.0)
    return openings, cluster


def test_answered_when_all_leaders_have_applied_the_version() -> None:
    topic = topic_with([1, 2, 1])
    openings, cluster = waiting(topic)
    assert openings.applied(1, 9, cluster) == []
    assert openings.applied(1, 10, cluster) == []
    assert openings.applied(3, 10, cluster) == []
    assert openings.applied(2, 12, cluster) == [(PEER, TopicCreated(7, topic=topic))]
    assert openings.applied(2, 12, cluster) == []
    assert openings.next_deadline() is None


def test_another_leader_must_hear_of_its_election() -> None:
    openings, cluster = waiting(topic_with([1, 2]))
    assert openings.applied(1, 10, cluster) == []
    moved = topic_with([1, 3])
    cluster.apply(TopicChanged(moved))
    openings.elected(moved, 11)
    assert openings.applied(3, 10, cluster) == []
    assert openings.applied(3, 11, cluster) == []
    assert openings.applied(1, 11, cluster) == [(PEER, TopicCreated(7, topic=moved))]


def test_the_time_out_says_who_is_missing() -> None:
    openings, cluster = waiting(topic_with([1, 2, 3]))
    openings.applied(2, 10, cluster)
    assert openings.next_deadline() == 105.0
    assert openings.timed_out(104.9) == []
    [(peer, reply)] = openings.timed_out(105.0)
    assert peer == PEER
    assert isinstance(reply, Failed)
    assert (reply.request_id, reply.error.code) == (7, ErrorCode.TIMED_OUT)
    assert (
        "'t' was created, but after 5000 ms these leaders have not opened their partitions yet: node 1, 3"
        in reply.error.message
    )
    assert openings.timed_out(200.0) == []


def test_the_time_out_says_when_there_is_no_leader() -> None:
    openings, cluster = waiting(topic_with([1]))
    openings.elected(topic_with([-1]), 11)
    assert openings.applied(1, 11, cluster) == []
    [(_, reply)] = openings.timed_out(105.0)
    assert isinstance(reply, Failed)
    assert "some partitions have no leader" in reply.error.message


def test_a_deleted_topic_and_a_stop_are_answered() -> None:
    openings, _ = waiting(topic_with([1]))
    [(_, reply)] = openings.removed(b"t" * 16)
    assert isinstance(reply, Failed)
    assert reply.error.code == ErrorCode.UNKNOWN_TOPIC
    assert openings.removed(b"t" * 16) == openings.stop() == []
    openings, _ = waiting(topic_with([1]))
    [(_, reply)] = openings.stop()
    assert isinstance(reply, Failed)
    assert reply.error.code == ErrorCode.SHUTTING_DOWN
    assert len(openings) == 0
