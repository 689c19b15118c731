"""What the admin client tells about a cluster: plain values, detached from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import asdict

from tailrace.protocol.cluster import NO_LEADER, ClusterState, NodeInfo, PartitionInfo, TopicInfo
from tailrace.protocol.messages import LogInfo, LogsDescribed


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionDescription:
    """Who holds a partition. `leader` is None while no replica that may lead is alive."""

    partition: int
    leader: int | None
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicDescription:
    """A topic. `config` has every setting: times in milliseconds, sizes in bytes, -1 for no bound."""

    name: str
    topic_id: str
    config: Mapping[str, int]
    partitions: tuple[PartitionDescription, ...]

    @property
    def replication_factor(self) -> int:
        """How many nodes hold each partition."""
        return len(self.partitions[0].replicas) if self.partitions else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeDescription:
    """A node and its addresses; `ipc` is empty when it has none. `node_epoch` is new at each start."""

    node_id: int
    node_epoch: int
    alive: bool
    tcp: str
    ipc: str
    rack: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterDescription:
    """The cluster at one version of its state. `topics` are names, in order."""

    cluster_id: str
    controller_epoch: int
    version: int
    nodes: tuple[NodeDescription, ...]
    topics: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LogDescription:
    """One partition's log on one node. `topic` is None for one that was just deleted."""

    topic: str | None
    partition: int
    log_start_offset: int
    log_end_offset: int
    high_watermark: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeLogs:
    """What a node holds. `used_bytes` of `quota_bytes` are taken."""

    node_id: int
    used_bytes: int
    quota_bytes: int
    logs: tuple[LogDescription, ...]


class OffsetAndTimestamp(NamedTuple):
    """An offset, and the timestamp of its record in milliseconds since 1970 (-1 where there is none)."""

    offset: int
    timestamp: int


class OffsetAndMetadata(NamedTuple):
    """An offset to commit, of the next record to read, with a text of the application's own.

    `leader_epoch` is that of the record before it, -1 if unknown.
    """

    offset: int
    metadata: str = ""
    leader_epoch: int = -1


def describe_partition(index: int, partition: PartitionInfo) -> PartitionDescription:
    """A partition as the cluster state has it."""
    return PartitionDescription(
        partition=index,
        leader=None if partition.leader == NO_LEADER else partition.leader,
        leader_epoch=partition.leader_epoch,
        replicas=partition.replicas,
        isr=partition.isr,
    )


def describe_topic(topic: TopicInfo) -> TopicDescription:
    """A topic as the cluster state has it."""
    return TopicDescription(
        name=topic.name,
        topic_id=topic.topic_id.hex(),
        config=asdict(topic.config),
        partitions=tuple(map(describe_partition, range(len(topic.partitions)), topic.partitions)),
    )


def describe_node(node: NodeInfo) -> NodeDescription:
    """A node as the cluster state has it."""
    return NodeDescription(
        node_id=node.node_id,
        node_epoch=node.node_epoch,
        alive=node.alive,
        tcp=node.listener.tcp,
        ipc=node.listener.ipc,
        rack=node.rack,
    )


def describe_cluster(cluster_id: str, state: ClusterState) -> ClusterDescription:
    """The whole state, without the topics' partitions."""
    return ClusterDescription(
        cluster_id=cluster_id,
        controller_epoch=state.controller_epoch,
        version=state.version,
        nodes=tuple(describe_node(state.nodes[node_id]) for node_id in sorted(state.nodes)),
        topics=tuple(sorted(state.topic_ids)),
    )


def describe_logs(node_id: int, described: LogsDescribed, state: ClusterState) -> NodeLogs:
    """A node's answer, with the topics' names."""
    logs = (_describe_log(log, state) for log in described.logs)
    return NodeLogs(
        node_id=node_id,
        used_bytes=described.used_bytes,
        quota_bytes=described.quota_bytes,
        logs=tuple(sorted(logs, key=lambda log: (log.topic or "", log.partition))),
    )


def _describe_log(log: LogInfo, state: ClusterState) -> LogDescription:
    topic = state.topics.get(log.topic_id)
    return LogDescription(
        topic=None if topic is None else topic.name,
        partition=log.partition,
        log_start_offset=log.log_start_offset,
        log_end_offset=log.log_end_offset,
        high_watermark=log.high_watermark,
        size_bytes=log.size_bytes,
    )
