"""Which nodes have been heard of lately. Pure: time comes in as `now`, in seconds of a monotonic clock.

Soft state: after a restart every node that is alive starts a full time-out.
"""


class Sessions:
    """The living nodes and when each was last heard of.

    A coordinator that was stopped itself (SIGSTOP, a paused machine) has not heard of anybody, and
    that is nobody's fault: when the last look is longer ago than half a time-out, every session
    starts anew.
    """

    def __init__(self, timeout_s: float, now: float) -> None:
        self._timeout_s = timeout_s
        self._looked = now
        self._heard: dict[int, float] = {}

    def hear(self, node_id: int, now: float) -> None:
        """The node has registered or sent a heartbeat."""
        self._heard[node_id] = now

    def end(self, node_id: int) -> None:
        """The node is dead, or gone."""
        self._heard.pop(node_id, None)

    def expired(self, now: float) -> list[int]:
        """The nodes to declare dead; they stay here until `end`."""
        if now - self._looked > self._timeout_s / 2:
            self._heard = dict.fromkeys(self._heard, now)
        self._looked = now
        return sorted(n for n, heard in self._heard.items() if now - heard >= self._timeout_s)

    def next_look(self) -> float | None:
        """When `expired` must be called at the latest; None while there are no sessions."""
        if not self._heard:
            return None
        return min(self._looked + self._timeout_s / 4, min(self._heard.values()) + self._timeout_s)
