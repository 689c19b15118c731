"""The admin client's part for consumer groups."""

from collections.abc import Mapping
from functools import partial

from tailrace.protocol.cluster import NO_LEADER, ClusterState
from tailrace.protocol.errors import (
    GroupNotEmptyError,
    InvalidGroupError,
    LimitExceededError,
    UnknownGroupError,
    error_from,
)
from tailrace.protocol.group_messages import (
    CommitOffsets,
    CommittedOffset,
    DeleteGroup,
    DescribeGroup,
    FetchOffsets,
    GroupDeleted,
    GroupDescribed,
    GroupsListed,
    ListGroups,
    OffsetCommit,
    OffsetsCommitted,
    OffsetsFetched,
    PartitionSet,
)
from tailrace.protocol.limits import PARTITIONS_PER_REQUEST_MAX
from tailrace.protocol.message import ErrorInfo
from tailrace.protocol.messages import LATEST
from tailrace.protocol.partition_sets import partition_set
from tailrace.protocol.record import TopicPartition

from .admin_calls import AdminCalls, left_s
from .arguments import INT64_MAX, check_int, items_of, partition_of
from .descriptions import (
    GroupDescription,
    GroupListing,
    GroupOffset,
    MemberDescription,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    describe_member,
)
from .offsets import list_offsets


class GroupAdmin(AdminCalls):
    """Looks at consumer groups, and changes the offsets of those without members."""

    def list_groups(self, *, timeout_ms: int | None = None) -> list[GroupListing]:
        """All groups, in the order of their ids."""
        reply = self._call(GroupsListed, ListGroups, self._deadline(timeout_ms))
        return [
            GroupListing(
                group_id=info.group_id,
                kind=info.kind,
                state=info.state,
                members=info.members,
                group_epoch=info.group_epoch,
            )
            for info in reply.groups
        ]

    def describe_group(self, group_id: str, *, timeout_ms: int | None = None) -> GroupDescription:
        """One group: its members, its offsets, and how far these are behind the ends of the logs.

        Every partition that has an offset or a member is there; the end of one without a leader is None.
        Raises UnknownGroupError with similar names.
        """
        _check_group_id(group_id)
        deadline = self._deadline(timeout_ms)
        reply = self._call(GroupDescribed, partial(DescribeGroup, group_id=group_id), deadline)
        state = self._engine.refresh(left_s(deadline))
        members = [describe_member(member, state) for member in reply.members]
        owners = {place: member for member in members for place in member.partitions}
        offsets = self._offsets(group_id, state, deadline)
        places = sorted({*owners, *offsets})
        led = [place for place in places if _leader(state, place) != NO_LEADER]
        ends = list_offsets(self._engine, dict.fromkeys(led, LATEST), left_s(deadline)) if led else {}
        return GroupDescription(
            group_id=group_id,
            kind=reply.group.kind,
            state=reply.group.state,
            group_epoch=reply.group.group_epoch,
            assignor=reply.assignor,
            members=tuple(members),
            offsets=tuple(
                _offset(place, offsets.get(place), ends.get(place), owners.get(place)) for place in places
            ),
        )

    def list_group_offsets(
        self, group_id: str, *, timeout_ms: int | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """The committed offsets of a group; none if nobody has heard of it."""
        _check_group_id(group_id)
        deadline = self._deadline(timeout_ms)
        state = self._engine.refresh(left_s(deadline))
        return {
            place: OffsetAndMetadata(found.offset, found.metadata, found.leader_epoch)
            for place, found in sorted(self._offsets(group_id, state, deadline).items())
        }

    def reset_group_offsets(
        self, group_id: str, offsets: Mapping[TopicPartition, int], *, timeout_ms: int | None = None
    ) -> None:
        """Set the offsets (of the next record to read) of a group that has no members.

        One that cannot be set keeps no other from it. Raises GroupNotEmptyError while it has some,
        UnknownTopicError, UnknownPartitionError, InvalidGroupError.
        """
        _check_group_id(group_id)
        chosen = {
            partition_of(place): check_int("offset", offset, 0, INT64_MAX)
            for place, offset in items_of("offsets", offsets)
        }
        deadline = self._deadline(timeout_ms)
        state = self._engine.refresh(left_s(deadline))
        entries = tuple(
            OffsetCommit(state.existing_topic(place.topic).topic_id, place.partition, offset)
            for place, offset in chosen.items()
        )
        if not entries:
            return
        refused: list[ErrorInfo] = []
        for start in range(0, len(entries), PARTITIONS_PER_REQUEST_MAX):
            some = entries[start : start + PARTITIONS_PER_REQUEST_MAX]
            request = partial(CommitOffsets, group_id=group_id, offsets=some)
            reply = self._call(OffsetsCommitted, request, deadline)
            refused += [error for error in reply.errors if error.code]
        if refused:
            raise error_from(refused[0].code, refused[0].message)

    def delete_group(self, group_id: str, *, timeout_ms: int | None = None) -> None:
        """Forget a group that has no members, and its offsets.

        Raises UnknownGroupError with similar names, unless it was missing at a retry only;
        GroupNotEmptyError while it has members.
        """
        _check_group_id(group_id)
        request = partial(DeleteGroup, group_id=group_id)
        deadline = self._deadline(timeout_ms)
        self._remove(GroupDeleted, request, deadline, UnknownGroupError, (GroupNotEmptyError,))

    def _offsets(
        self, group_id: str, state: ClusterState, deadline: float
    ) -> dict[TopicPartition, CommittedOffset]:
        try:
            fetched = self._fetch_offsets(group_id, None, deadline)
        except LimitExceededError:  # more than fit into one reply
            keys = [
                (topic_id, number)
                for topic_id, topic in state.topics.items()
                for number in range(len(topic.partitions))
            ]
            fetched = []
            parts = [
                keys[start : start + PARTITIONS_PER_REQUEST_MAX]
                for start in range(0, len(keys), PARTITIONS_PER_REQUEST_MAX)
            ]
            while parts:
                part = parts.pop()
                try:
                    fetched += self._fetch_offsets(group_id, partition_set(part), deadline)
                except LimitExceededError:  # long metadata
                    if len(part) == 1:
                        raise
                    parts += (part[: len(part) // 2], part[len(part) // 2 :])
        return {
            TopicPartition(state.topics[found.topic_id].name, found.partition): found
            for found in fetched
            if found.topic_id in state.topics
        }

    def _fetch_offsets(
        self, group_id: str, partitions: PartitionSet | None, deadline: float
    ) -> list[CommittedOffset]:
        request = partial(FetchOffsets, group_id=group_id, partitions=partitions)
        return list(self._call(OffsetsFetched, request, deadline).offsets)


def _leader(state: ClusterState, place: TopicPartition) -> int:
    topic = state.topic(place.topic)
    if topic is None or place.partition >= len(topic.partitions):
        return NO_LEADER
    return topic.partitions[place.partition].leader


def _check_group_id(group_id: object) -> None:
    """The coordinator knows what an id may be; only what could not be sent to it is refused here."""
    if not isinstance(group_id, str) or not group_id.isprintable():
        raise InvalidGroupError(f"a group's id is text, not {group_id!r:.100}")


def _offset(
    place: TopicPartition,
    stored: CommittedOffset | None,
    end: OffsetAndTimestamp | None,
    member: MemberDescription | None,
) -> GroupOffset:
    return GroupOffset(
        partition=place,
        offset=None if stored is None else stored.offset,
        log_end_offset=None if end is None else end.offset,
        lag=None if stored is None or end is None else max(0, end.offset - stored.offset),
        metadata="" if stored is None else stored.metadata,
        committed_ms=None if stored is None else stored.committed_ms,
        member=member,
    )
