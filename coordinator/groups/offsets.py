"""Committed offsets: who may store one, which are still wanted."""

from collections.abc import Iterator

from tailrace.protocol.cluster import ClusterState
from tailrace.protocol.errors import (
    FencedMemberError,
    GroupNotEmptyError,
    LimitExceededError,
    TailraceError,
    UnknownPartitionError,
    UnknownTopicError,
)
from tailrace.protocol.group_messages import (
    NO_MEMBER,
    CommitOffsets,
    CommittedOffset,
    FetchOffsets,
    OffsetCommit,
    OffsetsCommitted,
    OffsetsFetched,
)
from tailrace.protocol.limits import (
    HEADER_BYTES_MAX,
    KIB,
    OFFSETS_PER_GROUP_MAX,
    PARTITIONS_PER_REQUEST_MAX,
)
from tailrace.protocol.message import OK
from tailrace.protocol.partition_sets import keys_of
from tailrace.protocol.text import plural
from tailrace.protocol.wire import error_info

from .changes import NEVER, GroupChange, MemberRow, OffsetDropped, OffsetStored
from .checks import store_full
from .state import Group, Key, Member, offset_bytes

_OFFSET_BYTES = 64
"""An offset in a reply, without its metadata."""
_REPLY_BYTES_MAX = HEADER_BYTES_MAX - 64 * KIB


def commit(
    group: Group, request: CommitOffsets, cluster: ClusterState, wall_ms: int, room_bytes: int
) -> tuple[list[GroupChange], OffsetsCommitted]:
    """What to store, and the answer. An offset that may not be stored keeps no other from it.

    New offsets may take `room_bytes`. Raises GroupNotEmptyError.
    """
    member = _committer(group, request)
    changes: list[GroupChange] = []
    errors = []
    refused = False
    topics = cluster.topics
    for offset in request.offsets:
        key = (offset.topic_id, offset.partition)
        topic = topics.get(offset.topic_id)
        count = 0 if topic is None else len(topic.partitions)
        held = member is None or _holds(member, key, request.member_epoch)
        if offset.partition >= count or not held:
            errors.append(error_info(_refusal(group, offset, cluster, request)))
            refused = True
        else:
            stored = CommittedOffset(
                offset.topic_id,
                offset.partition,
                offset.offset,
                offset.leader_epoch,
                offset.metadata,
                wall_ms,
                count,
            )
            growth = _growth(group, request.group_id, key, stored)
            full = _full(group, request.group_id, key, len(changes), room_bytes - growth)
            if full is None or growth <= 0:
                errors.append(OK)
                room_bytes -= growth
                changes.append(OffsetStored(request.group_id, stored))
            else:
                errors.append(error_info(full))
                refused = True
    return changes, OffsetsCommitted(request.request_id, errors=tuple(errors) if refused else ())


def _growth(group: Group, group_id: str, key: Key, stored: CommittedOffset) -> int:
    before = group.offsets.get(key)
    return offset_bytes(group_id, stored) - (0 if before is None else offset_bytes(group_id, before))


def _full(group: Group, group_id: str, key: Key, more: int, room_bytes: int) -> LimitExceededError | None:
    """Why the group, or the store, cannot take an offset that would leave so much room."""
    if room_bytes < 0:
        return store_full()
    if key not in group.offsets and len(group.offsets) + more >= OFFSETS_PER_GROUP_MAX:
        return LimitExceededError(
            f"group {group_id!r} has {OFFSETS_PER_GROUP_MAX} offsets, the most that is possible"
        )
    return None


def fetch(group: Group | None, request: FetchOffsets) -> OffsetsFetched:
    """The offsets that are asked for. Raises LimitExceededError for more than fit into a reply."""
    stored = {} if group is None else group.offsets
    if request.partitions is None:
        found = list(stored.values())
    else:
        found = [stored[key] for key in keys_of(request.partitions) if key in stored]
    size = sum(_OFFSET_BYTES + 4 * len(offset.metadata) for offset in found)
    if len(found) > PARTITIONS_PER_REQUEST_MAX or size > _REPLY_BYTES_MAX:
        raise LimitExceededError(f"{len(found)} offsets do not fit into one reply: ask for fewer partitions")
    return OffsetsFetched(request.request_id, offsets=tuple(found))


def expired(group_id: str, group: Group, before_ms: int) -> Iterator[OffsetDropped]:
    """Offsets that nobody used since `before_ms` (since 1970): of a group without members, and as old."""
    if group.members or group.row.empty_since_ms == NEVER or group.row.empty_since_ms > before_ms:
        return
    for topic_id, partition in _keys_before(group, before_ms):
        yield OffsetDropped(group_id, topic_id, partition)


def _keys_before(group: Group, before_ms: int) -> list[Key]:
    return [key for key, offset in group.offsets.items() if offset.committed_ms <= before_ms]


def _committer(group: Group, request: CommitOffsets) -> Member | None:
    if request.member_id == NO_MEMBER:
        if group.members:
            raise GroupNotEmptyError(
                f"group {request.group_id!r} has {plural(len(group.members), 'member')}, and only members "
                "may commit: stop them first"
            )
        return None
    member = group.members.get(request.member_id)
    if member is None:
        return Member(
            MemberRow(request.member_id, "", "", "", (), "", 0)
        )  # no member any more: it has nothing
    return member


def _holds(member: Member, key: Key, epoch: int) -> bool:
    granted = member.granted_in(key)
    return granted is not None and granted <= epoch <= member.row.epoch


def _refusal(
    group: Group, offset: OffsetCommit, cluster: ClusterState, request: CommitOffsets
) -> TailraceError:
    topic = cluster.topics.get(offset.topic_id)
    if topic is None:
        return UnknownTopicError(f"there is no topic of id {offset.topic_id.hex()} any more")
    if offset.partition >= len(topic.partitions):
        return UnknownPartitionError(f"topic {topic.name!r} has no partition {offset.partition}")
    place = f"{topic.name}-{offset.partition}"
    owner = group.members.get(group.owners.get((offset.topic_id, offset.partition), NO_MEMBER))
    if owner is None:
        return FencedMemberError(f"{place} is no member's of group {request.group_id!r} now: join anew")
    if owner.row.member_id == request.member_id:
        return FencedMemberError(
            f"{place} was given to member {request.member_id} anew: epoch {request.member_epoch} is not of it"
        )
    row = owner.row
    since = owner.granted_in((offset.topic_id, offset.partition))
    return FencedMemberError(
        f"{place} is held by member {row.member_id} (client {row.client_id}, host {row.host}) "
        f"since epoch {since}"
    )
