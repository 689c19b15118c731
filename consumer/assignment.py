"""Which partitions a consumer reads: by topic (all of them, also those that come later) or by name."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from random import Random
from threading import Lock
from time import monotonic

from tailrace.client.engine import Engine
from tailrace.protocol.cluster import TopicInfo
from tailrace.protocol.errors import InvalidArgumentError, TailraceError, UnknownPartitionError
from tailrace.protocol.record import TopicPartition

from .assigned import AssignedPartition, Reset
from .commits import Commits
from .fetcher import Fetcher
from .look_up import log_ranges
from .start import new_partitions, start_offset, unseen_start


class Assignment:
    """The assigned partitions by name. Belongs to the application's thread.

    A change is made whole or not at all: stored offsets are locked and first positions are looked up
    before anything is given up.
    """

    def __init__(
        self, engine: Engine, fetcher: Fetcher, lock: Lock, commits: Commits, *, reset: Reset, random: Random
    ) -> None:
        self._engine = engine
        self._fetcher = fetcher
        self._lock = lock
        self._commits = commits
        self._reset: Reset = reset
        self._random = random
        self._partitions: dict[TopicPartition, AssignedPartition] = {}
        self.topics: tuple[str, ...] = ()
        """Subscribed topics; empty when partitions were assigned by name."""

    @property
    def partitions(self) -> Mapping[TopicPartition, AssignedPartition]:
        """What is assigned."""
        return self._partitions

    def find(self, name: TopicPartition) -> AssignedPartition:
        """Raises InvalidArgumentError for a partition that is not assigned."""
        try:
            return self._partitions[name]
        except KeyError:
            few = ", ".join(map(str, list(self._partitions.values())[:5])) or "none"
            raise InvalidArgumentError(
                f"{name.topic}-{name.partition} is not assigned to this consumer: assigned are {few}"
                f"{' and more' if len(self._partitions) > 5 else ''}"
            ) from None

    def subscribe(self, topics: Sequence[str], timeout_s: float) -> None:
        """Read all partitions of these topics, and no others.

        Raises UnknownTopicError, DataFolderError, or what the look-up of offsets raises.
        """
        deadline = monotonic() + timeout_s
        infos = self._find_topics(topics, deadline)
        wanted = {
            TopicPartition(topic, partition): info
            for topic, info in infos.items()
            for partition in range(len(info.partitions))
        }
        self._replace(wanted, deadline)
        self.topics = tuple(infos)

    def assign(self, names: Sequence[TopicPartition], timeout_s: float) -> None:
        """Read these partitions, and no others. Raises like `subscribe`, and UnknownPartitionError."""
        deadline = monotonic() + timeout_s
        infos = self._find_topics([name.topic for name in names], deadline)
        for name in names:
            count = len(infos[name.topic].partitions)
            if name.partition >= count:
                raise UnknownPartitionError(
                    f"topic {name.topic!r} has {count} partitions, so there is no {name.partition}"
                )
        self._replace({name: infos[name.topic] for name in names}, deadline)
        self.topics = ()

    def clear(self) -> None:
        """Read nothing."""
        self._replace({}, monotonic())
        self.topics = ()

    def adopt_new(self) -> None:
        """Subscribed topics may have more partitions than before: read those from their beginning."""
        infos = {topic: self._engine.topic(topic) for topic in self.topics}
        missing = {
            name: info
            for topic, info in infos.items()
            if info is not None
            for name in map(partial(TopicPartition, topic), range(len(info.partitions)))
            if name not in self._partitions and self._is_followed(topic, info)
        }
        for name, info in missing.items():
            stored = self._commits.hold(name, info.topic_id)
            offset = 0 if stored is None else stored.offset
            partition = AssignedPartition(name, info.topic_id, offset, "earliest", self._random)
            self._add(partition)
            if self._commits.automatic:
                self._commits.store_settled([partition], monotonic())

    # ------------------------------------------------------------------ inside

    def _is_followed(self, topic: str, info: TopicInfo) -> bool:
        """Is it the topic that was subscribed, not one that was created anew under its name?"""
        return all(
            partition.key[0] == info.topic_id
            for name, partition in self._partitions.items()
            if name.topic == topic
        )

    def _find_topics(self, topics: Iterable[str], deadline: float) -> dict[str, TopicInfo]:
        return {
            topic: self._engine.wait_for_topic(topic, max(0.0, deadline - monotonic()))
            for topic in dict.fromkeys(topics)
        }

    def _replace(self, wanted: Mapping[TopicPartition, TopicInfo], deadline: float) -> None:
        kept = {
            name
            for name, partition in self._partitions.items()
            if name in wanted and wanted[name].topic_id == partition.key[0]
        }
        added = {name: info for name, info in wanted.items() if name not in kept}
        dropped = [partition for name, partition in self._partitions.items() if name not in kept]
        with ExitStack() as held:
            fresh = self._prepare(added, held, deadline)
            if self._commits.automatic:
                # From here on a killed consumer is continued, also one that has read nothing yet.
                self._commits.store_settled([*dropped, *fresh], monotonic())
            held.pop_all()
        for partition in dropped:
            self._drop(partition)
        for partition in fresh:
            self._add(partition)

    def _prepare(
        self, added: Mapping[TopicPartition, TopicInfo], held: ExitStack, deadline: float
    ) -> list[AssignedPartition]:
        stored = {}
        for name, info in added.items():
            stored[name] = self._commits.hold(name, info.topic_id)
            held.callback(self._commits.release, (info.topic_id, name.partition))
        unread = new_partitions(stored)
        resets: dict[TopicPartition, Reset] = {
            name: "earliest" if name in unread else self._reset for name in added
        }
        unseen = {name: unseen_start(name, stored[name], resets[name]) for name in added}
        needed = {name for name, offset in unseen.items() if offset is None}
        logs = log_ranges(self._engine, list(added), needed, deadline)
        fresh = []
        for name, info in added.items():
            if name in logs:
                offset = start_offset(name, stored[name], logs[name], resets[name])
                fresh.append(self._starting(name, info, offset, self._reset))
            elif (guess := unseen[name]) is not None:
                # What is sent from now on must not be missed, even if the log does not reach back to it.
                reset: Reset = "none" if self._reset == "none" else "earliest"
                fresh.append(self._starting(name, info, guess, reset))
        return fresh

    def _starting(
        self, name: TopicPartition, info: TopicInfo, offset: int | TailraceError, reset: Reset
    ) -> AssignedPartition:
        if isinstance(offset, TailraceError):
            partition = AssignedPartition(name, info.topic_id, -1, reset, self._random)
            partition.failure = offset
            return partition
        return AssignedPartition(name, info.topic_id, offset, reset, self._random)

    def _add(self, partition: AssignedPartition) -> None:
        self._partitions[partition.name] = partition
        with self._lock:
            # Under the lock: the I/O thread tells the fetcher of every state after this one.
            self._fetcher.assign(partition, self._engine.view().topics.get(partition.key[0]))

    def _drop(self, partition: AssignedPartition) -> None:
        with self._lock:
            self._fetcher.revoke(partition)
        self._commits.release(partition.key)
        del self._partitions[partition.name]
