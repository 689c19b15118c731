"""Which positions are stored, and when it is time to store more.

A position that is stored is one that the application is done with (`AssignedPartition.settled`).
"""

from collections.abc import Callable, Iterable
from math import inf

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.record import TopicPartition

from .assigned import AssignedPartition, Key
from .local_store import LocalStore, StoredOffset


class Commits:
    """The stored offsets of the partitions that are held. Belongs to the application's thread.

    `interval_s` is the shortest time between two writes by auto-commit, None without it.
    `partition_count` tells how many partitions a topic has.
    """

    def __init__(
        self, store: LocalStore | None, *, interval_s: float | None, partition_count: Callable[[str], int]
    ) -> None:
        self._store = store
        self._interval_s = interval_s if store is not None else None
        self._partition_count = partition_count
        self._stored: dict[Key, StoredOffset | None] = {}
        self.due_at = inf if self._interval_s is None else 0.0
        """When auto-commit may write again (monotonic seconds); never without it."""
        self.writes = 0

    @property
    def automatic(self) -> bool:
        """Does auto-commit write?"""
        return self._interval_s is not None

    def check(self) -> None:
        """Raise InvalidArgumentError if offsets are stored nowhere."""
        if self._store is None:
            raise InvalidArgumentError(
                "offsets are stored nowhere: give offset_store=<folder> (groups are not there yet)"
            )

    def hold(self, name: TopicPartition, topic_id: bytes) -> StoredOffset | None:
        """Take a partition, before its first record is read; its stored offset.

        Raises DataFolderError if another consumer holds it, or the folder cannot be used.
        """
        if self._store is None:
            return None
        stored = self._store.hold(name, topic_id)
        self._stored[topic_id, name.partition] = stored
        return stored

    def release(self, key: Key) -> None:
        """Let another consumer take the partition."""
        self._stored.pop(key, None)
        if self._store is not None:
            self._store.release(key)

    def stored(self, key: Key) -> StoredOffset | None:
        """What the store has for a partition that is held."""
        return self._stored.get(key)

    def has_news(self, partitions: Iterable[AssignedPartition]) -> bool:
        """Would `store_settled` write something?"""
        return any(self._differs(partition) for partition in partitions)

    def store_settled(self, partitions: Iterable[AssignedPartition], now: float) -> None:
        """Write what the application is done with; durable on return.

        Raises StorageFullError, StorageFaultError; the positions stay as they are, and auto-commit
        tries again after its interval.
        """
        if self._interval_s is not None:
            self.due_at = now + self._interval_s
        news = [partition for partition in partitions if self._differs(partition)]
        # The stored partition counts must not tell of partitions that are not stored themselves.
        for partition in sorted(news, key=lambda partition: self._stored.get(partition.key) is not None):
            self.store(partition, partition.settled, partition.settled_epoch)

    def store(self, partition: AssignedPartition, offset: int, leader_epoch: int) -> None:
        """Write one offset; durable on return. Raises StorageFullError, StorageFaultError."""
        self.check()
        assert self._store is not None
        stored = StoredOffset(offset, leader_epoch, self._partition_count(partition.name.topic))
        self._store.write(partition.key, stored)
        self._stored[partition.key] = stored
        self.writes += 1

    def close(self) -> None:
        """Release everything; nothing is written."""
        self._stored.clear()
        if self._store is not None:
            self._store.close()

    def _differs(self, partition: AssignedPartition) -> bool:
        stored = self._stored.get(partition.key)
        return partition.settled >= 0 and (stored is None or stored.offset != partition.settled)
