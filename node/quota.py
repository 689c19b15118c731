"""How much of something each connection, and all of them together, may hold at a time.

Pure. One class, used for produce bytes that wait for the writer and for fetches that wait for an
answer. A peer that is gone holds what it holds until its work is done, and is forgotten then.
"""

from collections import defaultdict


class Quota:
    """Amounts held by peers. Amounts are whole numbers of any unit, one unit a quota."""

    def __init__(self, *, total_max: int, peer_max: int) -> None:
        self.total_max = total_max
        self.peer_max = peer_max
        self.total = 0
        self._held: defaultdict[bytes, int] = defaultdict(int)

    def take(self, peer: bytes, amount: int) -> bool:
        """Give `amount` to the peer if both bounds allow it; says whether they did."""
        if self.total + amount > self.total_max or self._held.get(peer, 0) + amount > self.peer_max:
            return False
        self.total += amount
        self._held[peer] += amount
        return True

    def release(self, peer: bytes, amount: int) -> None:
        """Take back what `take` gave. Never more than that."""
        left = self._held[peer] - amount
        assert left >= 0, "released more than was taken"
        self.total -= amount
        if left:
            self._held[peer] = left
        else:
            del self._held[peer]

    def held(self, peer: bytes) -> int:
        """What the peer holds now."""
        return self._held.get(peer, 0)

    def __len__(self) -> int:
        """Peers that hold anything: what bounds the memory of this object."""
        return len(self._held)
