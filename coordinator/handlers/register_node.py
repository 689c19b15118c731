"""RegisterNode: a node has started and offers its storage.

- Each registration gives the node a new epoch: the version that holds it.
- The same storage under the same id: the session is taken over at once, whatever it was.
- Other storage while the registered node is alive: refused, NODE_ID_IN_USE.
- Other storage for a dead node: accepted; what only the old one held is reported as lost.
- A node with other storage, or with an older copy of its own, or one that was killed in a mode in which it
  may lack what it acknowledged then (`durable` and `clean` are both false), leaves ISR and ELR of whatever
  it is not the sole replica of, until it has caught up. What it may have lost as a sole replica is reported.
- With other storage it has nothing: that it is back is no reason for an unclean election while a replica that
  was in sync may return.
- What the node led, it leads again in a new epoch (or another in-sync replica does).
- A node that was draining is draining still.
- The reply tells which of the node's logs belong to deleted topics. Logs of topics that nobody
  knows are kept and reported: the coordinator may have lost its store, the node has not.
"""

from typing import NamedTuple

from tailrace.protocol.cluster import NO_LEADER, NodeChanged, NodeInfo, PartitionChanged, PartitionInfo
from tailrace.protocol.errors import InvalidArgumentError, LimitExceededError, NodeIdInUseError
from tailrace.protocol.limits import NODES_MAX, SNAPSHOT_BYTES_MAX
from tailrace.protocol.messages import NodeRegistered, RegisterNode
from tailrace.protocol.text import plural

from ..decision import Decision
from ..election import Rules, is_sole_replica, return_node
from ..partition_changes import changed, named, partition_name, unclean, unclean_warnings
from ..snapshot_size import node_bytes
from ..state import State


class Doubt(NamedTuple):
    """Why a node may lack what it acknowledged, and what of it. `strange`: not a mere crash."""

    cause: str
    loss: str = "the last records"
    strange: bool = True


def decide(state: State, request: RegisterNode, session_timeout_ms: int) -> Decision:
    """Raises InvalidArgumentError, NodeIdInUseError, LimitExceededError.

    The snapshot of the reply is filled in once the changes are applied.
    """
    known = state.cluster.nodes.get(request.node_id)
    _check(state, request, known)
    node = NodeInfo(
        request.node_id,
        state.cluster.version + 1,
        request.listener,
        request.storage_id,
        True,
        request.rack,
        known is not None and known.draining,
        request.openings[-1] if request.openings else 0,
    )
    doubt = _doubt(request, known)
    intact = doubt is None
    empty = known is not None and known.storage_id != request.storage_id
    elections = _elections(state, node.node_id, intact=intact, empty=empty)
    risked = _risked(state, node.node_id, elections, intact=intact)
    unknown = [
        topic_id
        for topic_id in request.topic_ids
        if topic_id not in state.cluster.topics and topic_id not in state.tombstones
    ]
    return Decision(
        reply=NodeRegistered(
            request.request_id,
            node=node,
            session_timeout_ms=session_timeout_ms,
            deleted_topics=[topic_id for topic_id in request.topic_ids if topic_id in state.tombstones],
        ),
        changes=(NodeChanged(node), *elections),
        warnings=(
            *([] if doubt is None else _lost(state, node.node_id, doubt)),
            *_leaderless(state, node.node_id, elections),
            *(_waiting(state, node.node_id, elections) if empty else ()),
            *unclean_warnings(state, risked),
            *_orphaned(node, unknown),
        ),
        notes=(
            f"node {node.node_id} registered at {node.listener.tcp} in epoch {node.node_epoch}"
            + ("" if request.clean else ", after an unclean stop"),
        ),
        unclean=len(risked),
    )


def _doubt(request: RegisterNode, known: NodeInfo | None) -> Doubt | None:
    """None: the node has all that it ever acknowledged."""
    if known is not None and known.storage_id != request.storage_id:
        storage = f"{request.storage_id}, before {known.storage_id}"
        return Doubt(f"came back with other storage ({storage})", "all records")
    if known is not None and known.opening and known.opening not in request.openings:
        return Doubt("came back with an older copy of its storage")
    if not (request.clean or request.durable):
        return Doubt("was killed before all that it had acknowledged was on its disk", strange=False)
    return None


def _check(state: State, request: RegisterNode, known: NodeInfo | None) -> None:
    if request.node_id < 0 or not request.listener.tcp or not request.storage_id:
        raise InvalidArgumentError("a node registers with an id from 0, a tcp endpoint and a storage id")
    if known is not None and known.alive and known.storage_id != request.storage_id:
        raise NodeIdInUseError(
            f"node {request.node_id} is alive at {known.listener.tcp} with other storage: give this node "
            "another id, or stop the other one"
        )
    if known is None and len(state.cluster.nodes) >= NODES_MAX:
        raise LimitExceededError(f"the cluster has {NODES_MAX} nodes, which is the most that is possible")
    asked = NodeInfo(0, 0, request.listener, request.storage_id, True, request.rack)
    freed = node_bytes(known) if known is not None else 0
    if state.snapshot_bytes - freed + node_bytes(asked) > SNAPSHOT_BYTES_MAX:
        raise LimitExceededError("the cluster state has no room for another node: delete topics")


def _elections(state: State, node_id: int, *, intact: bool, empty: bool) -> list[PartitionChanged]:
    def come_back(partition: PartitionInfo, rules: Rules) -> PartitionInfo:
        return return_node(partition, node_id, rules, intact=intact, empty=empty)

    return changed(state, state.index.held_by(node_id), come_back)


def _risked(
    state: State, node_id: int, elections: list[PartitionChanged], *, intact: bool
) -> list[PartitionChanged]:
    """Unclean elections. That a sole replica leads is none: what it may have lost is told by `_lost`."""
    if intact:
        return unclean(state, elections)
    return [
        change
        for change in unclean(state, elections, {node_id})
        if not is_sole_replica(state.cluster.topics[change.topic_id].partitions[change.index], node_id)
    ]


def _lost(state: State, node_id: int, doubt: Doubt) -> list[str]:
    """A possible loss is never silent."""
    lost = []
    for topic_id, indexes in state.index.held_by(node_id):
        partitions = state.cluster.topics[topic_id].partitions
        sole = (i for i in indexes if is_sole_replica(partitions[i], node_id))
        lost += [partition_name(state, topic_id, i) for i in sole]
    if lost:
        which = f"{plural(len(lost), 'partition')} that only it holds"
        return [f"node {node_id} {doubt.cause}: {doubt.loss} of {which} may be lost: {named(lost)}"]
    return [f"node {node_id} {doubt.cause}"] if doubt.strange else []


def _leaderless(state: State, node_id: int, elections: list[PartitionChanged]) -> list[str]:
    """Nobody waits for a replica that is not eligible any more without being told."""
    names = [
        partition_name(state, change.topic_id, change.index)
        for change in elections
        if change.partition.leader == NO_LEADER and not {*change.partition.isr, *change.partition.elr}
    ]
    if not names:
        return []
    return [
        f"node {node_id} was the last that could have led {len(names)} partitions without loss, and may lack "
        f"records now: {named(names)}. Set unclean_leader_election=true to lead them with what there is"
    ]


def _waiting(state: State, node_id: int, elections: list[PartitionChanged]) -> list[str]:
    """What an empty node could lead, at the price of all records, where a topic allows unclean elections."""
    after = {(change.topic_id, change.index): change.partition for change in elections}
    names = []
    for topic_id, indexes in state.index.held_by(node_id):
        topic = state.cluster.topics[topic_id]
        partitions = ((i, after.get((topic_id, i), topic.partitions[i])) for i in indexes)
        if topic.config.unclean_leader_election:
            names += [partition_name(state, topic_id, i) for i, p in partitions if p.leader == NO_LEADER]
    if not names:
        return []
    return [
        f"node {node_id} has nothing, and leads nothing for which a replica that was in sync may return, in "
        f"{plural(len(names), 'partition')}: {named(names)}. If none will, set unclean_leader_election=false "
        "and then true"
    ]


def _orphaned(node: NodeInfo, unknown: list[bytes]) -> list[str]:
    if not unknown:
        return []
    return [
        f"node {node.node_id} holds logs of {len(unknown)} topics that this cluster does not know and "
        f"keeps them: {named([topic_id.hex() for topic_id in unknown])}"
    ]
