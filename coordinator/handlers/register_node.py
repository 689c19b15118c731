"""RegisterNode: a node has started and offers its storage.

- Each registration gives the node a new epoch: the version that holds it.
- The same storage under the same id: the session is taken over at once, whatever it was.
- Other storage while the registered node is alive: refused, NODE_ID_IN_USE.
- Other storage for a dead node: accepted; what only the old one held is reported as lost.
- What the node led, it leads again in a new epoch (or another in-sync replica does).
- The reply tells which of the node's logs belong to deleted topics. Logs of topics that nobody
  knows are kept and reported: the coordinator may have lost its store, the node has not.
"""

from tailrace.protocol.cluster import NodeChanged, NodeInfo, PartitionChanged
from tailrace.protocol.errors import InvalidArgumentError, LimitExceededError, NodeIdInUseError
from tailrace.protocol.limits import NODES_MAX, SNAPSHOT_BYTES_MAX
from tailrace.protocol.messages import NodeRegistered, RegisterNode

from ..decision import Decision
from ..election import return_node
from ..snapshot_size import node_bytes
from ..state import State

_NAMED_MAX = 10


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
    )
    same_storage = known is None or known.storage_id == request.storage_id
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
        changes=(NodeChanged(node), *_elections(state, node.node_id, same_storage)),
        warnings=(*_replaced(state, node, same_storage), *_orphaned(node, unknown)),
        notes=(
            f"node {node.node_id} registered at {node.listener.tcp} in epoch {node.node_epoch}"
            + ("" if request.clean else ", after an unclean stop"),
        ),
    )


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


def _elections(state: State, node_id: int, same_storage: bool) -> list[PartitionChanged]:
    alive = state.alive()
    changes = []
    for topic_id, indexes in state.index.held_by(node_id):
        topic = state.cluster.topics[topic_id]
        for index in indexes:
            old = topic.partitions[index]
            minimum = topic.config.min_insync_replicas
            new = return_node(old, node_id, alive, minimum, same_storage=same_storage)
            if new is not old:
                changes.append(PartitionChanged(topic_id, index, new))
    return changes


def _replaced(state: State, node: NodeInfo, same_storage: bool) -> list[str]:
    """A possible loss is never silent."""
    if same_storage:
        return []
    old = state.cluster.nodes[node.node_id].storage_id
    lost = []
    for topic_id, indexes in state.index.held_by(node.node_id):
        topic = state.cluster.topics[topic_id]
        lost += [f"{topic.name}-{i}" for i in indexes if topic.partitions[i].replicas == (node.node_id,)]
    message = f"node {node.node_id} came back with other storage ({node.storage_id}, before {old})"
    if not lost:
        return [message]
    names = ", ".join(lost[:_NAMED_MAX]) + (", ..." if len(lost) > _NAMED_MAX else "")
    return [f"{message}: the records of {len(lost)} partitions were only on the old one: {names}"]


def _orphaned(node: NodeInfo, unknown: list[bytes]) -> list[str]:
    if not unknown:
        return []
    names = ", ".join(topic_id.hex() for topic_id in unknown[:_NAMED_MAX])
    return [
        f"node {node.node_id} holds logs of {len(unknown)} topics that this cluster does not know and "
        f"keeps them: {names}{', ...' if len(unknown) > _NAMED_MAX else ''}"
    ]
