"""Consumer groups and their committed offsets on the wire: all of it between clients and the coordinator.

The group protocol is in the spirit of KIP-848: the coordinator assigns, a member reconciles. A member
has one heartbeat on its way at any time; the coordinator keeps it until there is something to tell or
`max_wait_ms` is over, so that news travel at once and nobody polls.

- The *member epoch* is the group epoch that the member's assignment belongs to. An answer with a lower
  one than the member has heard is old, and ignored.
- `owned` is everything that the member was assigned and has not given up. A partition that is no longer
  assigned is revoked first, and free for others only when a heartbeat *in the epoch that took it away*
  no longer owns it: so no two members hold a partition, whatever is lost or late.
"""

from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from .cluster import Int32, Int64, Name, PartitionIndex, TopicId
from .limits import (
    GROUP_WAIT_MS_MAX,
    GROUPS_MAX,
    MEMBERS_PER_GROUP_MAX,
    OFFSET_METADATA_CHARACTERS_MAX,
    PARTITIONS_PER_REQUEST_MAX,
    PARTITIONS_PER_TOPIC_MAX,
    TOPICS_MAX,
)
from .message import ErrorInfo, Message

NO_MEMBER: Final = ""
"""In place of a member id: a consumer that assigns partitions itself, or an administrator."""
NO_MEMBER_EPOCH: Final = -1

MemberId: TypeAlias = Annotated[str, Meta(max_length=64)]
TopicNames: TypeAlias = Annotated[tuple[Name, ...], Meta(max_length=TOPICS_MAX)]


class TopicPartitions(Struct, frozen=True, array_like=True):
    """Some partitions of one topic, in order."""

    topic_id: TopicId
    partitions: Annotated[tuple[PartitionIndex, ...], Meta(max_length=PARTITIONS_PER_TOPIC_MAX)]


PartitionSet: TypeAlias = Annotated[tuple[TopicPartitions, ...], Meta(max_length=TOPICS_MAX)]


class JoinGroup(Message, frozen=True, kw_only=True, tag=30):
    """Become a member; answered at once by `GroupAssigned`.

    `member_id` is random and chosen by the member, so that a retry joins once. `instance_id` makes a
    static member: whoever comes with it next takes over the assignment of the one that is gone.
    """

    group_id: Name
    member_id: MemberId
    instance_id: Name = ""
    client_id: Name = ""
    host: Name = ""
    topics: TopicNames
    assignor: Annotated[str, Meta(max_length=32)] = "uniform"
    session_timeout_ms: Int32


class GroupAssigned(Message, frozen=True, kw_only=True, tag=130):
    """What the member has, or has to give up everything else than: the whole assignment, not a difference."""

    member_epoch: Int64
    assigned: PartitionSet


class GroupHeartbeat(Message, frozen=True, kw_only=True, tag=31):
    """The member lives; answered by `GroupAssigned` when that is news, at the latest after `max_wait_ms`.

    `topics` is the subscription if it has changed, else None. A newer heartbeat of a member answers the
    one before it at once.
    """

    group_id: Name
    member_id: MemberId
    member_epoch: Int64
    owned: PartitionSet
    topics: TopicNames | None = None
    max_wait_ms: Annotated[int, Meta(ge=0, le=GROUP_WAIT_MS_MAX)] = 0


class LeaveGroup(Message, frozen=True, kw_only=True, tag=32):
    """The member has given up everything and goes. Harmless when it is no member any more.

    A static member that comes back soon does not leave: it says nothing, and its session runs out if
    nobody comes.
    """

    group_id: Name
    member_id: MemberId


class GroupLeft(Message, frozen=True, tag=132):
    """Done."""


class OffsetCommit(Struct, frozen=True, array_like=True):
    """The next offset to read of one partition. `leader_epoch` is that of the record before, or -1."""

    topic_id: TopicId
    partition: PartitionIndex
    offset: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    leader_epoch: Int32 = -1
    metadata: Annotated[str, Meta(max_length=OFFSET_METADATA_CHARACTERS_MAX)] = ""


class CommitOffsets(Message, frozen=True, kw_only=True, tag=33):
    """Store offsets; durable before the answer, `OffsetsCommitted`.

    A member may commit what it holds, in any epoch from the one it got the partition in to its current one
    (KIP-1251). With NO_MEMBER and NO_MEMBER_EPOCH: only while the group has no members.
    """

    group_id: Name
    member_id: MemberId = NO_MEMBER
    member_epoch: Int64 = NO_MEMBER_EPOCH
    offsets: Annotated[tuple[OffsetCommit, ...], Meta(max_length=PARTITIONS_PER_REQUEST_MAX)]


class OffsetsCommitted(Message, frozen=True, tag=133):
    """Empty when all are stored; else what became of each, in the order of the request."""

    errors: Annotated[tuple[ErrorInfo, ...], Meta(max_length=PARTITIONS_PER_REQUEST_MAX)] = ()


class FetchOffsets(Message, frozen=True, kw_only=True, tag=34):
    """The committed offsets of these partitions, or of all (None) that the group has some for."""

    group_id: Name
    partitions: PartitionSet | None = None


class CommittedOffset(Struct, frozen=True, array_like=True):
    """A stored offset. `committed_ms`: milliseconds since 1970.

    `partition_count` is how many partitions the topic had then: those with higher numbers are newer, and
    nobody of the group has read them.
    """

    topic_id: TopicId
    partition: PartitionIndex
    offset: Int64
    leader_epoch: Int32
    metadata: str
    committed_ms: Int64
    partition_count: Int32


class OffsetsFetched(Message, frozen=True, tag=134):
    """Only partitions that have an offset."""

    offsets: Annotated[tuple[CommittedOffset, ...], Meta(max_length=PARTITIONS_PER_REQUEST_MAX)] = ()


class GroupInfo(Struct, frozen=True, array_like=True):
    """One group. `kind` is "consumer"; `state` is "empty", "reconciling" or "stable"."""

    group_id: Name
    kind: str
    state: str
    members: Int32
    group_epoch: Int64


class ListGroups(Message, frozen=True, tag=35):
    """All groups."""


class GroupsListed(Message, frozen=True, tag=135):
    """In the order of their ids."""

    groups: Annotated[tuple[GroupInfo, ...], Meta(max_length=GROUPS_MAX)] = ()


class MemberInfo(Struct, frozen=True, array_like=True):
    """One member. `revoking` is what it has yet to give up."""

    member_id: MemberId
    instance_id: Name
    client_id: Name
    host: Name
    member_epoch: Int64
    topics: TopicNames
    assigned: PartitionSet
    revoking: PartitionSet


class DescribeGroup(Message, frozen=True, kw_only=True, tag=36):
    """One group and its members."""

    group_id: Name


class GroupDescribed(Message, frozen=True, kw_only=True, tag=136):
    """The group as it is now."""

    group: GroupInfo
    assignor: str
    members: Annotated[tuple[MemberInfo, ...], Meta(max_length=MEMBERS_PER_GROUP_MAX)]


class DeleteGroup(Message, frozen=True, kw_only=True, tag=37):
    """Forget a group without members, and its offsets."""

    group_id: Name


class GroupDeleted(Message, frozen=True, tag=137):
    """Done."""


GroupRequest: TypeAlias = (
    JoinGroup
    | GroupHeartbeat
    | LeaveGroup
    | CommitOffsets
    | FetchOffsets
    | ListGroups
    | DescribeGroup
    | DeleteGroup
)
GroupReply: TypeAlias = (
    GroupAssigned
    | GroupLeft
    | OffsetsCommitted
    | OffsetsFetched
    | GroupsListed
    | GroupDescribed
    | GroupDeleted
)
