"""What is durable of groups: the rows of a group and of its members, and the changes that make them.

Rows are tagged with the kind of group, so that another kind can stand beside "consumer". Which
partitions a member shall have (its target) is not stored: it follows from the rows.
"""

from typing import TypeAlias

from msgspec import Struct

from tailrace.protocol.group_messages import CommittedOffset

Partition: TypeAlias = tuple[bytes, int]
"""A topic id, and the partition's number."""


class ConsumerGroup(Struct, frozen=True, array_like=True, tag="consumer"):
    """A group. `epoch` goes up with each new target; `emptied_ms` is when the last member went.

    `emptied_ms`: milliseconds since 1970; 0 while there are members, and when there never were any.
    """

    group_id: str
    epoch: int = 0
    emptied_ms: int = 0


class ConsumerMember(Struct, frozen=True, array_like=True, tag="consumer"):
    """A member. `epoch` is the group epoch of the newest assignment that was made for it.

    `assigned` and `revoking` say since which group epoch the member has had the partition. What is in
    `revoking` the member has not yet said to have given up. The dictionaries are never changed.
    """

    member_id: str
    instance_id: str
    client_id: str
    host: str
    topics: tuple[str, ...]
    assignor: str
    session_timeout_ms: int
    epoch: int = 0
    assigned: dict[Partition, int] = {}
    revoking: dict[Partition, int] = {}


GroupRow: TypeAlias = ConsumerGroup
MemberRow: TypeAlias = ConsumerMember


class GroupChanged(Struct, frozen=True):
    """A group is new, or has another epoch, or has lost its last member. Comes before its members."""

    group: GroupRow


class GroupRemoved(Struct, frozen=True):
    """A group is gone with everything that belongs to it."""

    group_id: str


class MemberChanged(Struct, frozen=True):
    """A member is new, or has another subscription or assignment."""

    group_id: str
    member: MemberRow


class MemberRemoved(Struct, frozen=True):
    """A member is gone; what it held is free."""

    group_id: str
    member_id: str


class OffsetsChanged(Struct, frozen=True):
    """Offsets were committed."""

    group_id: str
    offsets: tuple[CommittedOffset, ...]


class OffsetsDropped(Struct, frozen=True):
    """Offsets are gone: their topic was deleted, or they are too old."""

    group_id: str
    partitions: tuple[Partition, ...]


GroupChange: TypeAlias = (
    GroupChanged | GroupRemoved | MemberChanged | MemberRemoved | OffsetsChanged | OffsetsDropped
)
