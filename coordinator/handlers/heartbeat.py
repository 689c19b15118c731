"""Heartbeat: a node lives, and says up to which version it has applied the cluster state.

- A node that nobody registered: UNKNOWN_NODE.
- Another epoch than the registered one, or a node that was declared dead: STALE_NODE_EPOCH; it
  must register anew.
- LeaveCluster has the same checks.
"""

from tailrace.protocol.errors import StaleNodeEpochError, UnknownNodeError
from tailrace.protocol.messages import Heartbeat, HeartbeatSeen

from ..decision import Decision
from ..state import State


def decide(state: State, request: Heartbeat) -> Decision:
    """Raises UnknownNodeError, StaleNodeEpochError."""
    check_epoch(state, request.node_id, request.node_epoch)
    if not state.cluster.nodes[request.node_id].alive:
        raise StaleNodeEpochError(f"node {request.node_id} was declared dead: register anew")
    return Decision(HeartbeatSeen(request.request_id, controller_epoch=state.cluster.controller_epoch))


def check_epoch(state: State, node_id: int, node_epoch: int) -> None:
    """Raises UnknownNodeError, StaleNodeEpochError."""
    node = state.cluster.nodes.get(node_id)
    if node is None:
        raise UnknownNodeError(f"node {node_id} is not registered: register first")
    if node.node_epoch != node_epoch:
        raise StaleNodeEpochError(
            f"node {node_id} is registered in epoch {node.node_epoch}, not {node_epoch}: register anew"
        )
