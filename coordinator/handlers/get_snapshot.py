"""GetSnapshot: the whole cluster state, and where its changes are published.

- Any client may ask at any time; it subscribes first, and applies what is newer (Clone pattern).
"""

from tailrace.protocol.cluster import Listener
from tailrace.protocol.messages import GetSnapshot, SnapshotTaken

from ..decision import Decision
from ..state import State


def decide(state: State, request: GetSnapshot, publisher: Listener) -> Decision:
    """Never fails."""
    return Decision(
        SnapshotTaken(
            request.request_id,
            cluster_id=state.cluster_id,
            publisher=publisher,
            snapshot=state.cluster.snapshot(),
            unclean_elections=state.unclean_elections,
            openings=state.openings,
        )
    )
