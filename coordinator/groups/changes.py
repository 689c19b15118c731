"""What happens to groups and their offsets, as it is stored: the state follows from these in their order."""

from typing import Final, TypeAlias

from msgspec import Struct

from tailrace.protocol.group_messages import CommittedOffset

Grant: TypeAlias = tuple[bytes, int, int]
"""Topic id, partition, and the group epoch in which the member got it."""
NEVER: Final = -1


class ConsumerGroup(Struct, frozen=True, array_like=True, tag="consumer"):
    """A group whose members the coordinator assigns to (KIP-848).

    `empty_since_ms` (since 1970) is when the last member went, NEVER while there are some. A tag of its
    own leaves room for groups whose leading member assigns, over the same offsets.
    """

    epoch: int = 0
    empty_since_ms: int = NEVER


GroupRow: TypeAlias = ConsumerGroup


class MemberRow(Struct, frozen=True, array_like=True):
    """One member. `epoch` is that of the assignment it was told last.

    `assigned` is what it was told to have, `revoking` what it had before and may still hold.
    """

    member_id: str
    instance_id: str
    client_id: str
    host: str
    topics: tuple[str, ...]
    assignor: str
    session_timeout_ms: int
    epoch: int = 0
    assigned: tuple[Grant, ...] = ()
    revoking: tuple[Grant, ...] = ()


class GroupChanged(Struct, frozen=True, array_like=True, tag=1):
    """A group was made, or has another epoch, or became empty."""

    group_id: str
    row: GroupRow


class GroupRemoved(Struct, frozen=True, array_like=True, tag=2):
    """A group is gone, with its members and offsets."""

    group_id: str


class MemberChanged(Struct, frozen=True, array_like=True, tag=3):
    """A member joined, or something of it is different now."""

    group_id: str
    member: MemberRow


class MemberRemoved(Struct, frozen=True, array_like=True, tag=4):
    """A member left, or was given up; what it held is free."""

    group_id: str
    member_id: str


class OffsetStored(Struct, frozen=True, array_like=True, tag=5):
    """An offset was committed."""

    group_id: str
    offset: CommittedOffset


class OffsetDropped(Struct, frozen=True, array_like=True, tag=6):
    """An offset has expired, or its topic is gone."""

    group_id: str
    topic_id: bytes
    partition: int


GroupChange: TypeAlias = (
    GroupChanged | GroupRemoved | MemberChanged | MemberRemoved | OffsetStored | OffsetDropped
)
