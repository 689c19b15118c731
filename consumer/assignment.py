"""Which partitions a consumer reads: by topic (all of them, also those that come later) or by name."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
from functools import partial
from random import Random
from threading import Lock
from time import monotonic

from tailrace.client.engine import Engine
from tailrace.protocol.cluster import TopicInfo
from tailrace.protocol.errors import InvalidArgumentError, TailraceError, UnknownPartitionError
from tailrace.protocol.record import TopicPartition

from .assigned import NO_POSITION, AssignedPartition, Reset
from .commits import Commits
from .fetcher import Fetcher
from .look_up import look_up
from .offsets import Held
from .start import Leaderless, LogRange, new_partitions, start_offset, unseen_start
from .stored_offset import StoredOffset

_log = logging.getLogger(__name__)


class Assignment:
    """The assigned partitions by name. Belongs to the application's thread.

    A change is made whole or not at all: stored offsets are locked and first positions are looked up
    before anything is given up.
    """

    def __init__(
        self,
        engine: Engine,
        fetcher: Fetcher,
        lock: Lock,
        commits: Commits,
        *,
        reset: Reset,
        random: Random,
        change: Callable[[Callable[[], None]], None] = lambda action: action(),
    ) -> None:
        self._engine = engine
        self._fetcher = fetcher
        self._lock = lock
        self._commits = commits
        self._reset: Reset = reset
        self._random = random
        self._change = change
        """Makes a change that no signal handler ends half-way (`HandOver.change`)."""
        self.partitions: dict[TopicPartition, AssignedPartition] = {}
        """What is assigned. Others only read it."""
        self.topics: tuple[str, ...] = ()
        """Subscribed topics; empty when partitions were assigned by name."""
        self.pattern: re.Pattern[str] | None = None

    def find(self, name: TopicPartition) -> AssignedPartition:
        """Raises InvalidArgumentError for a partition that is not assigned."""
        try:
            return self.partitions[name]
        except KeyError:
            few = ", ".join(map(str, list(self.partitions.values())[:5])) or "none"
            raise InvalidArgumentError(
                f"{name.topic}-{name.partition} is not assigned to this consumer: assigned are {few}"
                f"{' and more' if len(self.partitions) > 5 else ''}"
            ) from None

    def subscribe(
        self, topics: Sequence[str], timeout_s: float, pattern: re.Pattern[str] | None = None
    ) -> None:
        """Read all partitions of these topics, or of all whose whole name `pattern` matches, and no others.

        Raises UnknownTopicError, DataFolderError, or what the look-up of offsets raises.
        """
        deadline = monotonic() + timeout_s
        infos = self.find_topics(topics if pattern is None else self.matching(pattern), deadline)
        wanted = {
            TopicPartition(topic, partition): info
            for topic, info in infos.items()
            for partition in range(len(info.partitions))
        }
        self._replace(wanted, deadline)
        self.topics = tuple(infos)
        self.pattern = pattern

    def assign(self, names: Sequence[TopicPartition], timeout_s: float) -> None:
        """Read these partitions, and no others. Raises like `subscribe`, and UnknownPartitionError."""
        deadline = monotonic() + timeout_s
        infos = self.find_topics([name.topic for name in names], deadline)
        for name in names:
            count = len(infos[name.topic].partitions)
            if name.partition >= count:
                raise UnknownPartitionError(
                    f"topic {name.topic!r} has {count} partitions, so there is no {name.partition}"
                )
        self._replace({name: infos[name.topic] for name in names}, deadline)
        self.topics = ()
        self.pattern = None

    def clear(self) -> None:
        """Read nothing."""
        self._replace({}, monotonic())
        self.topics = ()
        self.pattern = None

    def matching(self, pattern: re.Pattern[str]) -> list[str]:
        """The topics there are whose whole name matches."""
        return sorted(filter(pattern.fullmatch, self._engine.cluster.topic_ids))

    def adopt_new(self) -> None:
        """Subscribed topics may have more partitions than before: read those from their beginning.

        So are new topics that match the pattern; of those that are gone nothing is read any more.
        """
        if self.pattern is not None:
            self.drop(self.vanished())
            self.topics = tuple(self.matching(self.pattern))
        infos = {topic: self._engine.topic(topic) for topic in self.topics}
        missing = {
            name: info
            for topic, info in infos.items()
            if info is not None
            for name in map(partial(TopicPartition, topic), range(len(info.partitions)))
            if name not in self.partitions and self._is_followed(topic, info)
        }
        for name, info in missing.items():
            held = self._commits.hold({name: info.topic_id}, self._engine.request_timeout_s)
            if held.refused:
                raise held.refused[name]
            stored = held.stored[name]
            offset = 0 if stored is None else stored.offset
            partition = AssignedPartition(name, info.topic_id, offset, "earliest", self._random)
            self._exchange([], [partition])
            if self._commits.automatic:
                self._commits.store_settled([partition], monotonic())

    def find_topics(self, topics: Iterable[str], deadline: float) -> dict[str, TopicInfo]:
        """Raises UnknownTopicError with similar names."""
        return {
            topic: self._engine.wait_for_topic(topic, max(0.0, deadline - monotonic()))
            for topic in dict.fromkeys(topics)
        }

    def take(
        self, wanted: Mapping[TopicPartition, TopicInfo], timeout_s: float, new: Set[TopicPartition]
    ) -> list[TopicPartition]:
        """Read these as well, as far as that can begin now; the names of those that it can.

        The `new` ones, of which nothing is stored, were read by nobody: they are read from their beginning.

        The others hold up nobody: another process holds their offsets.
        """
        deadline = monotonic() + timeout_s
        held = self._commits.hold({name: info.topic_id for name, info in wanted.items()}, timeout_s)
        for name, error in held.refused.items():
            _log.warning("%s-%d waits: %s", name.topic, name.partition, error)
        with ExitStack() as taken:
            for name in held.stored:
                taken.callback(self._commits.release, (wanted[name].topic_id, name.partition))
            fresh = self._start(wanted, held, deadline, new=new)
            if self._commits.automatic:
                self._commits.store_settled(fresh, monotonic())
            taken.pop_all()
        self._exchange([], fresh)
        return list(held.stored)

    def drop(self, partitions: Iterable[AssignedPartition]) -> None:
        """Read these no more; nothing is stored."""
        self._exchange(list(partitions), [])

    def vanished(self) -> list[AssignedPartition]:
        """Those whose topic was deleted."""
        topics = self._engine.cluster.topics
        return [partition for partition in self.partitions.values() if partition.key[0] not in topics]

    # ------------------------------------------------------------------ inside

    def _is_followed(self, topic: str, info: TopicInfo) -> bool:
        """Is it the topic that was subscribed, not one that was created anew under its name?"""
        return all(
            partition.key[0] == info.topic_id
            for name, partition in self.partitions.items()
            if name.topic == topic
        )

    def _replace(self, wanted: Mapping[TopicPartition, TopicInfo], deadline: float) -> None:
        kept = {
            name
            for name, partition in self.partitions.items()
            if name in wanted and wanted[name].topic_id == partition.key[0]
        }
        added = {name: info for name, info in wanted.items() if name not in kept}
        dropped = [partition for name, partition in self.partitions.items() if name not in kept]
        with ExitStack() as held:
            fresh = self._prepare(added, held, deadline)
            if self._commits.automatic:
                # From here on a killed consumer is continued, also one that has read nothing yet.
                self._commits.store_settled([*dropped, *fresh], monotonic())
            held.pop_all()
        self._exchange(dropped, fresh)

    def _prepare(
        self, added: Mapping[TopicPartition, TopicInfo], held: ExitStack, deadline: float
    ) -> list[AssignedPartition]:
        wanted = {name: info.topic_id for name, info in added.items()}
        taken = self._commits.hold(wanted, max(0.0, deadline - monotonic()))
        for name in taken.stored:
            held.callback(self._commits.release, (wanted[name], name.partition))
        for error in taken.refused.values():
            raise error
        return self._start(added, taken, deadline, new=frozenset())

    def _start(
        self,
        added: Mapping[TopicPartition, TopicInfo],
        held: Held,
        deadline: float,
        *,
        new: Set[TopicPartition],
    ) -> list[AssignedPartition]:
        stored = held.stored
        unread = new_partitions(stored, held.counts) | {name for name in new if stored.get(name) is None}
        resets: dict[TopicPartition, Reset] = {
            name: "earliest" if name in unread else self._reset for name in stored
        }
        logs = look_up(self._engine, list(stored), deadline)
        fresh = []
        for name, log in logs.items():
            if isinstance(log, LogRange):
                start = start_offset(name, stored[name], log, resets[name])
                self._tell_of_reset(name, stored[name], log, start)
                fresh.append(self._starting(name, added[name], start, self._reset))
            else:
                # What is sent from now on must not be missed, even if the log does not reach back to it.
                guess = unseen_start(name, stored[name], log, resets[name])
                reset: Reset = "none" if self._reset == "none" else "earliest"
                fresh.append(self._starting(name, added[name], guess, reset))
        return fresh

    def _tell_of_reset(
        self, name: TopicPartition, stored: StoredOffset | None, log: LogRange, start: int | TailraceError
    ) -> None:
        if stored is None or isinstance(start, TailraceError) or start == stored.offset:
            return
        told = "%s-%d: the stored offset %d is not in %d to %d: going on at %d"
        _log.warning(told, name.topic, name.partition, stored.offset, *log, start)
        with self._lock:
            self._fetcher.statistics.resets += 1

    def _starting(
        self, name: TopicPartition, info: TopicInfo, start: int | TailraceError | Leaderless, reset: Reset
    ) -> AssignedPartition:
        offset = start if isinstance(start, int) else NO_POSITION
        partition = AssignedPartition(name, info.topic_id, offset, reset, self._random)
        if isinstance(start, TailraceError):
            partition.failure = start
        elif isinstance(start, Leaderless):
            partition.begin_after(start.leader_epoch)
        return partition

    def _exchange(self, dropped: Sequence[AssignedPartition], fresh: Sequence[AssignedPartition]) -> None:
        if not (dropped or fresh):
            return
        self._change(partial(self._make_exchange, dropped, fresh))
        for partition in dropped:
            self._commits.release(partition.key)

    def _make_exchange(
        self, dropped: Sequence[AssignedPartition], fresh: Sequence[AssignedPartition]
    ) -> None:
        with self._lock:
            # Under the lock: the I/O thread tells the fetcher of every state after this one.
            topics = self._engine.cluster.topics
            for partition in dropped:
                self._fetcher.revoke(partition)
                del self.partitions[partition.name]
            for partition in fresh:
                self._fetcher.assign(partition, topics.get(partition.key[0]))
                self.partitions[partition.name] = partition
