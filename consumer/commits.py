"""Which positions are stored, and when it is time to store more.

A position that is stored is one that the application is done with (`AssignedPartition.settled`).
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import inf
from time import monotonic

from tailrace.client.answer import GRACE_S
from tailrace.client.waiting import Sign, wait_in_steps
from tailrace.protocol.errors import (
    ClosedError,
    FencedMemberError,
    InvalidArgumentError,
    TailraceError,
)
from tailrace.protocol.record import TopicPartition

from .assigned import AssignedPartition, Key
from .offsets import Held, Offsets, OffsetStore
from .stored_offset import StoredOffset

_log = logging.getLogger(__name__)


class Commits:
    """The stored offsets of the partitions that are held. Belongs to the application's thread.

    `interval_s` is the shortest time between two writes by auto-commit, None without it.
    `partition_count` tells how many partitions a topic has. `timeout_s` is the time for one write.
    """

    def __init__(
        self,
        store: OffsetStore | None,
        *,
        interval_s: float | None,
        partition_count: Callable[[str], int],
        timeout_s: float,
    ) -> None:
        self._store = store
        self._interval_s = interval_s if store is not None else None
        self._partition_count = partition_count
        self._timeout_s = timeout_s
        self._stored: dict[Key, StoredOffset | None] = {}
        self._on_its_way = False
        """An auto-commit waits for its answer. Cleared in the I/O thread."""
        self._unanswered: set[Sign] = set()
        """One for each write that waits for its answer. Set and discarded in the I/O thread."""
        self.automatic = self._interval_s is not None
        """Does auto-commit write?"""
        self.due_at = 0.0 if self.automatic else inf
        """When auto-commit may write again (monotonic seconds); never without it."""
        self.writes = 0

    def check(self) -> None:
        """Raise InvalidArgumentError if offsets are stored nowhere."""
        if self._store is None:
            raise InvalidArgumentError("offsets are stored nowhere: give group_id, or offset_store=<folder>")

    def hold(self, wanted: Mapping[TopicPartition, bytes], timeout_s: float) -> Held:
        """Take partitions (with their topic's id), before their first record is read.

        Those that another process holds are refused. Raises what looking up stored offsets raises.
        """
        if self._store is None:
            return Held(dict.fromkeys(wanted), {})
        held = self._store.hold(wanted, timeout_s)
        for name, stored in held.stored.items():
            self._stored[wanted[name], name.partition] = stored
        return held

    def release(self, key: Key) -> None:
        """Let another consumer take the partition."""
        self._stored.pop(key, None)
        if self._store is not None:
            self._store.release(key)

    def has_news(self, partitions: Iterable[AssignedPartition]) -> bool:
        """Would `store_settled` write something?"""
        return any(self._differs(partition) for partition in partitions)

    def store_settled(self, partitions: Iterable[AssignedPartition], now: float) -> None:
        """Write what the application is done with; durable on return.

        Raises what the store raises; the positions stay as they are, and auto-commit tries again after
        its interval.
        """
        self._put_off(now)
        news = self._news(partitions)
        if news:
            self.write(news)

    def store_last(self, partitions: Iterable[AssignedPartition], now: float) -> None:
        """As `store_settled`, at the end of the consumer: what is another's now is read again by that."""
        try:
            self.store_settled(partitions, now)
        except FencedMemberError as error:
            _log.warning("what was read last is not committed, so it is read again: %s", error)

    def store_in_time(self, partitions: Iterable[AssignedPartition], now: float) -> None:
        """As `store_settled`, without waiting for another process: what fails there is a warning."""
        if self._store is None or not self._store.remote:
            self.store_settled(partitions, now)
            return
        self._put_off(now)
        if self._on_its_way:
            return
        news = self._news(partitions)
        if news:
            self._on_its_way = True
            try:
                self.write_later(news, self._auto_committed)
            except BaseException:
                self._on_its_way = False
                raise

    def write(self, offsets: Offsets) -> None:
        """Write offsets; durable on return. Raises what the store raises."""
        self.check()
        assert self._store is not None
        self._store.write(offsets, self._timeout_s)
        self.note(offsets)

    def write_later(self, offsets: Offsets, done: Callable[[TailraceError | None], None]) -> None:
        """Begin to write; `done` is called once, perhaps in the I/O thread."""
        self.check()
        assert self._store is not None
        answered = Sign()
        self._unanswered.add(answered)
        try:
            self._store.write_later(offsets, partial(self._written, offsets, done, answered))
        except BaseException:
            self._unanswered.discard(answered)
            raise

    def wait_for_answers(self, look: Callable[[], None]) -> None:
        """Until what `write_later` has begun is stored or has failed, within the time for one write.

        The I/O thread may be calling the last callbacks then. `look`: see `wait_in_steps`.
        """
        until = monotonic() + self._timeout_s + GRACE_S
        for answered in tuple(self._unanswered):
            wait_in_steps(answered.wait, max(0.0, until - monotonic()), look)

    def note(self, offsets: Offsets) -> None:
        """These are stored, also by others than `write`."""
        for key, offset in offsets.items():
            if key in self._stored:
                self._stored[key] = offset
        self.writes += len(offsets)

    def stored_offset(
        self, topic: str, offset: int, leader_epoch: int = -1, metadata: str = ""
    ) -> StoredOffset:
        """An offset of one of the topic's partitions, as it is stored."""
        return StoredOffset(offset, leader_epoch, self._partition_count(topic), metadata)

    def ask(self, name: TopicPartition, topic_id: bytes, timeout_s: float) -> StoredOffset | None:
        """What the store has of a partition, held or not. Raises what asking raises."""
        self.check()
        assert self._store is not None
        return self._store.ask(name, topic_id, timeout_s)

    def close(self) -> None:
        """Release everything; nothing is written."""
        self._stored.clear()
        if self._store is not None:
            self._store.close()

    def _put_off(self, now: float) -> None:
        if self._interval_s is not None:
            self.due_at = now + self._interval_s

    def _news(self, partitions: Iterable[AssignedPartition]) -> dict[Key, StoredOffset]:
        news = [partition for partition in partitions if self._differs(partition)]
        # The stored partition counts must not tell of partitions that are not stored themselves.
        news.sort(key=lambda partition: self._stored.get(partition.key) is not None)
        return {
            partition.key: self.stored_offset(
                partition.name.topic, partition.settled, partition.settled_epoch
            )
            for partition in news
        }

    def _written(
        self,
        offsets: Offsets,
        done: Callable[[TailraceError | None], None],
        answered: Sign,
        error: TailraceError | None,
    ) -> None:
        if error is None:
            self.note(offsets)
        self._unanswered.discard(answered)
        answered.set()
        done(error)

    def _auto_committed(self, error: TailraceError | None) -> None:
        self._on_its_way = False
        if isinstance(error, ClosedError):
            _log.warning("what was read last is perhaps not committed, and read again then: %s", error)
        elif error is not None:
            _log.warning("auto-commit failed, the next one covers it too: %s", error)

    def _differs(self, partition: AssignedPartition) -> bool:
        stored = self._stored.get(partition.key)
        return partition.settled >= 0 and (stored is None or stored.offset != partition.settled)
