"""MovePartitions: partitions get other replicas, without a pause and without loss (KIP-455).

- All or none: what is wrong with one of the moves refuses the request, and the message names it.
- The new replicas are added to the old ones and catch up; when all of the target are in the ISR, the
  others leave (`alter_isr.py`), and another leads if the leader goes. Where they are in sync already, as
  when only the order changes, that is now. Who has left deletes its log; so a new leader epoch begins.
- A partition that is moving gets the new target; with the replicas that it had, the move is called off.
- `throttle` goes with each of the moves; asked again with the same target, it only changes that.
- A node that is to be added must be alive, not draining, and have room. Fewer replicas than
  `min_insync_replicas` are refused: nothing could be written.
"""

from collections import Counter

from tailrace.protocol.admin_messages import MovePartitions, PartitionMove, PartitionsMoving
from tailrace.protocol.cluster import PartitionChanged, PartitionInfo, TopicInfo
from tailrace.protocol.errors import (
    InvalidArgumentError,
    LimitExceededError,
    NotEnoughNodesError,
    UnknownNodeError,
    UnknownPartitionError,
    UnknownTopicError,
)
from tailrace.protocol.limits import PARTITIONS_PER_NODE_MAX, REPLICATION_FACTOR_MAX, SNAPSHOT_BYTES_MAX
from tailrace.protocol.text import nodes_named

from ..decision import Decision
from ..election import move, rules_of
from ..partition_changes import partition_name
from ..snapshot_size import partition_bytes
from ..state import State


def decide(state: State, request: MovePartitions) -> Decision:
    """Raises UnknownTopicError, UnknownPartitionError, UnknownNodeError, InvalidArgumentError,
    NotEnoughNodesError, LimitExceededError.
    """
    alive, draining = state.alive(), state.draining()
    throttle = max(0, request.throttle)
    changes: dict[tuple[bytes, int], PartitionChanged] = {}
    added: Counter[int] = Counter()
    for asked in request.moves:
        topic = _topic(state, asked)
        name = partition_name(state, asked.topic_id, asked.partition)
        if (asked.topic_id, asked.partition) in changes:
            raise InvalidArgumentError(f"{name} is named twice")
        before = topic.partitions[asked.partition]
        _check_target(state, name, asked.replicas, topic.config.min_insync_replicas)
        new = set(asked.replicas).difference(before.replicas)
        _check_added(state, name, new, draining)
        added.update(new)
        rules = rules_of(topic.config, alive, draining)
        after = move(before, asked.replicas, rules, throttle)
        if len(after.replicas) > REPLICATION_FACTOR_MAX:
            raise LimitExceededError(
                f"{name} would have {len(after.replicas)} replicas while it moves, at most "
                f"{REPLICATION_FACTOR_MAX} are possible: move it in two steps"
            )
        if after is not before:
            changes[asked.topic_id, asked.partition] = PartitionChanged(
                asked.topic_id, asked.partition, after
            )
    _check_room(state, added)
    moving = sum(bool(change.partition.target) for change in changes.values())
    reply = PartitionsMoving(request.request_id, moving=moving)
    return decision_of(state, tuple(changes.values()))._replace(reply=reply)


def decision_of(state: State, changes: tuple[PartitionChanged, ...]) -> Decision:
    """Partitions move. Raises LimitExceededError when the cluster state has no room for it."""
    grown = sum(partition_bytes(c.partition) - partition_bytes(_before(state, c)) for c in changes)
    if grown > 0 and state.snapshot_bytes + grown > SNAPSHOT_BYTES_MAX:
        raise LimitExceededError("the cluster state has no room for so many moves at once: move fewer")
    return Decision(
        changes=changes,
        notes=tuple(
            f"{partition_name(state, change.topic_id, change.index)} moves to "
            f"{nodes_named(change.partition.settled_replicas)}"
            for change in changes
        ),
    )


def _before(state: State, change: PartitionChanged) -> PartitionInfo:
    return state.cluster.topics[change.topic_id].partitions[change.index]


def _topic(state: State, asked: PartitionMove) -> TopicInfo:
    topic = state.cluster.topics.get(asked.topic_id)
    if topic is None:
        raise UnknownTopicError(f"there is no topic of id {asked.topic_id.hex()}")
    if asked.partition >= len(topic.partitions):
        raise UnknownPartitionError(f"topic {topic.name!r} has no partition {asked.partition}")
    return topic


def _check_target(state: State, name: str, target: tuple[int, ...], min_insync: int) -> None:
    if not target or len(set(target)) < len(target):
        raise InvalidArgumentError(f"{name}: {target} must name at least one node, and none twice")
    if len(target) < min_insync:
        raise InvalidArgumentError(
            f"{name}: min_insync_replicas is {min_insync}: with {len(target)} nothing could be written"
        )
    for node_id in target:
        if node_id not in state.cluster.nodes:
            raise UnknownNodeError(f"{name}: there is no node {node_id}")


def _check_added(state: State, name: str, new: set[int], draining: set[int]) -> None:
    for node_id in sorted(new):
        if not state.cluster.nodes[node_id].alive:
            raise NotEnoughNodesError(f"{name}: node {node_id} is not alive, so it cannot get a replica")
        if node_id in draining:
            raise InvalidArgumentError(f"{name}: node {node_id} is draining; cancel that first")


def _check_room(state: State, added: Counter[int]) -> None:
    for node_id, count in added.items():
        held = state.index.load(node_id).replicas
        if held + count > PARTITIONS_PER_NODE_MAX:
            raise LimitExceededError(
                f"node {node_id} holds {held} partitions; {count} more would be over the "
                f"{PARTITIONS_PER_NODE_MAX} that are possible"
            )
