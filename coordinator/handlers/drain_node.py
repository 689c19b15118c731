"""DrainNode: everything moves off a node, so that it can be stopped for good and removed.

- It is marked: no new partitions are placed on it, and it leads only what nobody else can.
- Each of its replicas moves to the node that has the least to carry, in another rack than the others
  if there is one. Where no other node is left the replica stays, and is counted as stuck: start more
  nodes and ask again.
- With `draining` False the mark goes. What moves already moves on; the node leads what draining ones led.
- May be asked of a dead node: its replicas are made anew elsewhere, but for those nobody else has.
"""

from msgspec.structs import replace

from tailrace.protocol.admin_messages import DrainNode, NodeDraining
from tailrace.protocol.cluster import NodeChanged, NodeInfo, PartitionChanged, PartitionInfo
from tailrace.protocol.errors import UnknownNodeError
from tailrace.protocol.limits import REPLICATION_FACTOR_MAX

from ..decision import Decision
from ..election import Rules, hand_over, move
from ..partition_changes import changed
from ..placement import substitute
from ..state import State
from .move_partitions import decision_of


def decide(state: State, request: DrainNode) -> Decision:
    """Raises UnknownNodeError, LimitExceededError."""
    node = state.cluster.nodes.get(request.node_id)
    if node is None:
        raise UnknownNodeError(f"there is no node {request.node_id}")
    marks = (
        () if node.draining == request.draining else (NodeChanged(replace(node, draining=request.draining)),)
    )
    if not request.draining:
        held = state.index.load(node.node_id).replicas
        reply = NodeDraining(request.request_id, held=held)
        draining = state.draining() - {node.node_id}
        led = changed(state, state.index.held_by(node.node_id), hand_over, draining=draining)
        return Decision(reply, (*marks, *led), notes=(f"node {node.node_id} is not draining any more",))
    plan = _Plan(state, node, max(0, request.throttle))
    draining = state.draining() | {node.node_id}
    changes = changed(state, state.index.held_by(node.node_id), plan.off, draining=draining)
    decision = decision_of(state, tuple(changes))
    held = state.index.load(node.node_id).replicas - sum(_has_left(change, node) for change in changes)
    return decision._replace(
        reply=NodeDraining(request.request_id, held=held, stuck=plan.stuck),
        changes=(*marks, *changes),
        notes=(f"node {node.node_id} is draining: {held} partitions to move, {plan.stuck} of them stuck",),
    )


def _has_left(change: PartitionChanged, node: NodeInfo) -> bool:
    return node.node_id not in change.partition.replicas


class _Plan:
    """Who takes over what a node holds; counts what is placed, so that it comes out even."""

    def __init__(self, state: State, node: NodeInfo, throttle: int) -> None:
        self._node_id = node.node_id
        self._throttle = throttle
        self._racks = state.racks()
        self._held = {n: load.replicas for n, load in state.loads().items() if n != node.node_id}
        self.stuck = 0

    def off(self, partition: PartitionInfo, rules: Rules) -> PartitionInfo:
        """The partition on its way to other nodes; led by another replica, if there is one, until then."""
        target = self._target(partition)
        moving = partition if target is None else move(partition, target, rules, self._throttle)
        after = hand_over(moving, rules)
        if after is partition or after is moving:
            return after
        return replace(after, partition_epoch=partition.partition_epoch + 1)

    def _target(self, partition: PartitionInfo) -> tuple[int, ...] | None:
        """None if it is to stay as it is: it leaves the node already, or cannot."""
        now = partition.settled_replicas
        if self._node_id not in now:
            return None
        others = [n for n in now if n != self._node_id]
        chosen = substitute(others, self._held, self._racks)
        if chosen is None or len({*partition.replicas, chosen}) > REPLICATION_FACTOR_MAX:
            self.stuck += 1
            return None
        self._held[chosen] += chosen not in partition.replicas
        return tuple(chosen if n == self._node_id else n for n in now)
