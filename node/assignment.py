"""Which partitions this node leads, worked out from the cluster state. Pure.

Topic by topic: a change costs in proportion to the topics it touches, not to all there are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tailrace.protocol.cluster import ClusterState, TopicConfig, TopicInfo

from .storage.partition_log import PartitionKey


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do so that the node does what the state says."""

    lead: dict[PartitionKey, int] = field(default_factory=dict)
    """Partitions to lead from now on, with their leader epoch."""
    resign: list[PartitionKey] = field(default_factory=list)
    """Partitions that are led by another, or nobody, from now on."""
    drop: list[bytes] = field(default_factory=list)
    """Topics that were deleted."""
    configs: dict[bytes, TopicConfig] = field(default_factory=dict)
    """The configs of the topics with led partitions, as far as they were touched."""

    def __bool__(self) -> bool:
        return bool(self.lead or self.resign or self.drop or self.configs)


class Assignment:
    """The partitions that the node was last told to lead."""

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id
        self._led: dict[bytes, dict[int, int]] = {}

    def follow(
        self, cluster: ClusterState, topic_ids: Iterable[bytes] | None, deleted: Iterable[bytes]
    ) -> Plan:
        """Follow the state of the touched topics, or of all (None). Only `deleted` topics are dropped.

        A topic that is in no state and was not said to be deleted is resigned, and its logs stay.
        """
        plan = Plan(drop=[topic_id for topic_id in deleted if topic_id not in cluster.topics])
        touched = {*self._led, *cluster.topics} if topic_ids is None else set(topic_ids)
        for topic_id in sorted(touched.union(plan.drop)):
            topic = cluster.topics.get(topic_id)
            wanted = {} if topic is None else self._partitions(topic)
            led = self._led.get(topic_id, {})
            for partition, leader_epoch in wanted.items():
                if led.get(partition) != leader_epoch:
                    plan.lead[topic_id, partition] = leader_epoch
            plan.resign.extend((topic_id, partition) for partition in led.keys() - wanted.keys())
            if topic is not None and wanted:
                self._led[topic_id] = wanted
                plan.configs[topic_id] = topic.config
            else:
                self._led.pop(topic_id, None)
        return plan

    def epoch(self, key: PartitionKey) -> int | None:
        """The leader epoch in which the node is to lead the partition; None: it is not to."""
        topic_id, partition = key
        return self._led.get(topic_id, {}).get(partition)

    def _partitions(self, topic: TopicInfo) -> dict[int, int]:
        return {
            index: partition.leader_epoch
            for index, partition in enumerate(topic.partitions)
            if partition.leader == self._node_id
        }
