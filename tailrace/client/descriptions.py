"""What the admin client tells about a cluster: plain values, detached from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import asdict

from tailrace.protocol.cluster import NO_LEADER, ClusterState, NodeInfo, PartitionInfo, TopicInfo
from tailrace.protocol.group_messages import MemberInfo
from tailrace.protocol.messages import LogInfo, LogsDescribed
from tailrace.protocol.record import TopicPartition


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionDescription:
    """Who holds a partition. `leader` is None while no replica that may lead is alive.

    `isr` are in sync; `elr` are not, but have every record that was acknowledged to all, and may lead when
    nobody in sync can. `target`: who is to hold the partition, if it moves.
    """

    partition: int
    leader: int | None
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    elr: tuple[int, ...] = ()
    target: tuple[int, ...] = ()


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
        if not self.partitions:
            return 0
        return len(self.partitions[0].target or self.partitions[0].replicas)


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeDescription:
    """A node and its addresses; `ipc` is empty when it has none. `node_epoch` is new at each start.

    `draining`: everything moves off it, and nothing new is placed on it.
    """

    node_id: int
    node_epoch: int
    alive: bool
    tcp: str
    ipc: str
    rack: str
    draining: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ElectionResult:
    """How many partitions have another leader now, and how many still wait for their first replica."""

    moved: int
    waiting: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DrainProgress:
    """How many partitions a node holds still, and how many of them no other node can take."""

    node_id: int
    held: int
    stuck: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterDescription:
    """The cluster at one version of its state. `topics` are names, in order.

    `unclean_elections`: of replicas that may lack records, since the coordinator started.
    """

    cluster_id: str
    controller_epoch: int
    version: int
    nodes: tuple[NodeDescription, ...]
    topics: tuple[str, ...]
    unclean_elections: int = 0


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
    """What a node holds. `used_bytes` of `quota_bytes` are taken; `full`: it refuses writes."""

    node_id: int
    used_bytes: int
    quota_bytes: int
    logs: tuple[LogDescription, ...]
    full: bool = False


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


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupListing:
    """A consumer group. `state` is "empty", "reconciling" (partitions are on their way) or "stable"."""

    group_id: str
    kind: str
    state: str
    members: int
    group_epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberDescription:
    """A member of a group, and what it reads. `instance_id` is empty unless it is a static one."""

    member_id: str
    instance_id: str
    client_id: str
    host: str
    member_epoch: int
    topics: tuple[str, ...]
    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupOffset:
    """A partition of a group. None where nothing is committed, or no member has it.

    `committed_ms`: milliseconds since 1970. `lag` counts offsets.
    """

    partition: TopicPartition
    offset: int | None
    log_end_offset: int | None
    lag: int | None
    metadata: str
    committed_ms: int | None
    member: MemberDescription | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupDescription:
    """A group: see GroupListing. `offsets` are in the order of topics and partitions."""

    group_id: str
    kind: str
    state: str
    group_epoch: int
    assignor: str
    members: tuple[MemberDescription, ...]
    offsets: tuple[GroupOffset, ...]

    @property
    def lag(self) -> int | None:
        """That of all partitions where it is known; None if it is nowhere, as where members keep offsets."""
        known = [offset.lag for offset in self.offsets if offset.lag is not None]
        return sum(known) if known or not self.offsets else None


def describe_member(member: MemberInfo, state: ClusterState) -> MemberDescription:
    """A member as the coordinator has it, with the topics' names."""
    return MemberDescription(
        member_id=member.member_id,
        instance_id=member.instance_id,
        client_id=member.client_id,
        host=member.host,
        member_epoch=member.member_epoch,
        topics=member.topics,
        partitions=tuple(
            TopicPartition(state.topics[assigned.topic_id].name, partition)
            for assigned in member.assigned
            if assigned.topic_id in state.topics
            for partition in assigned.partitions
        ),
    )


def describe_partition(index: int, partition: PartitionInfo) -> PartitionDescription:
    """A partition as the cluster state has it."""
    return PartitionDescription(
        partition=index,
        leader=None if partition.leader == NO_LEADER else partition.leader,
        leader_epoch=partition.leader_epoch,
        replicas=partition.replicas,
        isr=partition.isr,
        elr=partition.elr,
        target=partition.target,
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
        draining=node.draining,
    )


def describe_cluster(cluster_id: str, state: ClusterState, unclean_elections: int) -> ClusterDescription:
    """The whole state, without the topics' partitions."""
    return ClusterDescription(
        cluster_id=cluster_id,
        controller_epoch=state.controller_epoch,
        version=state.version,
        nodes=tuple(describe_node(state.nodes[node_id]) for node_id in sorted(state.nodes)),
        topics=tuple(sorted(state.topic_ids)),
        unclean_elections=unclean_elections,
    )


def describe_logs(node_id: int, described: LogsDescribed, state: ClusterState) -> NodeLogs:
    """A node's answer, with the topics' names."""
    logs = (_describe_log(log, state) for log in described.logs)
    return NodeLogs(
        node_id=node_id,
        used_bytes=described.used_bytes,
        quota_bytes=described.quota_bytes,
        full=described.full,
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
