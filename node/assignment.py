"""What this node is to which partitions, worked out from the cluster state. Pure.

Topic by topic: a change costs in proportion to the topics it touches, not to all there are.
"""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from tailrace.protocol.cluster import NO_LEADER, ClusterState, PartitionInfo, TopicConfig, TopicInfo

from .storage.partition_log import PartitionKey
from .work import Role


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do so that the node does what the state says."""

    roles: dict[PartitionKey, Role] = field(default_factory=dict)
    """Partitions to lead or to follow from now on, otherwise than before."""
    resign: list[PartitionKey] = field(default_factory=list)
    """Partitions that are no longer led here, or not in the same way."""
    leave: list[PartitionKey] = field(default_factory=list)
    """Partitions that are no longer followed, or not in the same way."""
    drop: list[bytes] = field(default_factory=list)
    """Topics that were deleted."""
    released: dict[PartitionKey, int] = field(default_factory=dict)
    """Partitions that others hold, with logs here: the leader epoch in which they do."""
    configs: dict[bytes, TopicConfig] = field(default_factory=dict)
    """The configs of the topics with partitions here, as far as they were touched."""

    def __bool__(self) -> bool:
        return bool(self.roles or self.resign or self.leave or self.drop or self.released or self.configs)


class Assignment:
    """What the node was last told to lead and to follow."""

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id
        self._roles: dict[bytes, dict[int, Role]] = {}

    def follow(
        self,
        cluster: ClusterState,
        topic_ids: Iterable[bytes] | None,
        deleted: Iterable[bytes],
        held: Container[PartitionKey] = (),
    ) -> Plan:
        """Follow the state of the touched topics, or of all (None). Only `deleted` topics are dropped.

        A topic that is in no state and was not said to be deleted is resigned, and its logs stay. `held`
        have logs here: those of known topics of which this node is no replica are released.
        """
        plan = Plan(drop=[topic_id for topic_id in deleted if topic_id not in cluster.topics])
        touched = {*self._roles, *cluster.topics} if topic_ids is None else set(topic_ids)
        for topic_id in sorted(touched.union(plan.drop)):
            topic = cluster.topics.get(topic_id)
            wanted = {} if topic is None else self._partitions(topic)
            roles = self._roles.get(topic_id, {})
            for partition, role in wanted.items():
                if roles.get(partition) != role:
                    plan.roles[topic_id, partition] = role
            for partition, role in roles.items():
                after = wanted.get(partition)
                if role.source is not None and after != role:
                    plan.leave.append((topic_id, partition))
                elif role.source is None and (after is None or after.source is not None):
                    plan.resign.append((topic_id, partition))
            if topic is not None:
                plan.released.update(self._released(topic, roles, held))
            if topic is not None and wanted:
                self._roles[topic_id] = wanted
                plan.configs[topic_id] = topic.config
            else:
                self._roles.pop(topic_id, None)
        return plan

    def role(self, key: PartitionKey) -> Role | None:
        """What the node is to be to the partition; None: nothing."""
        topic_id, partition = key
        return self._roles.get(topic_id, {}).get(partition)

    def _partitions(self, topic: TopicInfo) -> dict[int, Role]:
        roles = ((index, self._role(partition)) for index, partition in enumerate(topic.partitions))
        return {index: role for index, role in roles if role is not None}

    def _released(
        self, topic: TopicInfo, roles: Container[int], held: Container[PartitionKey]
    ) -> Iterator[tuple[PartitionKey, int]]:
        """Where there is a role, a log is at least on its way."""
        for index, partition in enumerate(topic.partitions):
            key = topic.topic_id, index
            if self._node_id not in partition.replicas and (index in roles or key in held):
                yield key, partition.leader_epoch

    def _role(self, partition: PartitionInfo) -> Role | None:
        if self._node_id not in partition.replicas:
            return None
        if partition.leader == self._node_id:
            return Role(partition.leader_epoch, len(partition.replicas) == 1)
        if partition.leader == NO_LEADER:
            return None
        return Role(partition.leader_epoch, sole=False, source=partition.leader)
