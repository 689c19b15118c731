"""The cluster state: what the coordinator owns, publishes, and everybody else holds a copy of.

A change is an event of the coordinator after it was decided and stored. The coordinator, the
nodes and the clients apply the same changes in the same order with `ClusterState.apply`, so
that a copy at version N is the coordinator's state at version N.
"""

from collections.abc import Iterable
from itertools import groupby
from typing import Annotated

from msgspec import Meta, Struct

from .errors import UnknownTopicError
from .limits import (
    NAME_LENGTH_MAX,
    NODES_MAX,
    PARTITIONS_PER_TOPIC_MAX,
    REPLICATION_FACTOR_MAX,
    TOPICS_MAX,
)
from .similar import did_you_mean

NO_LEADER = -1

Name = Annotated[str, Meta(max_length=NAME_LENGTH_MAX)]
Endpoint = Annotated[str, Meta(max_length=1024)]
TopicId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
PartitionIndex = Annotated[int, Meta(ge=0, lt=PARTITIONS_PER_TOPIC_MAX)]
NodeIds = Annotated[tuple[Int32, ...], Meta(max_length=REPLICATION_FACTOR_MAX)]


class Listener(Struct, frozen=True, array_like=True):
    """Where a process can be reached: `tcp://host:port`, and `ipc://path` on the host of `boot_id`."""

    tcp: Endpoint
    ipc: Endpoint = ""
    boot_id: Annotated[str, Meta(max_length=64)] = ""


class NodeInfo(Struct, frozen=True, array_like=True):
    """A registered node. `node_epoch` is new at each registration (KIP-380).

    `draining`: it gets no new partitions, and leads only what nobody else can. `opening`: the mark of the
    last opening of its storage, 0 if it is not known.
    """

    node_id: Int32
    node_epoch: Int64
    listener: Listener
    storage_id: Annotated[str, Meta(max_length=64)]
    alive: bool
    rack: Name = ""
    draining: bool = False
    opening: Int64 = 0


class TopicConfig(Struct, frozen=True, array_like=True):
    """What can be set for each topic. -1 means no bound. Times in milliseconds, sizes in bytes.

    `unclean_leader_election`: a replica that may lack records is elected rather than none.
    """

    retention_ms: Int64 = -1
    retention_bytes: Int64 = -1
    min_insync_replicas: Annotated[int, Meta(ge=1, le=REPLICATION_FACTOR_MAX)] = 1
    unclean_leader_election: bool = False


class PartitionInfo(Struct, frozen=True, array_like=True):
    """Who holds a partition. `leader` is NO_LEADER while no eligible replica is alive.

    `leader_epoch` goes up by one with each election, `partition_epoch` with each change. While the partition
    moves, `target` is who is to hold it, and `replicas` are those who did, then those who are to come; once
    all of `target` are in the ISR they are the replicas (KIP-455). Those of `adding` were never in the ISR.
    `former` are the replicas before the move. A node copies at most `throttle` bytes a second of partitions
    that it is in `adding` of; 0: no bound.
    """

    replicas: NodeIds
    leader: Int32
    leader_epoch: Int32
    partition_epoch: Int32
    isr: NodeIds
    elr: NodeIds = ()
    target: NodeIds = ()
    adding: NodeIds = ()
    former: NodeIds = ()
    throttle: Int64 = 0

    @property
    def settled_replicas(self) -> tuple[int, ...]:
        """Who holds the partition once it does not move any more; the first is to lead."""
        return self.target or self.replicas


class TopicInfo(Struct, frozen=True, array_like=True):
    """A topic; its partitions are numbered by their place in `partitions`."""

    topic_id: TopicId
    name: Name
    config: TopicConfig
    partitions: Annotated[tuple[PartitionInfo, ...], Meta(max_length=PARTITIONS_PER_TOPIC_MAX)]


class NodeChanged(Struct, frozen=True, array_like=True, tag=1):
    """A node was registered, or is alive or dead now."""

    node: NodeInfo


class NodeRemoved(Struct, frozen=True, array_like=True, tag=2):
    """A node left for good."""

    node_id: Int32


class TopicChanged(Struct, frozen=True, array_like=True, tag=3):
    """A topic was created, or its config or number of partitions changed."""

    topic: TopicInfo


class TopicRemoved(Struct, frozen=True, array_like=True, tag=4):
    """A topic was deleted; nodes drop its logs."""

    topic_id: TopicId


class PartitionChanged(Struct, frozen=True, array_like=True, tag=5):
    """A partition has another leader, ISR or set of replicas."""

    topic_id: TopicId
    index: PartitionIndex
    partition: PartitionInfo


Change = NodeChanged | NodeRemoved | TopicChanged | TopicRemoved | PartitionChanged


class Snapshot(Struct, frozen=True, array_like=True):
    """The whole state at one version."""

    controller_epoch: Int64
    version: Int64
    nodes: Annotated[tuple[NodeInfo, ...], Meta(max_length=NODES_MAX)]
    topics: Annotated[tuple[TopicInfo, ...], Meta(max_length=TOPICS_MAX)]


class ClusterState:
    """Nodes and topics at one version. Belongs to one thread; the structs in it are immutable."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.controller_epoch = 0
        self.version = 0
        self.nodes: dict[int, NodeInfo] = {}
        self.topics: dict[bytes, TopicInfo] = {}
        self.topic_ids: dict[str, bytes] = {}
        if snapshot is not None:
            self.controller_epoch = snapshot.controller_epoch
            self.version = snapshot.version
            self.nodes = {node.node_id: node for node in snapshot.nodes}
            self.topics = {topic.topic_id: topic for topic in snapshot.topics}
            self.topic_ids = {topic.name: topic.topic_id for topic in snapshot.topics}

    def copy(self) -> "ClusterState":
        """Another state that is the same, and stays so whatever is made of this one."""
        other = ClusterState()
        other.controller_epoch = self.controller_epoch
        other.version = self.version
        other.nodes = self.nodes.copy()
        other.topics = self.topics.copy()
        other.topic_ids = self.topic_ids.copy()
        return other

    def snapshot(self) -> Snapshot:
        """The state as one immutable value."""
        return Snapshot(
            self.controller_epoch, self.version, tuple(self.nodes.values()), tuple(self.topics.values())
        )

    def topic(self, name: str) -> TopicInfo | None:
        """The topic of this name, or None."""
        topic_id = self.topic_ids.get(name)
        return None if topic_id is None else self.topics[topic_id]

    def existing_topic(self, name: str) -> TopicInfo:
        """The topic of this name. Raises UnknownTopicError, which names similar ones, or how to create it."""
        topic = self.topic(name)
        if topic is not None:
            return topic
        hint = did_you_mean(name, self.topic_ids, 3) or " (`tailrace topic create` or Admin.create_topic)"
        raise UnknownTopicError(f"topic {name[:NAME_LENGTH_MAX]!r} does not exist{hint}")

    def apply(self, change: Change) -> None:
        """Make one change. The caller sets `version`, since one version may hold several.

        Raises LookupError for a partition that the state does not have: changes were missed.
        """
        match change:
            case NodeChanged(node):
                self.nodes[node.node_id] = node
            case NodeRemoved(node_id):
                self.nodes.pop(node_id, None)
            case TopicChanged(topic):
                self.topics[topic.topic_id] = topic
                self.topic_ids[topic.name] = topic.topic_id
            case TopicRemoved(topic_id):
                removed = self.topics.pop(topic_id, None)
                if removed is not None and self.topic_ids.get(removed.name) == topic_id:
                    del self.topic_ids[removed.name]
            case PartitionChanged(topic_id):
                self._apply_partitions(topic_id, (change,))

    def apply_all(self, changes: Iterable[Change]) -> None:
        """Make changes in order; a run of changes to partitions of one topic costs one rebuild of it.

        Raises LookupError like `apply`; the changes before it are made then.
        """
        for topic_id, run in groupby(changes, _partition_of):
            if topic_id is None:
                for change in run:
                    self.apply(change)
            else:
                self._apply_partitions(topic_id, run)

    def _apply_partitions(self, topic_id: bytes, changes: Iterable[Change]) -> None:
        topic = self.topics[topic_id]
        partitions = list(topic.partitions)
        for change in changes:
            if isinstance(change, PartitionChanged):
                partitions[change.index] = change.partition
        self.topics[topic_id] = TopicInfo(topic_id, topic.name, topic.config, tuple(partitions))


def _partition_of(change: Change) -> bytes | None:
    return change.topic_id if isinstance(change, PartitionChanged) else None
