"""The durable state of all groups, and how a change makes the next one of it.

Everything here follows from the changes, in their order: a state that is loaded from the store equals
the one that wrote it.
"""

from collections.abc import Iterable

from tailrace.protocol.group_messages import CommittedOffset

from .changes import (
    GroupChange,
    GroupChanged,
    GroupRemoved,
    GroupRow,
    MemberChanged,
    MemberRemoved,
    MemberRow,
    OffsetsChanged,
    OffsetsDropped,
    Partition,
)


class Group:
    """One group: its members, who holds what, and its offsets. Changed by `GroupsState.apply` alone."""

    def __init__(self, row: GroupRow) -> None:
        self.row = row
        self.members: dict[str, MemberRow] = {}
        self.instances: dict[str, str] = {}  # instance id -> member id
        self.owners: dict[Partition, str] = {}  # assigned or revoking -> member id
        self.offsets: dict[Partition, CommittedOffset] = {}

    def put_member(self, member: MemberRow) -> None:
        """A member is new or different."""
        self._let_go(self.members.get(member.member_id))
        self.members[member.member_id] = member
        if member.instance_id:
            self.instances[member.instance_id] = member.member_id
        for partitions in (member.assigned, member.revoking):
            for partition in partitions:
                assert partition not in self.owners  # no two members hold a partition
                self.owners[partition] = member.member_id

    def remove_member(self, member_id: str) -> None:
        """A member is gone."""
        member = self.members.pop(member_id)
        self._let_go(member)
        if self.instances.get(member.instance_id) == member_id:
            del self.instances[member.instance_id]

    def _let_go(self, member: MemberRow | None) -> None:
        if member is not None:
            for partitions in (member.assigned, member.revoking):
                for partition in partitions:
                    del self.owners[partition]


class GroupsState:
    """All groups by their ids."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}

    def apply_all(self, changes: Iterable[GroupChange]) -> None:
        """Make changes in their order."""
        for change in changes:
            self.apply(change)

    def apply(self, change: GroupChange) -> None:
        """Make one change."""
        match change:
            case OffsetsChanged(group_id, committed):
                offsets = self.groups[group_id].offsets
                for entry in committed:
                    offsets[(entry.topic_id, entry.partition)] = entry
            case MemberChanged(group_id, member):
                self.groups[group_id].put_member(member)
            case MemberRemoved(group_id, member_id):
                self.groups[group_id].remove_member(member_id)
            case GroupChanged(row):
                if (group := self.groups.get(row.group_id)) is None:
                    self.groups[row.group_id] = Group(row)
                else:
                    group.row = row
            case OffsetsDropped(group_id, partitions):
                for partition in partitions:
                    del self.groups[group_id].offsets[partition]
            case GroupRemoved(group_id):
                del self.groups[group_id]
