"""What single requests to a group bring, message by message."""

from collections.abc import Iterable
from itertools import count
from typing import Any

import pytest

from tailrace.coordinator.groups import checks as checks_module
from tailrace.coordinator.groups import groups as groups_module
from tailrace.coordinator.groups import offsets as offsets_module
from tailrace.coordinator.groups.groups import Groups
from tailrace.coordinator.groups.state import GroupsState
from tailrace.protocol.cluster import (
    ClusterState,
    PartitionInfo,
    TopicChanged,
    TopicConfig,
    TopicInfo,
    TopicRemoved,
)
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.group_messages import (
    CommitOffsets,
    DeleteGroup,
    DescribeGroup,
    FetchOffsets,
    GroupAssigned,
    GroupDeleted,
    GroupDescribed,
    GroupHeartbeat,
    GroupLeft,
    GroupsListed,
    JoinGroup,
    LeaveGroup,
    ListGroups,
    OffsetCommit,
    OffsetsCommitted,
    OffsetsFetched,
    TopicPartitions,
)
from tailrace.protocol.limits import RECONNECT_WITHIN_MS
from tailrace.protocol.messages import Failed, Reply
from tailrace.protocol.partition_sets import keys_of

GROUP = "g"
TOPIC = b"t" * 16
TIMEOUT_MS = 6_000
RETENTION_MS = 3_600_000
START_MS = 1_700_000_000_000


class Coordinator:
    """The machine of groups with one topic, a clock, and the answers by request."""

    def __init__(self, partitions: int = 4) -> None:
        self.now = 0.0
        self.ids = count(1)
        self.answers: dict[int, tuple[bytes, Reply]] = {}
        self.cluster = ClusterState()
        self.disk = GroupsState()
        infos = tuple(PartitionInfo((1,), 1, 0, 0, (1,)) for _ in range(partitions))
        self.cluster.apply(TopicChanged(TopicInfo(TOPIC, "t", TopicConfig(), infos)))
        self.groups = self.started(GroupsState())

    def started(self, state: GroupsState) -> Groups:
        return Groups(state, self.cluster, offsets_retention_ms=RETENTION_MS, now=self.now)

    def restart(self) -> None:
        """From what is on disk."""
        state = GroupsState()
        for row in self.disk.rows():
            state.apply(row)
        self.groups = self.started(state)

    @property
    def wall_ms(self) -> int:
        return START_MS + int(self.now * 1000)

    def settle(self) -> None:
        changes, answers = self.groups.settle(self.now, self.wall_ms)
        for change in changes:
            self.disk.apply(change)
        for peer, reply in answers:
            assert reply.request_id not in self.answers, "answered twice"
            self.answers[reply.request_id] = (peer, reply)

    def send(self, peer: bytes, kind: type[Any], **fields: Any) -> int:
        request_id = next(self.ids)
        self.groups.ask(peer, kind(request_id, **fields), self.now, self.wall_ms)
        return request_id

    def ask(self, kind: type[Any], peer: bytes = b"admin", **fields: Any) -> Any:
        request_id = self.send(peer, kind, **fields)
        self.settle()
        to, reply = self.answers[request_id]
        assert to == peer
        return reply

    def join(self, member_id: str, instance_id: str = "", **fields: Any) -> Any:
        join: dict[str, Any] = {"group_id": GROUP, "topics": ("t",), "session_timeout_ms": TIMEOUT_MS}
        return self.ask(
            JoinGroup, member_id.encode(), member_id=member_id, instance_id=instance_id, **(join | fields)
        )

    def beat(
        self,
        member_id: str,
        epoch: int,
        owned: Iterable[int],
        wait_ms: int = 0,
        topics: tuple[str, ...] | None = None,
    ) -> int:
        """Send a heartbeat, and settle; its request id."""
        request_id = self.send(
            member_id.encode(),
            GroupHeartbeat,
            group_id=GROUP,
            member_id=member_id,
            member_epoch=epoch,
            owned=(TopicPartitions(TOPIC, tuple(owned)),),
            topics=topics,
            max_wait_ms=wait_ms,
        )
        self.settle()
        return request_id

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 0.25, max(self.now, self.groups.next_tick()) + 0.01)
            self.groups.tick(self.now, self.wall_ms)
            self.settle()

    def skip(self, seconds: float) -> None:
        """Time in which nobody looked, which no member pays for."""
        self.now += seconds
        self.groups.tick(self.now, self.wall_ms)
        self.settle()

    def gone(self, peer: bytes) -> None:
        self.groups.gone([peer], self.now)
        self.settle()

    def commit(self, *offsets: tuple[int, int], **member: Any) -> Any:
        entries = tuple(OffsetCommit(TOPIC, partition, offset) for partition, offset in offsets)
        return self.ask(CommitOffsets, group_id=GROUP, offsets=entries, **member)

    def stored(self) -> dict[int, int]:
        reply = self.ask(FetchOffsets, group_id=GROUP)
        assert isinstance(reply, OffsetsFetched)
        return {offset.partition: offset.offset for offset in reply.offsets}


def partitions(reply: Any) -> list[int]:
    assert isinstance(reply, GroupAssigned), reply
    return [partition for _, partition in keys_of(reply.assigned)]


def code(reply: Any) -> ErrorCode:
    assert isinstance(reply, Failed), reply
    return ErrorCode(reply.error.code)


@pytest.fixture
def coordinator() -> Coordinator:
    return Coordinator()


def test_members_that_join_in_one_burst_cause_one_rebalance(coordinator: Coordinator) -> None:
    ids = [
        coordinator.send(
            b"p%d" % number,
            JoinGroup,
            group_id=GROUP,
            member_id=f"m{number}",
            topics=("t",),
            session_timeout_ms=TIMEOUT_MS,
        )
        for number in range(4)
    ]
    assert not coordinator.answers
    coordinator.settle()
    replies = [coordinator.answers[request_id][1] for request_id in ids]
    assert sorted(p for reply in replies for p in partitions(reply)) == [0, 1, 2, 3]
    assert {reply.member_epoch for reply in replies if isinstance(reply, GroupAssigned)} == {1}


def test_a_join_that_is_asked_again_joins_once(coordinator: Coordinator) -> None:
    first, again = coordinator.join("m1"), coordinator.join("m1")
    assert (first.member_epoch, first.assigned) == (again.member_epoch, again.assigned)
    assert len(coordinator.groups.state.groups[GROUP].members) == 1


def test_a_released_partition_is_told_at_once_to_who_waits_for_it(coordinator: Coordinator) -> None:
    coordinator.join("m1")
    second = coordinator.join("m2")
    assert partitions(second) == []
    waits = coordinator.beat("m2", second.member_epoch, [], wait_ms=2_000)
    assert waits not in coordinator.answers
    told = coordinator.beat("m1", 1, range(4), wait_ms=2_000)
    kept = partitions(coordinator.answers[told][1])
    assert len(kept) == 2
    assert waits not in coordinator.answers  # m1 has heard what it loses, and holds it still
    done = coordinator.beat("m1", second.member_epoch, kept, wait_ms=2_000)
    assert sorted(partitions(coordinator.answers[waits][1]) + kept) == [0, 1, 2, 3]
    assert done not in coordinator.answers  # nothing is new for m1


def test_a_newer_heartbeat_answers_the_one_before(coordinator: Coordinator) -> None:
    joined = coordinator.join("m1")
    first = coordinator.beat("m1", joined.member_epoch, range(4), wait_ms=2_000)
    second = coordinator.beat("m1", joined.member_epoch, range(4), wait_ms=2_000)
    assert partitions(coordinator.answers[first][1]) == [0, 1, 2, 3]
    assert second not in coordinator.answers
    coordinator.pass_time(2.5)
    assert second in coordinator.answers


def test_an_epoch_that_was_never_told_is_no_members(coordinator: Coordinator) -> None:
    joined = coordinator.join("m1")
    request_id = coordinator.beat("m1", joined.member_epoch + 1, range(4))
    assert code(coordinator.answers[request_id][1]) == ErrorCode.UNKNOWN_MEMBER


def test_a_silent_member_is_given_up_though_its_heartbeat_waits(coordinator: Coordinator) -> None:
    joined = coordinator.join("m1")
    coordinator.beat("m1", joined.member_epoch, range(4), wait_ms=3_000)
    coordinator.pass_time(TIMEOUT_MS / 1000 - 0.1)
    assert "m1" in coordinator.groups.state.groups[GROUP].members
    coordinator.pass_time(0.6)
    assert GROUP not in coordinator.groups.state.groups  # without offsets nothing is left of it


def test_nobody_pays_for_a_coordinator_that_stood_still(coordinator: Coordinator) -> None:
    coordinator.join("m1")
    coordinator.skip(100)
    assert "m1" in coordinator.groups.state.groups[GROUP].members
    coordinator.pass_time(TIMEOUT_MS / 1000 + 0.5)
    assert GROUP not in coordinator.groups.state.groups


def test_a_closed_connection_ends_a_member_at_once_unless_it_came_back(coordinator: Coordinator) -> None:
    first = coordinator.join("m1")
    coordinator.join("m2")
    coordinator.send(
        b"new",
        GroupHeartbeat,
        group_id=GROUP,
        member_id="m1",
        member_epoch=first.member_epoch,
        owned=first.assigned,
    )
    coordinator.gone(b"m1")
    assert set(coordinator.groups.state.groups[GROUP].members) == {"m1", "m2"}
    coordinator.gone(b"new")
    assert set(coordinator.groups.state.groups[GROUP].members) == {"m2"}
    assert len(coordinator.groups.state.groups[GROUP].owners) == 4


@pytest.mark.parametrize("looked", [True, False])
def test_who_gave_up_its_connection_to_a_coordinator_that_stood_still_has_time_to_make_another(
    coordinator: Coordinator, looked: bool
) -> None:
    joined = coordinator.join("m1")
    coordinator.join("m2")
    coordinator.now += 5
    if looked:
        coordinator.skip(0.0)
    coordinator.gone(b"m1")
    coordinator.gone(b"m2")
    beat = {"group_id": GROUP, "member_epoch": joined.member_epoch, "owned": joined.assigned}
    coordinator.send(b"new", GroupHeartbeat, member_id="m1", **beat)
    coordinator.pass_time(RECONNECT_WITHIN_MS / 1000 - 0.1)
    assert set(coordinator.groups.state.groups[GROUP].members) == {"m1", "m2"}
    coordinator.pass_time(0.4)
    assert set(coordinator.groups.state.groups[GROUP].members) == {"m1"}, "it has not come back"
    coordinator.gone(b"new")
    assert GROUP not in coordinator.groups.state.groups, "at once, as ever"


def test_a_static_member_that_comes_back_has_what_it_had(coordinator: Coordinator) -> None:
    first = coordinator.join("m1", "one")
    other = coordinator.join("m2", "two")
    kept = partitions(coordinator.answers[coordinator.beat("m1", 1, range(4))][1])
    coordinator.beat("m1", other.member_epoch, kept)
    coordinator.gone(b"m1")
    assert len(coordinator.groups.state.groups[GROUP].members) == 2
    again = coordinator.join("m3", "one")
    assert partitions(again) == kept
    assert again.member_epoch >= first.member_epoch
    refused = coordinator.commit((kept[0], 1), member_id="m1", member_epoch=other.member_epoch)
    assert isinstance(refused, OffsetsCommitted)
    assert [error.code for error in refused.errors] == [ErrorCode.FENCED_MEMBER]
    late = coordinator.beat("m1", other.member_epoch, kept)
    assert code(coordinator.answers[late][1]) == ErrorCode.UNKNOWN_MEMBER


def test_an_instance_that_lives_is_not_replaced(coordinator: Coordinator) -> None:
    coordinator.join("m1", "one", client_id="left", host="here")
    refused = coordinator.join("m2", "one")
    assert code(refused) == ErrorCode.INSTANCE_ID_IN_USE
    assert "left" in refused.error.message
    assert "here" in refused.error.message
    coordinator.pass_time(TIMEOUT_MS / 1000 + 0.5)
    assert partitions(coordinator.join("m2", "one")) == [0, 1, 2, 3]


def test_without_members_anybody_may_commit_and_with_members_only_they(coordinator: Coordinator) -> None:
    assert coordinator.commit((0, 5), (1, 6)) == OffsetsCommitted(1)
    joined = coordinator.join("m1")
    assert code(coordinator.commit((0, 4))) == ErrorCode.GROUP_NOT_EMPTY
    coordinator.commit((0, 7), member_id="m1", member_epoch=joined.member_epoch)
    assert coordinator.stored() == {0: 7, 1: 6}
    assert isinstance(coordinator.ask(LeaveGroup, group_id=GROUP, member_id="m1"), GroupLeft)
    assert isinstance(coordinator.ask(LeaveGroup, group_id=GROUP, member_id="m1"), GroupLeft)
    coordinator.commit((0, 1))
    assert coordinator.stored() == {0: 1, 1: 6}


def test_one_bad_offset_keeps_no_other_from_being_stored(coordinator: Coordinator) -> None:
    reply = coordinator.commit((0, 5), (9, 5), (1, 5))
    assert [error.code for error in reply.errors] == [0, ErrorCode.UNKNOWN_PARTITION, 0]
    assert coordinator.stored() == {0: 5, 1: 5}


def test_what_is_being_revoked_may_be_committed_until_it_is_released(coordinator: Coordinator) -> None:
    coordinator.join("m1")
    second = coordinator.join("m2")
    kept = partitions(coordinator.answers[coordinator.beat("m1", 1, range(4))][1])
    lost = next(partition for partition in range(4) if partition not in kept)
    old = {"member_id": "m1", "member_epoch": 1}
    assert not coordinator.commit((lost, 3), **old).errors
    coordinator.beat("m1", second.member_epoch, kept)
    refused = coordinator.commit((lost, 4), **old)
    assert [error.code for error in refused.errors] == [ErrorCode.FENCED_MEMBER]
    assert f"t-{lost} is held by member m2" in refused.errors[0].message
    assert coordinator.stored() == {lost: 3}


def test_offsets_of_a_group_without_members_expire(coordinator: Coordinator) -> None:
    joined = coordinator.join("m1")
    coordinator.commit((0, 5), member_id="m1", member_epoch=joined.member_epoch)
    coordinator.skip(2 * RETENTION_MS / 1000)  # it has a member all the time
    assert coordinator.stored() == {0: 5}
    coordinator.ask(LeaveGroup, group_id=GROUP, member_id="m1")
    coordinator.groups = coordinator.started(coordinator.groups.state)
    coordinator.skip(RETENTION_MS / 1000 - 1)
    assert coordinator.stored() == {0: 5}
    coordinator.skip(61)
    assert coordinator.stored() == {}
    assert GROUP not in coordinator.groups.state.groups
    assert GROUP not in coordinator.disk.groups


def test_a_deleted_topic_takes_its_offsets_and_assignments_along(coordinator: Coordinator) -> None:
    joined = coordinator.join("m1")
    coordinator.commit((0, 5), member_id="m1", member_epoch=joined.member_epoch)
    waits = coordinator.beat("m1", joined.member_epoch, range(4), wait_ms=2_000)
    coordinator.cluster.apply(TopicRemoved(TOPIC))
    coordinator.groups.topics_changed([TOPIC])
    coordinator.settle()
    assert partitions(coordinator.answers[waits][1]) == []
    assert coordinator.stored() == {}


def test_offsets_of_a_topic_whose_deletion_was_interrupted_go_at_the_next_start(
    coordinator: Coordinator,
) -> None:
    coordinator.commit((0, 5))
    coordinator.cluster.apply(TopicRemoved(TOPIC))  # stored, and then the coordinator was killed
    coordinator.restart()
    coordinator.settle()
    assert not list(coordinator.disk.rows()), "without members and offsets nothing is left of the group"


def test_groups_are_listed_described_and_deleted(coordinator: Coordinator) -> None:
    joined = coordinator.join("m1", client_id="c", host="h")
    coordinator.commit((0, 5), member_id="m1", member_epoch=joined.member_epoch)
    listed = coordinator.ask(ListGroups)
    assert isinstance(listed, GroupsListed)
    assert [(g.group_id, g.kind, g.state, g.members) for g in listed.groups] == [
        (GROUP, "consumer", "stable", 1)
    ]
    coordinator.join("m2")
    described = coordinator.ask(DescribeGroup, group_id=GROUP)
    assert isinstance(described, GroupDescribed)
    assert described.group.state == "reconciling"
    first = described.members[0]
    assert (first.member_id, first.client_id, first.host) == ("m1", "c", "h")
    assert len(list(keys_of(first.revoking))) == len(list(keys_of(first.assigned))) == 2
    assert code(coordinator.ask(DeleteGroup, group_id=GROUP)) == ErrorCode.GROUP_NOT_EMPTY
    for member_id in ("m1", "m2"):
        coordinator.ask(LeaveGroup, group_id=GROUP, member_id=member_id)
    assert coordinator.ask(ListGroups).groups[0].state == "empty"
    assert isinstance(coordinator.ask(DeleteGroup, group_id=GROUP), GroupDeleted)
    assert coordinator.ask(ListGroups).groups == ()
    assert code(coordinator.ask(DescribeGroup, group_id=GROUP)) == ErrorCode.UNKNOWN_GROUP
    assert coordinator.disk.groups == {}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"group_id": "a b"}, ErrorCode.INVALID_GROUP),
        ({"member_id": ""}, ErrorCode.INVALID_GROUP),
        ({"instance_id": "a/b"}, ErrorCode.INVALID_GROUP),
        ({"session_timeout_ms": 999}, None),
        ({"assignor": "best"}, None),
    ],
)
def test_what_cannot_be_joined_is_refused(
    coordinator: Coordinator, fields: dict[str, Any], expected: ErrorCode | None
) -> None:
    join: dict[str, Any] = {
        "group_id": GROUP,
        "member_id": "m1",
        "topics": ("t",),
        "session_timeout_ms": TIMEOUT_MS,
    }
    reply = coordinator.ask(JoinGroup, **(join | fields))
    assert isinstance(reply, Failed)
    assert expected is None or code(reply) == expected
    assert coordinator.groups.state.groups == {}


def test_a_report_of_an_older_epoch_frees_nothing() -> None:
    """The answer that gave the partition may be on its way to the member, which will then hold it."""
    coordinator = Coordinator(partitions=2)
    ranged = {"assignor": "range"}
    coordinator.join("m1", **ranged)
    second = coordinator.join("m2", **ranged)
    coordinator.beat("m1", second.member_epoch, [0])  # partition 1 goes to m2, which does not hear it yet
    third = coordinator.join("m0", **ranged)  # partition 0 is for m0 now, 1 for m1
    late = coordinator.beat("m2", second.member_epoch, [])
    assert coordinator.groups.state.groups[GROUP].owners[TOPIC, 1] == "m2"
    assert partitions(coordinator.answers[late][1]) == []
    coordinator.beat("m2", third.member_epoch, [])
    assert coordinator.groups.state.groups[GROUP].owners[TOPIC, 1] == "m1"


def test_a_static_member_that_does_not_come_back_after_a_restart_is_replaced(
    coordinator: Coordinator,
) -> None:
    coordinator.join("m1", "one")
    coordinator.restart()
    assert code(coordinator.join("m2", "one")) == ErrorCode.INSTANCE_ID_IN_USE, "it may be on its way"
    coordinator.pass_time(RECONNECT_WITHIN_MS / 1000)
    assert partitions(coordinator.join("m3", "one")) == [0, 1, 2, 3]


def test_a_static_member_that_came_back_after_a_restart_is_not_replaced(coordinator: Coordinator) -> None:
    joined = coordinator.join("m1", "one")
    coordinator.restart()
    coordinator.beat("m1", joined.member_epoch, range(4))
    coordinator.pass_time(RECONNECT_WITHIN_MS / 1000)
    assert code(coordinator.join("m2", "one")) == ErrorCode.INSTANCE_ID_IN_USE


def test_who_waits_is_told_when_the_coordinator_stops(coordinator: Coordinator) -> None:
    joined = coordinator.join("m1")
    request_id = coordinator.beat("m1", joined.member_epoch, range(4), wait_ms=2_000)
    assert request_id not in coordinator.answers
    ((peer, reply),) = coordinator.groups.stop()
    assert (peer, reply.request_id, code(reply)) == (b"m1", request_id, ErrorCode.SHUTTING_DOWN)
    assert coordinator.groups.stop() == []


def test_a_full_store_refuses_what_is_new_and_takes_it_when_there_is_room(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator.commit((0, 5), (1, 5))
    monkeypatch.setattr(
        groups_module, "GROUP_STORE_ROWS_BYTES_MAX", coordinator.groups.state.stored_bytes + 50
    )
    refused = coordinator.commit((0, 6), (2, 6), (1, 6))
    assert [error.code for error in refused.errors] == [0, ErrorCode.LIMIT_EXCEEDED, 0]
    assert coordinator.stored() == {0: 6, 1: 6}
    assert isinstance(coordinator.ask(DeleteGroup, group_id=GROUP), GroupDeleted)
    assert coordinator.groups.state.stored_bytes == 0
    assert coordinator.commit((2, 6)) == OffsetsCommitted(next(coordinator.ids) - 1)


def test_members_need_room_too(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator.join("m1")
    monkeypatch.setattr(checks_module, "GROUP_STORE_ROWS_BYTES_MAX", coordinator.groups.state.stored_bytes)
    assert code(coordinator.join("m2")) == ErrorCode.LIMIT_EXCEEDED
    more = ("t", "u" * 100)
    assert code(coordinator.join("m1", topics=more)) == ErrorCode.LIMIT_EXCEEDED
    _, reply = coordinator.answers[coordinator.beat("m1", 1, (), topics=more)]
    assert code(reply) == ErrorCode.LIMIT_EXCEEDED


def test_more_offsets_than_a_reply_takes_are_refused(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator.commit((0, 1), (1, 1), (2, 1))
    monkeypatch.setattr(offsets_module, "PARTITIONS_PER_REQUEST_MAX", 2)
    assert code(coordinator.ask(FetchOffsets, group_id=GROUP)) == ErrorCode.LIMIT_EXCEEDED
    some = (TopicPartitions(TOPIC, (0, 2)),)
    assert len(coordinator.ask(FetchOffsets, group_id=GROUP, partitions=some).offsets) == 2
