"""LeaveIsr: a node cannot read or write the logs of some partitions, so its replicas of them do not count.

- Checked as a heartbeat is. Then each partition stands alone; the answer has the partition as it is then.
- The node leaves ISR and ELR (RELIABILITY R7), and another replica in sync leads. The leader epoch goes up
  also if it did not lead, or was not even in sync: what a leader knows of it in the old epoch is void, and a
  proposal that is on its way, so that it comes back only when it has caught up, in a log that can be written.
- The last one in sync stays, since it may have records that nobody else has: NOT_ENOUGH_REPLICAS.
"""

from tailrace.protocol.cluster import NO_LEADER, PartitionChanged, PartitionInfo
from tailrace.protocol.errors import (
    NotEnoughReplicasError,
    StaleNodeEpochError,
    TailraceError,
    UnknownPartitionError,
)
from tailrace.protocol.message import OK
from tailrace.protocol.replica_messages import IsrAltered, IsrResult, LeaveIsr
from tailrace.protocol.wire import error_info

from ..decision import Decision
from ..election import leave, rules_of
from ..partition_changes import partition_name
from ..state import State
from .heartbeat import check_epoch


def decide(state: State, request: LeaveIsr) -> Decision:
    """Raises UnknownNodeError, StaleNodeEpochError; what one partition is refused for is its result."""
    check_epoch(state, request.node_id, request.node_epoch)
    if not state.cluster.nodes[request.node_id].alive:
        raise StaleNodeEpochError(f"node {request.node_id} was declared dead: register anew")
    changes: dict[tuple[bytes, int], PartitionChanged] = {}
    results = []
    for place in request.replicas:
        current = None
        try:
            current = _current(state, place.topic_id, place.partition)
            after = _without(state, request.node_id, place.topic_id, place.partition, current)
        except TailraceError as error:
            results.append(IsrResult(error_info(error), current))
            continue
        if after is not current:
            changes[place.topic_id, place.partition] = PartitionChanged(
                place.topic_id, place.partition, after
            )
        results.append(IsrResult(OK, after))
    return Decision(
        IsrAltered(request.request_id, results=results),
        tuple(changes.values()),
        warnings=tuple(_warning(state, request.node_id, change) for change in changes.values()),
    )


def _current(state: State, topic_id: bytes, index: int) -> PartitionInfo:
    topic = state.cluster.topics.get(topic_id)
    if topic is None or index >= len(topic.partitions):
        raise UnknownPartitionError(f"there is no partition {index} of topic id {topic_id.hex()}")
    return topic.partitions[index]


def _without(
    state: State, node_id: int, topic_id: bytes, index: int, current: PartitionInfo
) -> PartitionInfo:
    if node_id not in current.replicas:
        return current
    others = (*current.isr, *current.elr) if current.leader == NO_LEADER else current.isr
    if set(others) == {node_id}:
        name = partition_name(state, topic_id, index)
        raise NotEnoughReplicasError(f"{name}: nobody but node {node_id} is in sync")
    config = state.cluster.topics[topic_id].config
    return leave(current, node_id, rules_of(config, state.alive(), state.draining()))


def _warning(state: State, node_id: int, change: PartitionChanged) -> str:
    name = partition_name(state, change.topic_id, change.index)
    leader = change.partition.leader
    return f"node {node_id} has a fault in its log of {name}: it is out of sync, node {leader} leads"
