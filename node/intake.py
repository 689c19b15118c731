"""What peers send, taken in: over their connections and through their pipes, each peer's in its order.

A client sends through its pipe unless something that it has sent around it has no answer yet. So what is in
the pipe is older than any message that comes around it, and is read before that. A ping alone may be newer.
"""

from collections.abc import Sequence
from math import inf
from typing import Final

from tailrace.protocol.limits import REQUEST_BURST_MAX
from tailrace.transport.poller import Source

from .broker import Broker
from .dispatch import Dispatch

LOOK_INTERVAL_S: Final = 2.0
SILENT_LOOKS_MAX: Final = 5
"""A peer from which nothing has come at so many looks in a row is disconnected: after 8 to 10 s. A client
pings after 3 s at most, unless it hangs. Counted in looks, since a node that was suspended itself has waited
for nobody."""
LOOKS_INTO_TRANSIT: Final = 3
"""At so many of them, the last ones, a part of a message that has passed since the look before counts."""


class Intake:
    """Belongs to the network thread."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._silent_looks: dict[bytes, int] = {}
        """By peer, since its last message."""
        self._passed: dict[bytes, int] = {}
        """By peer, as of its last look into transit."""
        self._look_at = -inf
        self.dispatch = Dispatch(broker)

    def tick(self, now: float) -> None:
        """Part with the peers that are silent: what they share with the node is theirs alone again."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_INTERVAL_S
        for peer, looks in self._silent_looks.items():
            self._silent_looks[peer] = looks + 1
            if looks >= SILENT_LOOKS_MAX - LOOKS_INTO_TRANSIT and self._is_busy(peer):
                self._silent_looks[peer] = 0
            elif looks + 1 == SILENT_LOOKS_MAX:
                self._broker.server.disconnect(peer)

    def _is_busy(self, peer: bytes) -> bool:
        """A large message may take longer than a peer may be silent. The first of these looks only notes."""
        first = self._silent_looks[peer] == SILENT_LOOKS_MAX - LOOKS_INTO_TRANSIT + 1
        before, self._passed[peer] = self._passed.get(peer), self._broker.server.passed(peer)
        return not first and self._passed[peer] != before

    def next_tick(self) -> float:
        """When `tick` has something to do, in seconds of the node's clock."""
        return self._look_at if self._silent_looks else inf

    def take(self, ready: Sequence[Source], now: float) -> int:
        """Handle the requests of those sources that are peers'; how many sources these are."""
        broker, handle = self._broker, self.dispatch.receive
        piped, served = 0, broker.server in ready
        for source in ready:
            requests = broker.pipes.receive(source)
            if requests is not None:
                piped += 1
                for incoming in requests:
                    self._silent_looks[incoming.peer] = 0
                    handle(incoming, now)
        if served:
            self._receive_burst(now)
            if gone := broker.server.take_gone():
                self._receive_last(gone, now)
                for peer in gone:
                    self._silent_looks.pop(peer, None)
                    self._passed.pop(peer, None)
                broker.arenas.close(gone)
                broker.pipes.close(gone)
                broker.fetches.gone(gone)
        return piped + served

    def _receive_last(self, gone: Sequence[bytes], now: float) -> None:
        """What they have sent through their pipes before they went: some of it may need no answer."""
        for peer in gone:
            for incoming in self._broker.pipes.before(peer):
                self.dispatch.receive(incoming, now)

    def _receive_burst(self, now: float) -> None:
        broker, handle = self._broker, self.dispatch.receive
        for _ in range(REQUEST_BURST_MAX):
            incoming = broker.server.receive()
            if incoming is None:
                return
            self._silent_looks[incoming.peer] = 0
            for earlier in broker.pipes.before(incoming.peer):
                handle(earlier, now)
            handle(incoming, now)
