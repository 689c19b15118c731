"""Over which connection each node was heard last: whose has ended is missing, until it is heard again. Pure.

A living node whose connection broke has a new one within milliseconds, and beats over it at once. One that
does not come back may be gone, or cut off and in its lease still (RELIABILITY R13): `probing.py` tells.
"""

from collections.abc import Iterable


class NodeConnections:
    """The nodes that are alive, as far as they were heard since the coordinator started."""

    def __init__(self) -> None:
        self._peers: dict[int, bytes] = {}
        self.missing: set[int] = set()
        """Their connections have ended."""
        self._refused: set[int] = set()

    def hear(self, peer: bytes, node_id: int) -> None:
        """The node has asked for something over the connection `peer`."""
        self._peers[node_id] = peer
        self.missing.discard(node_id)
        self._refused.discard(node_id)

    def forget(self, node_id: int) -> None:
        """It is dead, or gone."""
        self._peers.pop(node_id, None)
        self.missing.discard(node_id)
        self._refused.discard(node_id)

    def gone(self, peers: Iterable[bytes]) -> None:
        """Connections have ended. May be told again of the same ones."""
        ended = set(peers)
        for node_id in [n for n, peer in self._peers.items() if peer in ended]:
            del self._peers[node_id]
            self.missing.add(node_id)

    def refused(self, node_ids: Iterable[int]) -> None:
        """The addresses of these nodes refuse connections: if they are missing, they are gone."""
        self._refused.update(self.missing.intersection(node_ids))

    def dead(self) -> list[int]:
        """The nodes that are gone for good; they stay here until `forget`."""
        return sorted(self._refused)
