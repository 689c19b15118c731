"""Whether nodes whose connection has ended are gone: their address refuses a new one.

A process that was killed closes its sockets, and the coordinator knows within milliseconds. One that is
only cut off, or stopped, refuses nothing: it may serve its lease, and its session has to time out.
Time comes in as `now`, in seconds of a monotonic clock.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

from tailrace.protocol.cluster import Listener

LOOK_S: Final = 0.01
"""Between two looks at attempts that nobody has answered."""
RETRY_S: Final = 0.1
"""After this time an attempt is given up for a new one: the process may have ended since."""


class Attempt(Protocol):
    """As `transport.probe.Probe`."""

    @property
    def refused(self) -> bool:
        """No process listens there."""

    def close(self) -> None:
        """Give it up."""


class _Probed(NamedTuple):
    listener: Listener
    attempt: Attempt
    until: float


class Probing:
    """One attempt at a time for each missing node."""

    def __init__(self, connect: Callable[[Listener], Attempt]) -> None:
        self._connect = connect
        self._probed: dict[int, _Probed] = {}

    def refused(self, missing: Mapping[int, Listener], now: float) -> list[int]:
        """Those of the missing nodes that are gone for good."""
        for node_id, probed in tuple(self._probed.items()):
            if now >= probed.until or missing.get(node_id) != probed.listener:
                probed.attempt.close()
                del self._probed[node_id]
        for node_id, listener in missing.items():
            if node_id not in self._probed:
                self._probed[node_id] = _Probed(listener, self._connect(listener), now + RETRY_S)
        return sorted(node_id for node_id, probed in self._probed.items() if probed.attempt.refused)

    def next_look(self, now: float) -> float | None:
        """When to ask again at the latest; None while nobody is missing."""
        return now + LOOK_S if self._probed else None

    def close(self) -> None:
        """Give all attempts up."""
        self.refused({}, 0.0)
