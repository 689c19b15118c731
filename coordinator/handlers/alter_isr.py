"""AlterIsr: the leaders of partitions tell who is in sync (KIP-497).

- Checked as a heartbeat is. Then each proposal stands alone: it is made only if the sender leads the
  partition in this leader epoch and has seen it as it is now (the partition epoch). Else the answer has
  the partition as it is.
- A member that was not in the ISR before may enter if it is alive, and was seen by the leader in the
  node epoch that it has now: a process that has started again since may lack what its log had
  (KIP-841, KIP-903). If it is not so, what the leader knows is old: STALE_PARTITION_EPOCH.
- The leader stays in. Who leaves goes to the ELR while fewer than `min_insync_replicas` are left.
- A partition whose target replicas are all in sync has moved: the others leave it.
"""

from collections.abc import Mapping

from tailrace.protocol.cluster import PartitionChanged, PartitionInfo
from tailrace.protocol.errors import (
    FencedLeaderEpochError,
    InvalidArgumentError,
    NotLeaderError,
    StaleNodeEpochError,
    StalePartitionEpochError,
    TailraceError,
    UnknownPartitionError,
    UnknownTopicError,
)
from tailrace.protocol.message import OK
from tailrace.protocol.replica_messages import AlterIsr, IsrAltered, IsrProposal, IsrResult
from tailrace.protocol.text import nodes_named
from tailrace.protocol.wire import error_info

from ..decision import Decision
from ..election import Rules, change_isr, rules_of
from ..partition_changes import partition_name
from ..state import State
from .heartbeat import check_epoch

Place = tuple[bytes, int]


def decide(state: State, request: AlterIsr) -> Decision:
    """Raises UnknownNodeError, StaleNodeEpochError; what one proposal is refused for is its result."""
    check_epoch(state, request.node_id, request.node_epoch)
    if not state.cluster.nodes[request.node_id].alive:
        raise StaleNodeEpochError(f"node {request.node_id} was declared dead: register anew")
    alive, draining = state.alive(), state.draining()
    made: dict[Place, PartitionInfo] = {}
    results = []
    for proposal in request.proposals:
        current = None
        try:
            current = _current(state, proposal, made)
            rules = rules_of(state.cluster.topics[proposal.topic_id].config, alive, draining)
            altered = _alter(state, request, proposal, current, rules)
        except TailraceError as error:
            results.append(IsrResult(error_info(error), current))
            continue
        if altered is not current:
            made[proposal.topic_id, proposal.partition] = altered
        results.append(IsrResult(OK, altered))
    changes = tuple(PartitionChanged(*place, partition) for place, partition in made.items())
    return Decision(IsrAltered(request.request_id, results=results), changes, notes=_moved(state, made))


def _current(state: State, proposal: IsrProposal, made: Mapping[Place, PartitionInfo]) -> PartitionInfo:
    """The partition, with what proposals before have made of it."""
    topic = state.cluster.topics.get(proposal.topic_id)
    if topic is None:
        raise UnknownTopicError(f"there is no topic of id {proposal.topic_id.hex()}")
    if proposal.partition >= len(topic.partitions):
        raise UnknownPartitionError(f"topic {topic.name!r} has no partition {proposal.partition}")
    return made.get((proposal.topic_id, proposal.partition), topic.partitions[proposal.partition])


def _alter(
    state: State, request: AlterIsr, proposal: IsrProposal, current: PartitionInfo, rules: Rules
) -> PartitionInfo:
    name = partition_name(state, proposal.topic_id, proposal.partition)
    if proposal.leader_epoch < current.leader_epoch:
        raise FencedLeaderEpochError(
            f"{name} is in leader epoch {current.leader_epoch}, not {proposal.leader_epoch} any more"
        )
    if current.leader != request.node_id or proposal.leader_epoch != current.leader_epoch:
        raise NotLeaderError(f"node {request.node_id} does not lead {name}; node {current.leader} does")
    _check_partition_epoch(name, proposal, current)
    if not {current.leader} <= set(proposal.isr) <= set(current.replicas):
        raise InvalidArgumentError(
            f"{name}: {proposal.isr} is no ISR of replicas {current.replicas} with leader {current.leader}"
        )
    for node_id in set(proposal.isr).difference(current.isr):
        _check_entry(state, name, node_id, request.member_epochs)
    return change_isr(current, set(proposal.isr), rules)


def _check_partition_epoch(name: str, proposal: IsrProposal, current: PartitionInfo) -> None:
    if proposal.partition_epoch != current.partition_epoch:
        raise StalePartitionEpochError(
            f"{name} is in partition epoch {current.partition_epoch}, not {proposal.partition_epoch}"
        )


def _check_entry(state: State, name: str, node_id: int, seen_epochs: Mapping[int, int]) -> None:
    node, seen = state.cluster.nodes.get(node_id), seen_epochs.get(node_id)
    if node is None or not node.alive:
        raise StalePartitionEpochError(f"{name}: node {node_id} is not alive, so it is not in sync")
    if node.node_epoch != seen:
        raise StalePartitionEpochError(
            f"{name}: node {node_id} is in node epoch {node.node_epoch}, not {seen}: it has started anew"
        )


def _moved(state: State, made: Mapping[Place, PartitionInfo]) -> tuple[str, ...]:
    return tuple(
        f"{partition_name(state, topic_id, index)} has moved to {nodes_named(after.replicas)}"
        for (topic_id, index), after in made.items()
        if state.cluster.topics[topic_id].partitions[index].target and not after.target
    )
