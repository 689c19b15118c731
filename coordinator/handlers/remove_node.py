"""RemoveNode: the cluster forgets a node.

- It must hold nothing: not even what moves off it.
- It must be dead, or draining. One that still runs when it is removed registers anew, as a new node.
"""

from tailrace.protocol.admin_messages import NodeForgotten, RemoveNode
from tailrace.protocol.cluster import NodeRemoved
from tailrace.protocol.errors import InvalidArgumentError, UnknownNodeError
from tailrace.protocol.text import plural

from ..decision import Decision
from ..state import State


def decide(state: State, request: RemoveNode) -> Decision:
    """Raises UnknownNodeError, InvalidArgumentError."""
    node = state.cluster.nodes.get(request.node_id)
    if node is None:
        raise UnknownNodeError(f"there is no node {request.node_id}")
    if held := state.index.load(node.node_id).replicas:
        raise InvalidArgumentError(
            f"node {node.node_id} holds {plural(held, 'partition')}: drain it first, and wait until it holds "
            "none"
        )
    if node.alive and not node.draining:
        raise InvalidArgumentError(f"node {node.node_id} is alive: drain it or stop it first")
    return Decision(
        NodeForgotten(request.request_id),
        (NodeRemoved(node.node_id),),
        notes=(f"node {node.node_id} removed",),
    )
