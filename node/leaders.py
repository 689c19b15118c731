"""The partitions that this node leads, as the network thread knows them. Pure."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tailrace.protocol.errors import (
    FencedLeaderEpochError,
    NotLeaderError,
    TailraceError,
    UnknownLeaderEpochError,
    UnknownTopicError,
)
from tailrace.protocol.limits import DELETED_TOPICS_REMEMBERED_MAX

from .storage.partition_log import PartitionKey, PartitionLog


class Led(NamedTuple):
    """A partition's log, and the epoch in which this node leads it."""

    log: PartitionLog
    leader_epoch: int


class Leaders:
    """Every request names a partition and the leader epoch it believes in (RELIABILITY R9)."""

    def __init__(self) -> None:
        self._led: dict[PartitionKey, Led] = {}
        self._refused: dict[PartitionKey, TailraceError] = {}
        self._deleted: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._led)

    def lead(self, led: Mapping[PartitionKey, Led]) -> None:
        """These logs are open, and led from now on."""
        self._led.update(led)
        for key in led:
            self._refused.pop(key, None)

    def refuse(self, refused: Mapping[PartitionKey, TailraceError]) -> None:
        """These are to be led, but cannot be."""
        self.resign(refused)
        self._refused.update(refused)

    def resign(self, keys: Iterable[PartitionKey]) -> None:
        """These are not led any more."""
        for key in keys:
            self._led.pop(key, None)
            self._refused.pop(key, None)

    def deleted(self, topic_ids: Iterable[bytes]) -> None:
        """These topics are gone for good; remembered, so that clients hear so."""
        for topic_id in topic_ids:
            self._deleted[topic_id] = None
        while len(self._deleted) > DELETED_TOPICS_REMEMBERED_MAX:
            self._deleted.popitem(last=False)

    def find(self, topic_id: bytes, partition: int, leader_epoch: int) -> PartitionLog:
        """The log of a partition that is led here in exactly this epoch.

        Raises NotLeaderError, also for what this node has not heard of (yet), UnknownTopicError for
        a deleted topic, FencedLeaderEpochError, UnknownLeaderEpochError, and StorageFullError or
        LimitExceededError for a log that could not be made.
        """
        led = self._led.get((topic_id, partition))
        if led is None:
            raise self._missing(topic_id, partition)
        if leader_epoch != led.leader_epoch:
            error = FencedLeaderEpochError if leader_epoch < led.leader_epoch else UnknownLeaderEpochError
            raise error(
                f"{led.log.name} is led in epoch {led.leader_epoch}, the request says {leader_epoch}; "
                "take the cluster state anew"
            )
        return led.log

    def _missing(self, topic_id: bytes, partition: int) -> TailraceError:
        refused = self._refused.get((topic_id, partition))
        if refused is not None:
            return type(refused)(str(refused))
        if topic_id in self._deleted:
            return UnknownTopicError(f"topic {topic_id.hex()} was deleted")
        return NotLeaderError(f"this node does not lead {topic_id.hex()}-{partition}")
