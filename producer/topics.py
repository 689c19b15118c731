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

    __slots__ = (
        "available", "count", "foreseen", "gone", "name", "open", "rotation", "shelf", "sticky", "topic_id",
    )  # fmt: skip

    def __init__(self, info: TopicInfo, start: int) -> None:
        self.name = info.name
        self.topic_id = info.topic_id
        self.open: list[Batch] = []
        self.shelf: tuple[Batch, ...] = ()
        """Open ones, too, which were opened before those: another took their place when a signal handler sent
        while records were added to them."""
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

    def batches(self) -> list[Batch]:
        """All that are open, those of each partition in their order."""
        return [each for each in (*self.shelf, *self.open) if each is not NOWHERE]

    def before(self, batch: Batch) -> list[Batch]:
        """Those of its partition that are to be sealed before it, in their order."""
        older = [each for each in self.shelf if each.partition == batch.partition]
        return older[: older.index(batch)] if batch in older else older

    def shelf_without(self, batch: Batch) -> tuple[Batch, ...]:
        """Those on the shelf but this one."""
        return tuple(each for each in self.shelf if each is not batch)

    def sticky_after(self, partition: int) -> int:
        """The sticky partition once a batch of this one is sealed: then it is another's turn."""
        return self.rotation.turn(self.count, self.available) if partition == self.sticky else self.sticky

    def set_aside(self, batch: Batch) -> None:
        """Nothing more goes into it, but it cannot be sealed yet."""
        if self.open[batch.partition] is batch:
            self.shelf += (batch,)
            self.open[batch.partition] = NOWHERE

    def update(self, info: TopicInfo) -> None:
        """Take in new partitions and changed leaders."""
        self.open += [NOWHERE] * (len(info.partitions) - self.count)
        self.count = len(info.partitions)
        self.available = [at for at, part in enumerate(info.partitions) if part.leader != NO_LEADER]
        if self.available and self.sticky not in self.available:
            # What is sent from now on need not wait for a leader.
            self.sticky = self.rotation.turn(self.count, self.available)
