"""What peers send, taken in: over their connections and through their pipes, each peer's in its order.

A client sends through its pipe unless something that it has sent around it has no answer yet. So what is in
the pipe is older than any message that comes around it, and is read before that.
"""

from collections.abc import Sequence

from tailrace.protocol.limits import REQUEST_BURST_MAX
from tailrace.transport.poller import Source

from .broker import Broker
from .dispatch import Dispatch


class Intake:
    """Belongs to the network thread."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.dispatch = Dispatch(broker)

    def take(self, ready: Sequence[Source], now: float) -> int:
        """Handle the requests of those sources that are peers'; how many sources these are."""
        broker, handle = self._broker, self.dispatch.receive
        piped, served = 0, broker.server in ready
        for source in ready:
            requests = broker.pipes.receive(source)
            if requests is not None:
                piped += 1
                for incoming in requests:
                    handle(incoming, now)
        if served:
            self._receive_burst(now)
            if gone := broker.server.take_gone():
                self._receive_last(gone, now)
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
            for earlier in broker.pipes.before(incoming.peer):
                handle(earlier, now)
            handle(incoming, now)
