"""The groups as they are stored: `GroupsState.apply` makes every change, and nothing else does."""

from collections.abc import Iterator
from typing import Final

from tailrace.protocol.group_messages import CommittedOffset
from tailrace.protocol.partition_sets import Key as Key

from .changes import (
    ConsumerGroup,
    Grant,
    GroupChange,
    GroupChanged,
    GroupRemoved,
    GroupRow,
    MemberChanged,
    MemberRemoved,
    MemberRow,
    OffsetDropped,
    OffsetStored,
)

_ROW_BYTES: Final = 96
"""Numbers, ids and what surrounds them, of a member or an offset."""
_GRANT_BYTES: Final = 32
_CHARACTER_BYTES_MAX: Final = 4


class Member:
    """A member with its partitions by key; the values are the epochs in which it got them."""

    __slots__ = ("assigned", "revoking", "row")

    def __init__(self, row: MemberRow) -> None:
        self.row = row
        self.assigned = _by_key(row.assigned)
        self.revoking = _by_key(row.revoking)

    def granted_in(self, key: Key) -> int | None:
        """The epoch in which it got a partition that it may hold; None if it may not hold it."""
        epoch = self.assigned.get(key)
        return self.revoking.get(key) if epoch is None else epoch


class Group:
    """One group. `owners` tells who may hold a partition: nobody else may get it before that ends."""

    __slots__ = ("members", "offsets", "owners", "row")

    def __init__(self, row: GroupRow) -> None:
        self.row = row
        self.members: dict[str, Member] = {}
        self.offsets: dict[Key, CommittedOffset] = {}
        self.owners: dict[Key, str] = {}

    def instance(self, instance_id: str) -> Member | None:
        """The member that is this instance."""
        if not instance_id:
            return None
        return next((m for m in self.members.values() if m.row.instance_id == instance_id), None)

    def _put(self, row: MemberRow) -> None:
        old, member = self.members.get(row.member_id), Member(row)
        if old is not None:
            self._free(old)
        for key in (*member.assigned, *member.revoking):
            assert key not in self.owners, "a partition has one owner"
            self.owners[key] = row.member_id
        self.members[row.member_id] = member

    def _free(self, member: Member) -> None:
        for key in (*member.assigned, *member.revoking):
            del self.owners[key]

    def _remove(self, member_id: str) -> None:
        self._free(self.members.pop(member_id))


class GroupsState:
    """All groups by their ids. `stored_bytes`: about what their members and offsets take on disk."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self.stored_bytes = 0

    def apply(self, change: GroupChange) -> None:
        """Make one change."""
        groups = self.groups
        match change:
            case OffsetStored(group_id, offset):
                offsets, key = groups[group_id].offsets, (offset.topic_id, offset.partition)
                self.stored_bytes += offset_bytes(group_id, offset) - self._bytes_at(group_id, key)
                offsets[key] = offset
            case MemberChanged(group_id, row):
                old = groups[group_id].members.get(row.member_id)
                before = 0 if old is None else member_bytes(group_id, old.row)
                self.stored_bytes += member_bytes(group_id, row) - before
                groups[group_id]._put(row)
            case MemberRemoved(group_id, member_id):
                self.stored_bytes -= member_bytes(group_id, groups[group_id].members[member_id].row)
                groups[group_id]._remove(member_id)
            case GroupChanged(group_id, group_row):
                if group_id in groups:
                    groups[group_id].row = group_row
                else:
                    groups[group_id] = Group(group_row)
            case GroupRemoved(group_id):
                group = groups.pop(group_id)
                self.stored_bytes -= sum(member_bytes(group_id, m.row) for m in group.members.values())
                self.stored_bytes -= sum(offset_bytes(group_id, each) for each in group.offsets.values())
            case OffsetDropped(group_id, topic_id, partition):
                self.stored_bytes -= self._bytes_at(group_id, (topic_id, partition))
                del groups[group_id].offsets[topic_id, partition]

    def rows(self) -> Iterator[GroupChange]:
        """Changes that make this state of an empty one."""
        for group_id, group in self.groups.items():
            yield GroupChanged(group_id, group.row)
            for member in group.members.values():
                yield MemberChanged(group_id, member.row)
            for offset in group.offsets.values():
                yield OffsetStored(group_id, offset)

    def _bytes_at(self, group_id: str, key: Key) -> int:
        offset = self.groups[group_id].offsets.get(key)
        return 0 if offset is None else offset_bytes(group_id, offset)


def offset_bytes(group_id: str, offset: CommittedOffset) -> int:
    """At most what an offset takes, as key and value."""
    return _ROW_BYTES + len(group_id) + _CHARACTER_BYTES_MAX * len(offset.metadata)


def member_bytes(group_id: str, row: MemberRow) -> int:
    """At most what a member takes, as key and value."""
    texts = (group_id, row.member_id, row.member_id, row.instance_id, row.client_id, row.host, *row.topics)
    grants = _GRANT_BYTES * (len(row.assigned) + len(row.revoking))
    return _ROW_BYTES + _CHARACTER_BYTES_MAX * sum(map(len, texts)) + grants


def _by_key(grants: tuple[Grant, ...]) -> dict[Key, int]:
    return {(topic_id, partition): epoch for topic_id, partition, epoch in grants}


__all__ = ["ConsumerGroup", "Group", "GroupsState", "Key", "Member", "member_bytes", "offset_bytes"]
