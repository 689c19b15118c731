"""How far moves of partitions are, from the cluster state and from what nodes hold. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from tailrace.protocol.cluster import ClusterState, PartitionInfo

from .descriptions import NodeLogs


@dataclass(frozen=True, kw_only=True, slots=True)
class MoveDescription:
    """A partition on its way from the nodes `former` to the nodes `target`, held by all of `replicas`.

    `waiting` are those of the target that are not in sync yet; they have copied `copied_bytes` of the
    leader's log, and lack `left_bytes`. Both are 0 while a node does not say what it holds, and as long
    as there is no leader. A node copies at most `throttle_bytes_per_s` for moves; 0 for no bound.
    """

    topic: str
    partition: int
    former: tuple[int, ...]
    replicas: tuple[int, ...]
    target: tuple[int, ...]
    waiting: tuple[int, ...]
    copied_bytes: int
    left_bytes: int
    throttle_bytes_per_s: int


Sizes = Mapping[tuple[int, str | None, int], int]


def sizes_of(logs: Mapping[int, NodeLogs]) -> Sizes:
    """Bytes of each log: by node, topic and partition."""
    return {
        (node_id, log.topic, log.partition): log.size_bytes
        for node_id, held in logs.items()
        for log in held.logs
    }


def moving(state: ClusterState) -> list[tuple[str, int, PartitionInfo]]:
    """The partitions that move: topic, number and what is known of them, in order."""
    return [
        (topic.name, index, partition)
        for topic in sorted(state.topics.values(), key=lambda topic: topic.name)
        for index, partition in enumerate(topic.partitions)
        if partition.target
    ]


def describe_move(topic: str, index: int, partition: PartitionInfo, sizes: Sizes) -> MoveDescription:
    """How far one of them is."""
    waiting = tuple(n for n in partition.target if n not in partition.isr)
    size = sizes.get((partition.leader, topic, index))
    held = [sizes.get((n, topic, index), 0) for n in waiting] if size is not None else []
    return MoveDescription(
        topic=topic,
        partition=index,
        former=partition.former,
        replicas=partition.replicas,
        target=partition.target,
        waiting=waiting,
        copied_bytes=sum(min(each, size or 0) for each in held),
        left_bytes=sum(max(0, (size or 0) - each) for each in held),
        throttle_bytes_per_s=partition.throttle,
    )
