"""Which partitions each node holds and leads, and which it is to lead, kept up with the changes."""

from collections.abc import Iterator
from typing import NamedTuple

from tailrace.protocol.cluster import NO_LEADER, PartitionInfo, TopicInfo


class Load(NamedTuple):
    """How many partitions a node leads, and how many it holds in all."""

    leaders: int = 0
    replicas: int = 0


class ReplicaIndex:
    """Answers in the time of the answer what a scan of all topics would answer too."""

    def __init__(self) -> None:
        self._held: dict[int, dict[bytes, set[int]]] = {}
        self._loads: dict[int, Load] = {}
        self.partitions = 0
        self.displaced: dict[int, set[tuple[bytes, int]]] = {}
        """By node: the partitions that it is to lead, and another one does."""

    def load(self, node_id: int) -> Load:
        """What the node has to carry."""
        return self._loads.get(node_id, Load())

    def held_by(self, node_id: int) -> Iterator[tuple[bytes, list[int]]]:
        """The partitions that the node is a replica of, topic by topic, in order of their numbers."""
        for topic_id, indexes in self._held.get(node_id, {}).items():
            yield topic_id, sorted(indexes)

    def add_topic(self, topic: TopicInfo) -> None:
        """Count a topic's partitions."""
        self.partitions += len(topic.partitions)
        for index, partition in enumerate(topic.partitions):
            self._add(topic.topic_id, index, partition)

    def remove_topic(self, topic: TopicInfo) -> None:
        """Forget a topic's partitions."""
        self.partitions -= len(topic.partitions)
        for index, partition in enumerate(topic.partitions):
            self._remove(topic.topic_id, index, partition)

    def change(self, topic_id: bytes, index: int, old: PartitionInfo, new: PartitionInfo) -> None:
        """A partition has changed."""
        if (old.leader, old.replicas, old.target) != (new.leader, new.replicas, new.target):
            self._remove(topic_id, index, old)
            self._add(topic_id, index, new)

    def _add(self, topic_id: bytes, index: int, partition: PartitionInfo) -> None:
        preferred = partition.settled_replicas[0]
        if partition.leader not in (preferred, NO_LEADER):
            self.displaced.setdefault(preferred, set()).add((topic_id, index))
        for node_id in partition.replicas:
            self._held.setdefault(node_id, {}).setdefault(topic_id, set()).add(index)
            self._count(node_id, node_id == partition.leader, 1)

    def _remove(self, topic_id: bytes, index: int, partition: PartitionInfo) -> None:
        preferred = partition.settled_replicas[0]
        if partition.leader not in (preferred, NO_LEADER):
            self.displaced[preferred].discard((topic_id, index))
            if not self.displaced[preferred]:
                del self.displaced[preferred]
        for node_id in partition.replicas:
            topics = self._held[node_id]
            topics[topic_id].discard(index)
            if not topics[topic_id]:
                del topics[topic_id]
            self._count(node_id, node_id == partition.leader, -1)

    def _count(self, node_id: int, leads: bool, step: int) -> None:
        leaders, replicas = self.load(node_id)
        self._loads[node_id] = Load(leaders + step * leads, replicas + step)
