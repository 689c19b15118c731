"""Calls of the admin client whose first attempt goes wrong."""

import threading

import pytest

from tailrace.client import offsets
from tailrace.client.admin import Admin
from tailrace.protocol.cluster import NO_LEADER, NodeChanged, TopicChanged, TopicRemoved
from tailrace.protocol.errors import (
    BusyError,
    InvalidTimestampError,
    LeaderNotAvailableError,
    NotEnoughNodesError,
    NotLeaderError,
    TimedOutError,
    TopicExistsError,
    UnknownTopicError,
)
from tailrace.protocol.messages import (
    OK,
    CreateTopic,
    DeleteTopic,
    ListOffsets,
    OffsetResult,
    OffsetsListed,
    Pong,
    TopicCreated,
)
from tailrace.protocol.record import TopicPartition
from tailrace.protocol.wire import error_info

from ..patience import PATIENCE_S

PLACE = TopicPartition("flights", 0)
GIVES_UP_MS = 1_500
"""How long a call tries that fails in the end: long enough for one answer on a busy machine."""


@pytest.fixture
def admin(coordinator):
    with Admin(coordinator.address, request_timeout_ms=int(PATIENCE_S * 1_000)) as admin:
        yield admin


def script(*answers):
    """Answers in turn, the last one for ever; each may be a function of the request."""
    left = list(answers)

    def answer(request):
        step = left.pop(0) if len(left) > 1 else left[0]
        return step(request) if callable(step) else step

    return answer


def offset(number):
    """A node's answer: this offset for every query."""

    def answer(request):
        assert isinstance(request, ListOffsets)
        return OffsetsListed(
            request.request_id, results=[OffsetResult(OK, number, -1)] * len(request.queries)
        )

    return answer


def refusal(error):
    """A node's answer: this error for every query."""

    def answer(request):
        results = [OffsetResult(error_info(error), -1, -1)] * len(request.queries)
        return OffsetsListed(request.request_id, results=results)

    return answer


def create_and_lose_reply(coordinator, topic):
    def answer(request):
        coordinator.change(TopicChanged(topic))
        return BusyError("stands for a lost reply")

    return answer


def test_a_retry_that_finds_the_topic_as_asked_counts_as_created_once_it_can_be_written(
    admin, coordinator, start_node, node, topic
) -> None:
    leader = start_node(script(refusal(NotLeaderError("not yet")), offset(0)))
    coordinator.change(NodeChanged(node(1, leader.listener)))
    coordinator.others = script(
        create_and_lose_reply(coordinator, topic("flights", partitions=2)), TopicExistsError("flights")
    )
    created = admin.create_topic("flights", 2, config={"retention.ms": -1})
    assert len(created.partitions) == 2
    assert len(leader.requests) == 2


def test_a_retry_that_finds_another_topic_is_an_error(admin, coordinator, topic) -> None:
    coordinator.others = script(
        create_and_lose_reply(coordinator, topic("flights", partitions=3)), TopicExistsError("flights")
    )
    with pytest.raises(TopicExistsError):
        admin.create_topic("flights", 2)


def test_a_topic_that_existed_before_is_an_error(admin, coordinator, topic) -> None:
    coordinator.change(TopicChanged(topic("flights")))
    coordinator.others = script(TopicExistsError("flights"))
    with pytest.raises(TopicExistsError):
        admin.create_topic("flights")


def test_creating_waits_for_nodes_that_are_on_their_way(admin, coordinator, topic) -> None:
    coordinator.others = script(
        NotEnoughNodesError("0 alive"),
        NotEnoughNodesError("0 alive"),
        lambda request: TopicCreated(request.request_id, topic=topic("flights")),
    )
    assert admin.create_topic("flights").name == "flights"


def test_creating_gives_up_on_nodes_that_do_not_come(admin, coordinator) -> None:
    coordinator.others = script(NotEnoughNodesError("0 alive"))
    with pytest.raises(NotEnoughNodesError, match="0 alive"):
        admin.create_topic("flights", timeout_ms=GIVES_UP_MS)


def test_creating_does_not_wait_out_a_node_that_has_not_heard(admin, coordinator) -> None:
    coordinator.others = script(TimedOutError("node 2 has not heard of it"))
    with pytest.raises(TimedOutError, match="node 2 has not heard of it"):
        admin.create_topic("flights", timeout_ms=60_000)
    asked = [request for request in coordinator.requests if isinstance(request, CreateTopic)]
    assert len(asked) == 1
    assert 50_000 < asked[0].timeout_ms < 60_000, (
        "less than the caller waits, so that the answer comes in time"
    )


def test_deleting_twice_after_a_lost_reply(admin, coordinator) -> None:
    coordinator.others = script(BusyError("stands for a lost reply"), UnknownTopicError("flights"))
    admin.delete_topic("flights")
    assert sum(isinstance(request, DeleteTopic) for request in coordinator.requests) == 2
    with pytest.raises(UnknownTopicError):
        admin.delete_topic("flights")


def test_offsets_follow_the_leader(admin, coordinator, start_node, node, topic) -> None:
    """The move was not published: the error makes the client look."""
    old, new = start_node(refusal(NotLeaderError("moved"))), start_node(offset(7))
    coordinator.change(NodeChanged(node(1, old.listener)), NodeChanged(node(2, new.listener)))
    coordinator.change(TopicChanged(topic("flights", leader=1)))
    admin.list_topics()
    coordinator.change(TopicChanged(topic("flights", leader=2, epoch=1)), publish=False)
    assert admin.list_offsets({PLACE: Admin.LATEST}) == {PLACE: (7, -1)}
    assert new.requests[0].queries[0].leader_epoch == 1


def test_offsets_wait_for_a_leader(admin, coordinator, start_node, node, topic) -> None:
    coordinator.change(NodeChanged(node(1, start_node(offset(7)).listener)))
    coordinator.change(TopicChanged(topic("flights", leader=NO_LEADER)))
    with pytest.raises(LeaderNotAvailableError, match="flights-0: there is no live leader"):
        admin.list_offsets({PLACE: Admin.LATEST}, timeout_ms=GIVES_UP_MS)
    timer = threading.Timer(0.1, coordinator.change, [TopicChanged(topic("flights", epoch=1))])
    timer.start()
    assert admin.list_offsets({PLACE: Admin.LATEST}) == {PLACE: (7, -1)}
    timer.join()


def test_a_node_that_has_not_heard_of_a_topic_is_asked_again(
    admin, coordinator, start_node, node, topic
) -> None:
    late = start_node(script(refusal(UnknownTopicError("not here")), offset(3)))
    coordinator.change(NodeChanged(node(1, late.listener)), TopicChanged(topic("flights")))
    assert admin.list_offsets({PLACE: Admin.LATEST}) == {PLACE: (3, -1)}


def test_a_topic_that_is_deleted_meanwhile(admin, coordinator, start_node, node, topic) -> None:
    def delete(request):
        coordinator.change(TopicRemoved(topic("flights").topic_id))
        return refusal(UnknownTopicError("gone"))(request)

    coordinator.change(
        NodeChanged(node(1, start_node(script(delete)).listener)), TopicChanged(topic("flights"))
    )
    with pytest.raises(UnknownTopicError, match="topic 'flights' does not exist"):
        admin.list_offsets({PLACE: Admin.LATEST})


def test_the_last_error_names_the_partition(admin, coordinator, start_node, node, topic) -> None:
    stubborn = start_node(refusal(NotLeaderError("not me")))
    coordinator.change(NodeChanged(node(1, stubborn.listener)), TopicChanged(topic("flights")))
    with pytest.raises(NotLeaderError, match="flights-0: not me"):
        admin.list_offsets({PLACE: Admin.LATEST}, timeout_ms=GIVES_UP_MS)


def test_an_error_that_no_retry_helps_comes_at_once(admin, coordinator, start_node, node, topic) -> None:
    strict = start_node(refusal(InvalidTimestampError("before 1970")))
    coordinator.change(NodeChanged(node(1, strict.listener)), TopicChanged(topic("flights")))
    with pytest.raises(InvalidTimestampError, match="flights-0: before 1970"):
        admin.list_offsets({PLACE: 5})
    assert len(strict.requests) == 1


def test_partitions_that_answered_are_not_asked_again(admin, coordinator, start_node, node, topic) -> None:
    def half(request):
        good, bad = OffsetResult(OK, 1, -1), OffsetResult(error_info(NotLeaderError("x")), -1, -1)
        return OffsetsListed(request.request_id, results=[good, bad][: len(request.queries)])

    leader = start_node(script(half, offset(2)))
    coordinator.change(NodeChanged(node(1, leader.listener)), TopicChanged(topic("flights", partitions=2)))
    places = dict.fromkeys([PLACE, TopicPartition("flights", 1)], Admin.LATEST)
    assert [at.offset for at in admin.list_offsets(places).values()] == [1, 2]
    assert [len(request.queries) for request in leader.requests] == [2, 1]


def test_no_request_has_more_partitions_than_a_node_takes(
    admin, coordinator, start_node, node, topic, monkeypatch
) -> None:
    monkeypatch.setattr(offsets, "PARTITIONS_PER_REQUEST_MAX", 4)
    leader = start_node(offset(1))
    coordinator.change(NodeChanged(node(1, leader.listener)), TopicChanged(topic("flights", partitions=10)))
    places = {TopicPartition("flights", index): Admin.LATEST for index in range(10)}
    assert len(admin.list_offsets(places)) == 10
    assert [len(request.queries) for request in leader.requests] == [4, 4, 2]


def test_ready_waits_for_leaders(admin, coordinator, start_node, node, topic) -> None:
    coordinator.change(NodeChanged(node(1, start_node(lambda request: Pong(request.request_id)).listener)))
    coordinator.change(TopicChanged(topic("flights", leader=NO_LEADER)))
    with pytest.raises(LeaderNotAvailableError, match="flights-0 has no live leader"):
        admin.ready(GIVES_UP_MS)
    coordinator.change(TopicChanged(topic("flights", epoch=1)))
    admin.ready()


def test_a_created_topic_is_described_as_the_coordinator_has_it(admin, coordinator, topic) -> None:
    coordinator.others = lambda request: TopicCreated(
        request.request_id, topic=topic("flights", partitions=2)
    )
    assert len(admin.create_topic("flights", 2).partitions) == 2
