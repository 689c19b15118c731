"""What the coordinator stores beside the cluster state, and nobody else sees.

Private changes are stored in the same transaction as the published ones they belong to.
"""

from msgspec import Struct


class ControllerEpochRaised(Struct, frozen=True, array_like=True, tag=1):
    """A coordinator has taken over; stored before it serves anybody."""

    controller_epoch: int


class ProducerIdIssued(Struct, frozen=True, array_like=True, tag=2):
    """A producer got this id, or ids up to it are left out; the next one gets a higher one."""

    producer_id: int


class ProducerEpochRaised(Struct, frozen=True, array_like=True, tag=3):
    """The producer's older epochs are fenced. An issued id that was never raised is in epoch 0."""

    producer_id: int
    producer_epoch: int


class TopicBuried(Struct, frozen=True, array_like=True, tag=4):
    """A deleted topic is remembered, for nodes that were away. `version` orders the tombstones."""

    topic_id: bytes
    version: int


class TombstoneDropped(Struct, frozen=True, array_like=True, tag=5):
    """The oldest tombstone gave way to a newer one."""

    topic_id: bytes
    version: int


class StoreOpened(Struct, frozen=True, array_like=True, tag=6):
    """Random marks of the last openings of the store, one for each controller epoch, the newest at the end.

    By them nodes tell an older copy of it.
    """

    openings: tuple[int, ...]


PrivateChange = (
    ControllerEpochRaised
    | ProducerIdIssued
    | ProducerEpochRaised
    | TopicBuried
    | TombstoneDropped
    | StoreOpened
)
