"""The open batches of one topic."""

from collections.abc import Sequence
from typing import Final

from tailrace.protocol.cluster import NO_LEADER, TopicInfo

from .batch import Batch, Stamp
from .delivery import Outcome
from .lane import deleted
from .partitioner import Rotation
from .refusals import no_partition

NOWHERE: Final = Batch(Outcome("", 0), b"", 0, 0.0, 0.0)
"""Stands where no batch is open: there is no room in it for any record."""
NOWHERE.taken = NOWHERE.room = -1


class TopicBuffers:
    """The open batches of one topic, by partition. Guarded by the accumulator's lock."""

    __slots__ = ("available", "count", "foreseen", "gone", "name", "open", "rotation", "sticky", "topic_id")

    def __init__(self, info: TopicInfo, start: int) -> None:
        self.name = info.name
        self.topic_id = info.topic_id
        self.open: list[Batch] = []
        self.count = 0
        self.available: Sequence[int] = ()
        self.gone = False
        self.foreseen: dict[int, Stamp] = {}
        """By partition: the stamp that the next batch to be sealed will probably be sent under."""
        self.rotation = Rotation(start)
        self.sticky = self.rotation.turn(len(info.partitions), ())
        self.update(info)

    def check(self, partition: int | None) -> None:
        """Raise why it takes no records (None: in the sticky partition), if that is so."""
        if self.gone:
            raise deleted(self.name)
        if partition is not None and partition >= self.count:
            raise no_partition(self.name, partition, self.count)

    def update(self, info: TopicInfo) -> None:
        """Take in new partitions and changed leaders."""
        self.open += [NOWHERE] * (len(info.partitions) - self.count)
        self.count = len(info.partitions)
        self.available = [at for at, part in enumerate(info.partitions) if part.leader != NO_LEADER]
        if (
            self.available and self.sticky not in self.available
        ):  # what is sent now need not wait for a leader
            self.sticky = self.rotation.turn(self.count, self.available)
