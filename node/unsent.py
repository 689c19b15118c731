"""Replies that their connections have not taken yet: a peer that asks and does not read is found out.

ZeroMQ queues replies in memory, bounded by their number only. What is large is counted here, and
a connection that has too much of it gets no more until it has read.
"""

from collections import deque
from typing import Final

from tailrace.transport.server import Delivery

SWEEP_PEERS_MIN: Final = 64


class Unsent:
    """Bytes on their way, a peer and in all. Peers are forgotten once nothing is on its way to them."""

    def __init__(self, *, total_max: int, peer_max: int) -> None:
        self._total_max = total_max
        self._peer_max = peer_max
        self._replies: dict[bytes, deque[tuple[Delivery, int]]] = {}
        self._bytes: dict[bytes, int] = {}
        self._sweep_at = SWEEP_PEERS_MIN
        self.total = 0

    def __len__(self) -> int:
        """Peers that something was on its way to when last looked at."""
        return len(self._replies)

    def add(self, peer: bytes, delivery: Delivery, size: int) -> None:
        """A reply went out."""
        self._replies.setdefault(peer, deque()).append((delivery, size))
        self._bytes[peer] = self._bytes.get(peer, 0) + size
        self.total += size
        if len(self._replies) >= self._sweep_at:
            self._sweep()
            self._sweep_at = max(SWEEP_PEERS_MIN, 2 * len(self._replies))

    def allows(self, peer: bytes) -> bool:
        """May more be sent to the peer? At the bound or above it may not."""
        if not self.total:
            return True
        self._look(peer)
        if self.total >= self._total_max:
            self._sweep()
        return self.total < self._total_max and self._bytes.get(peer, 0) < self._peer_max

    def held(self, peer: bytes) -> int:
        """Bytes on their way to the peer, as last looked at."""
        return self._bytes.get(peer, 0)

    def _sweep(self) -> None:
        for peer in tuple(self._replies):
            self._look(peer)

    def _look(self, peer: bytes) -> None:
        replies = self._replies.get(peer)
        if replies is None:
            return
        # A connection takes its replies in order.
        while replies and replies[0][0].done:
            size = replies.popleft()[1]
            self._bytes[peer] -= size
            self.total -= size
        if not replies:
            del self._replies[peer], self._bytes[peer]
