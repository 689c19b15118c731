"""What the writer does besides appending: which slice of retention or deletion is next. Pure.

A slice is one short transaction. The writer does at most one after each group it commits, so that
no produce waits for more than one; while nothing waits, it does one after the other.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from math import inf
from typing import NamedTuple

from tailrace.protocol.cluster import TopicConfig

from .storage.partition_log import PartitionKey


class Chore(NamedTuple):
    """A slice of work on one partition: apply its retention, or delete it if there is no config."""

    key: PartitionKey
    config: TopicConfig | None


class Chores:
    """Deletions come first, since they free the most; then retention, a partition at a time."""

    def __init__(self, *, retention_check_s: float) -> None:
        self._interval = retention_check_s
        self._configs: dict[bytes, TopicConfig] = {}
        self._deletions: dict[PartitionKey, None] = {}
        self._retentions: deque[PartitionKey] = deque()
        self._next_check = inf
        self._resume_at = -inf

    def configure(self, configs: Mapping[bytes, TopicConfig], now: float) -> None:
        """These topics have these configs now."""
        for topic_id, config in configs.items():
            if config.retention_ms >= 0 or config.retention_bytes >= 0:
                self._configs[topic_id] = config
            else:
                self._configs.pop(topic_id, None)
        self._next_check = min(self._next_check, now + self._interval) if self._configs else inf

    def delete(self, keys: Iterable[PartitionKey]) -> None:
        """These partitions were removed; delete what they hold."""
        for key in keys:
            self._configs.pop(key[0], None)
            self._deletions[key] = None

    def deletes(self, key: PartitionKey) -> bool:
        """Is the partition's log to be deleted, and not gone yet?"""
        return key in self._deletions

    def check(self, keys: Iterable[PartitionKey], now: float) -> None:
        """If it is time to, look at each of these partitions that has a bound."""
        if now < self._next_check:
            return
        self._next_check = now + self._interval
        waiting = set(self._retentions)
        self._retentions.extend(key for key in keys if key[0] in self._configs and key not in waiting)

    def next(self, now: float) -> Chore | None:
        """The slice to do now."""
        if now < self._resume_at:
            return None
        if self._deletions:
            return Chore(next(iter(self._deletions)), None)
        while self._retentions:
            key = self._retentions[0]
            config = self._configs.get(key[0])
            if config is not None:
                return Chore(key, config)
            self._retentions.popleft()
        return None

    def done(self, chore: Chore, *, more: bool) -> None:
        """The slice that `next` gave is done; with more to do, its partition comes again after the others."""
        if chore.config is None:
            del self._deletions[chore.key]
            if more:
                self._deletions[chore.key] = None
        else:
            self._retentions.popleft()
            if more:
                self._retentions.append(chore.key)

    def postpone(self, now: float) -> None:
        """There is no room even to delete: try again after the time of one check."""
        self._resume_at = now + self._interval

    def next_time(self) -> float:
        """When there is something to do, maybe in the past; infinity: never."""
        if self._deletions or self._retentions:
            return self._resume_at
        return self._next_check
