"""LeaveCluster: a node stops. It is dead at once, instead of after its session.

- Checked as a heartbeat is; to leave twice is no error.
- `die` is also what is decided for nodes whose sessions have timed out.
"""

from collections.abc import Collection

from msgspec.structs import replace

from tailrace.protocol.cluster import NodeChanged
from tailrace.protocol.messages import ClusterLeft, LeaveCluster

from ..decision import Decision
from ..election import settle
from ..partition_changes import changed, unclean, unclean_warnings
from ..state import State
from .heartbeat import check_epoch


def decide(state: State, request: LeaveCluster) -> Decision:
    """Raises UnknownNodeError, StaleNodeEpochError."""
    check_epoch(state, request.node_id, request.node_epoch)
    reply = ClusterLeft(request.request_id)
    if not state.cluster.nodes[request.node_id].alive:
        return Decision(reply)
    decision = die(state, {request.node_id})
    return decision._replace(reply=reply, notes=(f"node {request.node_id} left",))


def die(state: State, node_ids: Collection[int]) -> Decision:
    """Mark living nodes dead, and elect others for what they led."""
    held: dict[bytes, set[int]] = {}
    for node_id in node_ids:
        for topic_id, indexes in state.index.held_by(node_id):
            held.setdefault(topic_id, set()).update(indexes)
    places = [(topic_id, sorted(indexes)) for topic_id, indexes in held.items()]
    elections = changed(state, places, settle, alive=state.alive().difference(node_ids))
    deaths = (NodeChanged(replace(state.cluster.nodes[node_id], alive=False)) for node_id in node_ids)
    risked = unclean(state, elections)
    return Decision(
        changes=(*deaths, *elections), warnings=unclean_warnings(state, risked), unclean=len(risked)
    )
