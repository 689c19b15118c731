"""A node of the small model: what it has on disk, and what it believes."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from tailrace.node.leaders import Leaders, Led
from tailrace.node.replication.copying import Copier, Source
from tailrace.node.replication.leading import LeadReplica
from tailrace.node.storage import epochs
from tailrace.node.storage.epochs import Epochs
from tailrace.protocol.cluster import PartitionInfo
from tailrace.protocol.replica_messages import AlterIsr

TOPIC = bytes(16)
KEY = (TOPIC, 0)


@dataclass
class Log:
    """As `PartitionLog`, with the records that are on its disk: (leader epoch, number)."""

    records: list[tuple[int, int]] = field(default_factory=list)
    epochs: Epochs = ()
    high_watermark: int = 0
    log_start_offset = 0
    key = KEY
    name = "t-0"

    @property
    def log_end_offset(self) -> int:
        return len(self.records)

    @property
    def leader_epoch(self) -> int:
        return epochs.latest(self.epochs)

    @property
    def epoch_start(self) -> int:
        return self.epochs[-1][1] if self.epochs else 0

    def begin(self, epoch: int) -> None:
        if epoch > self.leader_epoch:
            self.epochs = (*self.epochs, (epoch, self.log_end_offset))

    def copy(self, records: list[tuple[int, int]]) -> None:
        for epoch, number in records:
            after = epochs.following(self.epochs, epoch, self.log_end_offset, empty=not self.records)
            assert after is not None
            self.epochs = after
            self.records.append((epoch, number))

    def truncate(self, end: int) -> None:
        del self.records[end:]
        self.epochs = epochs.before(self.epochs, end)
        self.high_watermark = min(self.high_watermark, end)


def end_of_epoch(log: Log, epoch: int) -> tuple[int, int]:
    return epochs.end_of(log.epochs, epoch, log.log_end_offset)


def last_epoch(log: Log) -> int:
    return epochs.latest(epochs.before(log.epochs, log.log_end_offset))


@dataclass
class Node:
    """What it has on disk, and what it believes."""

    node_id: int
    log: Log = field(default_factory=Log)
    up: bool = True
    node_epoch: int = 0
    info: PartitionInfo | None = None
    leaders: Leaders = field(default_factory=Leaders)
    lead: LeadReplica | None = None
    copier: Copier | None = None
    flight: Any = None
    """The fetch that it waits for an answer to."""
    asked: AlterIsr | None = None
    """The proposal on its way to the coordinator."""

    def follow(self, info: PartitionInfo) -> None:
        """The cluster state as the node hears of it, with the writer's work done at once."""
        self.info = info
        if info.leader == self.node_id:
            self.copier = self.flight = None
            if self.lead is None or self.lead.leader_epoch != info.leader_epoch:
                if info.leader_epoch < self.log.leader_epoch:
                    return
                self.log.begin(info.leader_epoch)
                self.lead = LeadReplica(self.node_id, info, 1, start=self.log.epoch_start, now=0.0)
                self.asked = None
                self.leaders.lead({KEY: Led(self.log, info.leader_epoch)})
            else:
                self.lead.follow(info, 1)
            return
        self.lead = self.asked = None
        self.leaders.resign([KEY])
        if info.leader >= 0:
            if self.copier is None:
                self.copier = Copier(end_of_epoch=end_of_epoch, last_epoch=last_epoch, random=_STILL)
            self.copier.copy({KEY: (self.log, Source(info.leader, info.leader_epoch))})
        else:
            self.copier = self.flight = None

    def settle(self) -> None:
        if self.lead is not None:
            self.log.high_watermark = self.lead.high_watermark(
                self.log.high_watermark, self.log.log_end_offset
            )

    def crash(self) -> None:
        self.up = False
        self.info = self.lead = self.copier = self.flight = self.asked = None
        self.leaders = Leaders()
        self.log.high_watermark = 0  # its checkpoint is lazy


class _Still(Random):
    """For pauses, which mean nothing here. The same one everywhere."""

    def __reduce__(self) -> Any:
        return _still, ()


def _still() -> "_Still":
    return _STILL


_STILL = _Still(1)
