"""Over which connection each node was heard last: whose has ended and not been replaced is dead.

Pure: time comes in as `now`, in seconds of a monotonic clock. A process that is killed closes its
connections, which the coordinator sees within milliseconds; one whose connection broke has a new one
about as soon, and beats over it at once. A machine that loses its power closes nothing: that takes the
session's time-out.
"""

from collections.abc import Iterable
from typing import Final

RECONNECT_GRACE_S: Final = 0.25
"""A living node has reconnected after some 10 ms, and has then to ask for a snapshot before it beats."""


class NodeConnections:
    """The nodes that are alive, as far as they were heard since the coordinator started.

    A coordinator that was stopped itself has not heard who reconnected: when the last look is longer ago than
    the grace, everybody has it anew.
    """

    def __init__(self) -> None:
        self._peers: dict[int, bytes] = {}
        self._lost: dict[int, float] = {}
        self._looked = 0.0

    def hear(self, peer: bytes, node_id: int) -> None:
        """The node has asked for something over the connection `peer`."""
        self._peers[node_id] = peer
        self._lost.pop(node_id, None)

    def forget(self, node_id: int) -> None:
        """It is dead, or gone."""
        self._peers.pop(node_id, None)
        self._lost.pop(node_id, None)

    def gone(self, peers: Iterable[bytes], now: float) -> None:
        """Connections have ended. May be told again of the same ones."""
        ended = set(peers)
        for node_id in [n for n, peer in self._peers.items() if peer in ended]:
            del self._peers[node_id]
            if not self._lost:
                self._looked = now
            self._lost[node_id] = now

    def expired(self, now: float) -> list[int]:
        """The nodes that have not come back; they stay here until `forget`."""
        if now - self._looked > RECONNECT_GRACE_S:
            self._lost = dict.fromkeys(self._lost, now)
        self._looked = now
        return sorted(n for n, lost in self._lost.items() if now - lost >= RECONNECT_GRACE_S)

    def next_look(self) -> float | None:
        """When `expired` must be called at the latest; None while nobody is missed."""
        if not self._lost:
            return None
        return min(self._looked + RECONNECT_GRACE_S / 2, min(self._lost.values()) + RECONNECT_GRACE_S)
