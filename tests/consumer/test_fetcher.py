"""What the fetcher asks for and when, by example."""

from random import Random

import pytest

from tailrace.consumer import fetcher as fetcher_module
from tailrace.consumer import flights as flights_module
from tailrace.consumer.assigned import NO_POSITION, AssignedPartition, Reset
from tailrace.consumer.fetch_plans import FetchPlan, LookupPlan
from tailrace.consumer.fetcher import Fetcher
from tailrace.protocol.cluster import NO_LEADER
from tailrace.protocol.errors import (
    ConnectionFailedError,
    CorruptBatchError,
    ErrorCode,
    MalformedRequestError,
    OffsetOutOfRangeError,
    RequestTooLargeError,
    TailraceError,
    UnknownFetchSessionError,
    UnknownTopicError,
)
from tailrace.protocol.limits import (
    FETCH_SLOT_BYTES_FIRST,
    FETCH_SLOT_BYTES_MAX,
    FETCHES_AHEAD,
    FETCHES_PER_NODE_MAX,
    LOCAL_PAYLOAD_BYTES_MIN,
)
from tailrace.protocol.messages import OK, ErrorInfo, FetchResult
from tailrace.protocol.record import TopicPartition

from .model import TOPIC, TOPIC_ID, ModelCluster, batch_of

PARTITION_BYTES = 200


class World:
    """A fetcher with partitions 0 to `partitions` - 1 of the model's topic."""

    def __init__(self, partitions: int = 1, reset: Reset = "earliest") -> None:
        self.cluster = ModelCluster(partitions)
        self.fetcher = Fetcher(partition_bytes=PARTITION_BYTES, reset=reset, random=Random(0))
        self.partitions = [
            AssignedPartition(TopicPartition(TOPIC, index), TOPIC_ID, 0, reset, Random(0))
            for index in range(partitions)
        ]
        for partition in self.partitions:
            self.fetcher.assign(partition, self.cluster.topic())

    def plan(self, now: float = 0.0) -> FetchPlan:
        (plan,) = self.fetcher.plan(now)
        assert isinstance(plan, FetchPlan)
        return plan

    def look_up(self, now: float = 0.0) -> None:
        (plan,) = self.fetcher.plan(now)
        assert isinstance(plan, LookupPlan)
        self.fetcher.located(plan, self.cluster.look_up(plan), now)

    def answer(self, plan: FetchPlan, bytes_max: int = 10_000, now: float = 0.0) -> None:
        self.fetcher.replied(plan, *self.cluster.fetch(plan, bytes_max), now)

    def fail(self, index: int, code: ErrorCode, now: float = 0.0) -> None:
        """The next fetch gets this error for one partition."""
        result = FetchResult(TOPIC_ID, index, ErrorInfo(code, "the node says so"), -1, -1, 0)
        self.fetcher.replied(self.plan(now), [result], [], now)


def asked(plan: FetchPlan) -> list[tuple[int, int]]:
    return [(entry.partition, entry.offset) for entry in plan.entries]


def test_one_fetch_a_node_asks_for_all_its_partitions() -> None:
    world = World(3)
    world.cluster.logs[1].leader = 2
    world.fetcher.follow({TOPIC_ID: world.cluster.topic()})
    plans = {plan.node: plan for plan in world.fetcher.plan(0.0) if isinstance(plan, FetchPlan)}
    assert {node: asked(plan) for node, plan in plans.items()} == {1: [(0, 0), (2, 0)], 2: [(1, 0)]}
    assert world.fetcher.plan(0.0) == []
    assert world.fetcher.statistics.fetches == 2


def test_the_next_fetch_goes_on_after_what_came_while_that_is_not_handed_over_yet() -> None:
    world = World()
    world.cluster.logs[0].append(3)
    world.answer(world.plan())
    assert asked(world.plan()) == [(0, 3)]
    assert world.partitions[0].position == 0


def test_a_full_partition_is_left_out_and_gets_a_fetch_of_its_own_when_there_is_room() -> None:
    world = World(2)
    world.cluster.logs[0].append(50)
    world.answer(world.plan())
    assert world.partitions[0].buffered_bytes >= FETCHES_AHEAD * PARTITION_BYTES
    waiting = world.plan()
    assert (asked(waiting), waiting.epoch) == ([], 1), "the other goes on waiting"
    assert world.fetcher.pop(world.partitions[0]), "popping makes room: a fetch can go out"
    alone = world.plan()
    assert asked(alone) == [(0, 50)]
    assert alone.session != waiting.session
    world.cluster.logs[1].append(1)
    world.answer(waiting)
    assert asked(world.plan()) == [(1, 1)]


def test_those_that_brought_records_are_read_last() -> None:
    world = World(3)
    world.cluster.logs[0].append(1)
    world.answer(world.plan())
    for log in world.cluster.logs:
        log.append(1)
    results, _ = world.cluster.fetch(world.plan(), 1_000)
    assert [result.partition for result in results] == [1, 2, 0]


# -------------------------------------------------------------------- fetch sessions


def test_a_fetch_names_only_what_has_changed() -> None:
    world = World(3)
    first = world.plan()
    assert (len(first.entries), first.epoch) == (3, 0)
    world.answer(first)
    assert (asked(world.plan()), world.fetcher.plan(0.0)) == ([], []), "one fetch, which names nothing"


def test_a_session_that_the_node_has_forgotten_is_begun_anew_at_once() -> None:
    world = World(2)
    world.answer(world.plan())
    world.cluster.restart(1)
    with pytest.raises(UnknownFetchSessionError) as forgotten:
        world.answer(lost := world.plan())
    world.fetcher.failed(lost.fetch_id, forgotten.value, 0.0)
    anew = world.plan()
    assert (len(anew.entries), anew.epoch) == (2, 0)
    world.fetcher.failed(anew.fetch_id, forgotten.value, 0.0)
    assert world.fetcher.plan(0.0) == [], "but not in a circle"


def test_a_lost_reply_ends_a_session() -> None:
    world = World(2)
    world.answer(world.plan())
    world.fetcher.failed(world.plan().fetch_id, ConnectionFailedError("lost"), 0.0)
    anew = world.plan(10.0)
    assert (len(anew.entries), anew.epoch) == (2, 0)


@pytest.mark.parametrize("resting", [False, True])
def test_who_leaves_a_flight_ends_its_session(resting: bool) -> None:
    world = World(3)
    world.answer(world.plan())
    waiting = None if resting else world.plan()
    world.fetcher.revoke(world.partitions[0])
    world.fetcher.pause(world.partitions[1])
    if waiting is not None:
        world.cluster.logs[0].append(1)
        world.cluster.logs[1].append(1)
        world.answer(waiting)
        assert not world.partitions[0].buffer, "revoked"
        assert world.partitions[1].buffer, "what was on its way to a paused one counts"
    anew = world.plan()
    assert (asked(anew), anew.epoch, anew.session) == ([(2, 0)], 0, 1), "in the place of the old one"


def test_a_session_has_no_more_partitions_than_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights_module, "PARTITIONS_PER_REQUEST_MAX", 4)
    world = World(3)
    world.answer(world.plan())
    named = [asked(plan) for plan in (world.plan(), world.plan()) if isinstance(plan, FetchPlan)]
    assert named == [[], [(2, 0)]], "the third has a flight of its own"


def test_the_room_for_a_reply_follows_what_the_last_one_brought() -> None:
    world = World()
    first = world.plan()
    assert first.reply_bytes == FETCH_SLOT_BYTES_FIRST
    result = FetchResult(TOPIC_ID, 0, OK, 1, 0, 1)
    batch = batch_of([bytes(FETCH_SLOT_BYTES_MAX // 2)], 0)
    world.fetcher.replied(first, [result], [batch], 0.0)
    world.fetcher.pop(world.partitions[0])
    following = world.plan()
    assert following.reply_bytes == FETCH_SLOT_BYTES_MAX
    world.fetcher.replied(following, [], [], 0.0)
    assert world.plan().reply_bytes == FETCH_SLOT_BYTES_FIRST


def test_no_room_is_kept_for_what_trickles_in_nor_while_it_pauses() -> None:
    """Such replies come in frames, through a pipe, where the application's thread may read them."""
    world = World()
    plan = world.plan()
    for size in (1, LOCAL_PAYLOAD_BYTES_MIN - 1_000):
        batch = batch_of([bytes(size)], world.partitions[0].fetch_offset)
        assert len(batch) < LOCAL_PAYLOAD_BYTES_MIN
        world.fetcher.replied(plan, [FetchResult(TOPIC_ID, 0, OK, 1, 0, 1)], [batch], 0.0)
        world.fetcher.pop(world.partitions[0])
        paused = world.plan()
        assert paused.reply_bytes == 0
        world.fetcher.replied(paused, [], [], 0.0)
        plan = world.plan()
        assert plan.reply_bytes == 0


# ------------------------------------------------------------------------- bounds


def test_no_fetch_above_the_bound_of_all_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher_module, "FETCH_BUFFER_BYTES_MAX", 200)
    world = World(2)
    world.cluster.logs[0].append(20)
    world.answer(world.plan())
    assert world.fetcher.buffered_bytes > 200
    assert world.fetcher.plan(0.0) == []
    assert world.fetcher.pop(world.partitions[0])
    assert asked(world.plan()) == [(0, 20)]


def test_paused_partitions_give_up_their_buffers_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher_module, "FETCH_BUFFER_BYTES_MAX", 200)
    world = World(2)
    world.cluster.logs[0].append(20)
    world.answer(world.plan())
    world.fetcher.pause(world.partitions[0])
    assert asked(world.plan()) == [], "the other goes on waiting"
    assert world.fetcher.buffered_bytes == 0
    world.fetcher.resume(world.partitions[0])
    assert asked(world.plan()) == [(0, 0)]


def test_seeks_do_not_wait_for_the_fetch_they_made_stale() -> None:
    world = World()
    stale = []
    for offset in range(2 * FETCHES_PER_NODE_MAX):
        world.fetcher.seek(world.partitions[0], offset)
        stale.append(world.plan())
    world.cluster.logs[0].append(30)
    for plan in stale[:-1]:
        world.answer(plan)
    assert not world.fetcher.ready
    world.answer(stale[-1])
    assert world.partitions[0].buffer[0].start == 2 * FETCHES_PER_NODE_MAX - 1


def test_a_new_leader_is_asked_at_once_and_the_old_ones_reply_is_dropped() -> None:
    world = World()
    world.cluster.logs[0].append(3)
    old = world.plan()
    reply = world.cluster.fetch(old, 1_000)
    world.cluster.logs[0].leader, world.cluster.logs[0].epoch = 2, 1
    world.fetcher.follow({TOPIC_ID: world.cluster.topic()})
    new = world.plan()
    assert (new.node, new.entries[0].leader_epoch) == (2, 1)
    world.fetcher.replied(old, *reply, 0.0)
    assert not world.fetcher.ready
    world.answer(new)
    assert list(world.fetcher.ready.values()) == world.partitions


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.NOT_LEADER, ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.UNKNOWN_LEADER_EPOCH,
        ErrorCode.UNKNOWN_TOPIC, ErrorCode.UNKNOWN_PARTITION, ErrorCode.STORAGE_FAULT, ErrorCode.BUSY,
    ],
)  # fmt: skip
def test_what_may_pass_is_retried_with_growing_pauses_and_a_fresh_cluster_state(code: ErrorCode) -> None:
    world = World()
    now, pauses = 0.0, []
    for _ in range(6):
        world.fail(0, code, now)
        assert world.fetcher.outdated
        assert world.fetcher.plan(now) == []
        assert world.fetcher.retry_at is not None
        pauses.append(world.fetcher.retry_at - now)
        now = world.fetcher.retry_at
    assert pauses[0] <= 0.010
    assert pauses[-1] > 4 * pauses[0]
    world.answer(world.plan(now), now=now)
    assert asked(world.plan(now)) == []
    assert world.partitions[0].retry_at == 0


def test_a_node_that_cannot_be_reached_is_left_alone_for_a_while() -> None:
    world = World(2)
    world.cluster.logs[1].leader = 2
    world.fetcher.follow({TOPIC_ID: world.cluster.topic()})
    lost, _ = world.fetcher.plan(0.0)
    world.fetcher.failed(lost.fetch_id, ConnectionFailedError("refused"), 0.0)
    assert world.fetcher.plan(0.0) == []
    retry_at = world.fetcher.retry_at
    assert retry_at is not None
    assert world.plan(retry_at).node == lost.node


def test_a_node_that_is_elected_is_asked_at_once_whatever_it_missed_before() -> None:
    world = World()
    now = 0.0
    for _ in range(10):
        world.fetcher.failed(world.plan(now).fetch_id, ConnectionFailedError("refused"), now)
        assert world.fetcher.plan(now) == []
        assert world.fetcher.retry_at is not None
        now = world.fetcher.retry_at
    world.fetcher.failed(world.plan(now).fetch_id, ConnectionFailedError("refused"), now)
    world.cluster.logs[0].epoch = 1
    world.fetcher.follow({TOPIC_ID: world.cluster.topic()})
    assert world.plan(now).entries[0].leader_epoch == 1


@pytest.mark.parametrize(("reset", "target"), [("earliest", 10), ("latest", 15)])
def test_out_of_range_goes_where_the_policy_says(reset: Reset, target: int) -> None:
    world = World(reset=reset)
    world.cluster.logs[0].append(10)
    world.cluster.logs[0].append(5)
    world.cluster.logs[0].retain(1)
    world.answer(world.plan())
    world.look_up()
    assert asked(world.plan()) == [(0, target)]
    assert world.partitions[0].position == target
    assert world.fetcher.statistics.resets == 1


def test_out_of_range_without_a_policy_is_raised_and_ended_by_a_seek() -> None:
    world = World(reset="none")
    world.cluster.logs[0].append(5)
    world.fetcher.seek(world.partitions[0], 77)
    world.answer(world.plan())
    world.look_up()
    failure = world.partitions[0].failure
    assert isinstance(failure, OffsetOutOfRangeError)
    assert "orders-0: offset 77 is out of range, the log starts at 0 and ends before 5" in str(failure)
    assert list(world.fetcher.ready.values()) == world.partitions
    assert world.fetcher.plan(0.0) == []
    world.fetcher.seek(world.partitions[0], 2)
    assert asked(world.plan()) == [(0, 2)]


def test_records_fetched_before_the_log_was_cut_are_handed_over_first() -> None:
    world = World()
    world.cluster.logs[0].append(5)
    world.answer(world.plan())
    world.cluster.logs[0].append(5)
    world.cluster.logs[0].append(5)
    world.cluster.logs[0].retain(2)
    world.answer(world.plan())
    world.look_up()
    world.answer(world.plan())
    partition = world.partitions[0]
    assert [raw.header.base_offset for raw in partition.buffer] == [0, 10]
    assert partition.position == 0


def test_a_batch_whose_header_is_broken_ends_the_partition_before_it() -> None:
    world = World()
    whole, broken = batch_of([b"a"] * 3, 0), bytearray(batch_of([b"b"] * 3, 3))
    broken[16] = 9
    result = FetchResult(TOPIC_ID, 0, OK, 6, 0, 2)
    world.fetcher.replied(world.plan(), [result], [whole, bytes(broken)], 0.0)
    partition = world.partitions[0]
    assert len(partition.buffer) == 1
    assert isinstance(partition.failure, CorruptBatchError)
    assert "orders-0: the batch at offset 3 is corrupt: magic 9" in str(partition.failure)
    assert world.fetcher.plan(0.0) == []


def test_a_reply_with_too_few_frames_is_refused_as_a_whole() -> None:
    world = World()
    plan = world.plan()
    with pytest.raises(MalformedRequestError, match="a reply of 1 frames that speaks of 2") as refused:
        world.fetcher.replied(plan, [FetchResult(TOPIC_ID, 0, OK, 6, 0, 2)], [b"one"], 0.0)
    for _ in range(2):  # told once more
        world.fetcher.failed(plan.fetch_id, refused.value, 0.0)
    assert isinstance(world.partitions[0].failure, MalformedRequestError)
    assert not world.partitions[0].buffer


def without_leader(appended: int) -> tuple[World, AssignedPartition]:
    """Partition 0 is to be read from its end, and has lost its leader after so many batches of 2 records."""
    world = World(2)
    world.fetcher.revoke(world.partitions[0])
    log = world.cluster.logs[0]
    for _ in range(appended):
        log.append(2)
    log.elect(NO_LEADER)
    partition = AssignedPartition(TopicPartition(TOPIC, 0), TOPIC_ID, NO_POSITION, "earliest", Random(0))
    partition.begin_after(log.epoch)
    world.fetcher.assign(partition, world.cluster.topic())
    return world, partition


def test_the_end_of_a_log_without_a_leader_is_told_by_its_next_one() -> None:
    world, partition = without_leader(2)
    assert asked(world.plan()) == [(1, 0)], "the others do not wait"
    log = world.cluster.logs[0]
    log.elect(2)
    log.append(3)
    world.fetcher.follow({TOPIC_ID: world.cluster.topic()})
    assert (partition.position, partition.settled) == (NO_POSITION, -1)
    world.look_up()
    assert (partition.position, partition.settled) == (4, 4)
    assert asked(world.plan()) == [(0, 4)]


def test_retention_may_have_passed_where_reading_was_to_begin() -> None:
    world, partition = without_leader(2)
    world.plan()
    log = world.cluster.logs[0]
    log.elect(2)
    log.append(3)
    log.append(1)
    log.retain(3)
    world.fetcher.follow({TOPIC_ID: world.cluster.topic()})
    world.look_up()
    assert (partition.position, world.fetcher.statistics.resets) == (7, 0)


def test_a_seek_ends_the_wait_for_who_knows_the_end() -> None:
    world, partition = without_leader(2)
    world.plan()
    world.fetcher.seek(partition, 1)
    world.cluster.logs[0].elect(2)
    world.fetcher.follow({TOPIC_ID: world.cluster.topic()})
    assert asked(world.plan()) == [(0, 1)]


def test_a_look_up_with_too_few_results_is_refused() -> None:
    world = World()
    world.fail(0, ErrorCode.OFFSET_OUT_OF_RANGE)
    (plan,) = world.fetcher.plan(0.0)
    assert isinstance(plan, LookupPlan)
    world.fetcher.located(plan, world.cluster.look_up(plan)[:1], 0.0)
    assert isinstance(world.partitions[0].failure, MalformedRequestError)


def test_what_a_retry_cannot_mend_is_raised_for_the_partition() -> None:
    world = World(2)
    world.fail(1, ErrorCode.INVALID_RECORD)
    assert isinstance(world.partitions[1].failure, TailraceError)
    assert str(world.partitions[1].failure) == "orders-1: the node says so"
    assert world.plan().epoch == 1, "the other goes on waiting"


def test_a_fetch_that_is_refused_as_a_whole_fails_its_partitions() -> None:
    world = World(2)
    world.fetcher.failed(world.plan().fetch_id, RequestTooLargeError("too much"), 0.0)
    failures = [partition.failure for partition in world.partitions]
    assert [str(failure) for failure in failures] == ["orders-0: too much", "orders-1: too much"]


def test_a_deleted_topic_is_raised_after_what_was_fetched_of_it() -> None:
    world = World()
    world.cluster.logs[0].append(3)
    world.answer(world.plan())
    world.fetcher.follow({})
    partition = world.partitions[0]
    assert partition.buffer
    assert isinstance(partition.failure, UnknownTopicError)
    assert "topic 'orders' was deleted" in str(partition.failure)
    assert world.fetcher.plan(0.0) == []


def test_a_revoked_partition_leaves_nothing_behind() -> None:
    world = World(2)
    world.cluster.logs[0].append(3)
    world.answer(world.plan())
    in_flight = world.plan()
    world.fetcher.revoke(world.partitions[0])
    assert world.fetcher.buffered_bytes == 0
    assert not world.fetcher.ready
    world.cluster.logs[0].append(3)
    world.answer(in_flight)
    assert not world.fetcher.ready
    assert asked(world.plan()) == [(1, 0)]
