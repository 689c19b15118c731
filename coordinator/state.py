"""The coordinator's durable state, and how a change makes the next one of it.

Everything here follows from the changes, in their order: a state that is loaded from the store
equals the one that wrote it.
"""

from tailrace.protocol.cluster import (
    Change,
    ClusterState,
    NodeChanged,
    NodeRemoved,
    PartitionChanged,
    TopicChanged,
    TopicRemoved,
)
from tailrace.protocol.messages import Update

from .private_state import (
    ControllerEpochRaised,
    PrivateChange,
    ProducerEpochRaised,
    ProducerIdIssued,
    StoreOpened,
    TombstoneDropped,
    TopicBuried,
)
from .replica_index import Load, ReplicaIndex
from .snapshot_size import node_bytes, partition_bytes, topic_bytes


class State:
    """The cluster state, which is published, and what is private to the coordinator."""

    def __init__(self, cluster_id: str, cluster: ClusterState | None = None) -> None:
        self.cluster_id = cluster_id
        self.cluster = cluster or ClusterState()
        self.unclean_elections = 0
        """Since the start, and not stored: replicas that were elected although they may lack records."""
        self.openings: tuple[int, ...] = ()
        self.next_producer_id = 0
        self.producer_epochs: dict[int, int] = {}
        self.tombstones: dict[bytes, int] = {}  # deleted topic id -> version of its deletion, oldest first
        self.index = ReplicaIndex()
        self.snapshot_bytes = sum(map(node_bytes, self.cluster.nodes.values()))
        for topic in self.cluster.topics.values():
            self.index.add_topic(topic)
            self.snapshot_bytes += topic_bytes(topic)

    def alive(self) -> set[int]:
        """The ids of the nodes that are alive."""
        return {node.node_id for node in self.cluster.nodes.values() if node.alive}

    def draining(self) -> set[int]:
        """The ids of the nodes that are to be emptied."""
        return {node.node_id for node in self.cluster.nodes.values() if node.draining}

    def racks(self) -> dict[int, str]:
        """The rack of each node; empty where it has none."""
        return {node.node_id: node.rack for node in self.cluster.nodes.values()}

    def loads(self) -> dict[int, Load]:
        """What the nodes carry that may get new partitions: they are alive and not draining."""
        chosen = self.alive() - self.draining()
        return {node_id: self.index.load(node_id) for node_id in chosen}

    def apply(self, update: Update) -> None:
        """Move on to the update's version, which must be the next one."""
        assert update.version == self.cluster.version + 1
        for change in update.changes:
            self._count(change)
        self.cluster.apply_all(update.changes)
        self.cluster.version = update.version

    def apply_private(self, change: PrivateChange) -> None:
        """Make one private change."""
        match change:
            case ControllerEpochRaised(epoch):
                assert epoch > self.cluster.controller_epoch
                self.cluster.controller_epoch = epoch
            case ProducerIdIssued(producer_id):
                assert producer_id >= self.next_producer_id
                self.next_producer_id = producer_id + 1
            case ProducerEpochRaised(producer_id, epoch):
                assert epoch > self.producer_epochs.get(producer_id, 0)
                self.producer_epochs[producer_id] = epoch
            case TopicBuried(topic_id, version):
                self.tombstones[topic_id] = version
            case TombstoneDropped(topic_id):
                del self.tombstones[topic_id]
            case StoreOpened(openings):
                self.openings = openings

    def _count(self, change: Change) -> None:
        """Keep index and size up; runs before the cluster state changes, to see what was there."""
        cluster = self.cluster
        match change:
            case NodeChanged(node):
                self._forget_node(node.node_id)
                self.snapshot_bytes += node_bytes(node)
            case NodeRemoved(node_id):
                self._forget_node(node_id)
            case TopicChanged(topic):
                self._forget_topic(topic.topic_id)
                self.index.add_topic(topic)
                self.snapshot_bytes += topic_bytes(topic)
            case TopicRemoved(topic_id):
                self._forget_topic(topic_id)
            case PartitionChanged(topic_id, index, partition):
                old = cluster.topics[topic_id].partitions[index]
                self.snapshot_bytes += partition_bytes(partition) - partition_bytes(old)
                self.index.change(topic_id, index, old, partition)

    def _forget_node(self, node_id: int) -> None:
        if (node := self.cluster.nodes.get(node_id)) is not None:
            self.snapshot_bytes -= node_bytes(node)

    def _forget_topic(self, topic_id: bytes) -> None:
        if (topic := self.cluster.topics.get(topic_id)) is not None:
            self.index.remove_topic(topic)
            self.snapshot_bytes -= topic_bytes(topic)
