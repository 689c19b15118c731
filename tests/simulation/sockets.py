"""The transport's sockets over a network that drops, doubles, reorders, delays and cuts.

What production code sees of them is what `tailrace.transport` promises, or less: there a connection delivers
in order or breaks, here it may also lose or reorder single messages.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tailrace.protocol.cluster import Listener
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.server import Incoming

from .schedule import Process, Schedule

LOSS_NOTICED_S = 0.002
SILENCE_S = 1.5
"""In place of TCP's keepalive: so long a connection over a cut link lasts."""


@dataclass
class Weather:
    """What the network does to messages: chances, and the longest latency in seconds."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    latency_s: float = 0.002
    late: float = 0.0
    """The chance of a message to come up to `late_s` later."""
    late_s: float = 1.0
    publishes_late: float = 0.0
    """As `late`, of what is published."""


class Network:
    """Who can reach whom."""

    def __init__(self, schedule: Schedule, weather: Weather) -> None:
        self.schedule = schedule
        self.weather = weather
        self.servers: dict[str, SimServer] = {}
        self.subscribers: dict[str, list[SimSubscriber]] = {}
        self.cut: set[tuple[str, str]] = set()
        self.connections: list[SimConnection] = []
        self.peers = 0

    def reaches(self, source: str, target: str) -> bool:
        return (source, target) not in self.cut

    def carry(
        self,
        source: str,
        target: str,
        line: dict[str, float],
        deliver: Callable[[], None],
        late: float | None = None,
    ) -> None:
        """Deliver once, or as the weather is. `line`: when the last message of this direction comes."""
        schedule, weather = self.schedule, self.weather
        if not self.reaches(source, target) or schedule.happens(weather.drop):
            return
        for _ in range(1 + schedule.happens(weather.duplicate)):
            at = schedule.now + schedule.between(1e-4, weather.latency_s)
            if schedule.happens(weather.late if late is None else late):
                at += schedule.between(0, weather.late_s)
            elif schedule.happens(weather.reorder):
                at += schedule.between(0, 10 * weather.latency_s)
            else:
                at = line[target] = max(at, line.get(target, 0.0) + 1e-6)
            schedule.at(at, lambda: self.reaches(source, target) and deliver())


class SimPoller:
    """Knows which of its sources have input."""

    def __init__(self) -> None:
        self._sources: dict[Any, None] = {}

    def add(self, source: Any) -> None:
        self._sources[source] = None

    def remove(self, source: Any) -> None:
        del self._sources[source]

    def ready(self) -> list[Any]:
        return [source for source in self._sources if source.readable]

    def close(self) -> None:
        """As the real one."""


class SimServer:
    """As `transport.server.Server`."""

    def __init__(self, network: Network, owner: Process, endpoint: str) -> None:
        self.listener = Listener(endpoint)
        self.owner = owner
        self.peers: dict[bytes, SimConnection] = {}
        self._network = network
        self._inbox: deque[Incoming] = deque()
        self._gone: list[bytes] = []
        self.closed = False
        network.servers[endpoint] = self

    @property
    def readable(self) -> bool:
        return bool(self._inbox or self._gone)

    def take_gone(self) -> list[bytes]:
        gone, self._gone = self._gone, []
        return gone

    def passed(self, peer: bytes) -> int:
        return 0

    def disconnect(self, peer: bytes) -> None:
        if peer in self.peers:
            self.peers[peer].lose()

    def receive(self) -> Incoming | None:
        return self._inbox.popleft() if self._inbox else None

    def take(self, peer: bytes, header: bytes, frames: Sequence[bytes]) -> None:
        if not self.closed:
            copies = [memoryview(bytearray(frame)) for frame in frames]
            self._inbox.append(Incoming(peer, memoryview(header), copies))
            self.owner.wake()

    def lose(self, peer: bytes) -> None:
        if not self.closed and self.peers.pop(peer, None) is not None:
            self._gone.append(peer)
            self.owner.wake()

    def send(self, peer: bytes, header: bytes, frames: Sequence[Any] = ()) -> bool:
        connection = self.peers.get(peer)
        if connection is None:
            return False
        data = [bytes(frame) for frame in frames]
        deliver = lambda: connection.take(bytes(header), data)  # noqa: E731
        self._network.carry(self.owner.name, connection.owner.name, connection.line, deliver)
        return True

    def send_tracked(self, peer: bytes, header: bytes, frames: Sequence[Any]) -> Any:
        return _Delivered if self.send(peer, header, frames) else None

    def close(self) -> None:
        """The process has ended: its peers notice, unless the link is cut."""
        self.closed = True
        schedule = self._network.schedule
        for connection in self.peers.values():
            reaches = self._network.reaches(self.owner.name, connection.owner.name)
            schedule.after(LOSS_NOTICED_S if reaches else SILENCE_S, connection.lose)
        self.peers.clear()
        if self._network.servers.get(self.listener.tcp) is self:
            del self._network.servers[self.listener.tcp]


class SimProbe:
    """As `transport.probe.Probe`: nobody listens there, and the machine can say so."""

    def __init__(self, network: Network, owner: Process, endpoint: str) -> None:
        target = endpoint.removeprefix("sim://")
        there = network.reaches(owner.name, target) and network.reaches(target, owner.name)
        self.refused = there and endpoint not in network.servers

    def close(self) -> None:
        pass


class _Delivered:
    done = True


class SimConnection(Connection):
    """As `transport.connection.Connection`."""

    def __init__(self, network: Network, owner: Process, endpoint: str) -> None:
        self.endpoint = endpoint
        self.owner = owner
        self.state = ConnectionState.CONNECTING
        self.line: dict[str, float] = {}
        self.peer = b""
        self._network = network
        self._next: ConnectionState | None = None
        self._server: SimServer | None = None
        self._inbox: deque[tuple[bytes, list[bytes]]] = deque()
        self._closed = False
        network.schedule.after(network.schedule.between(2e-4, 4e-3), self._try)

    @property
    def readable(self) -> bool:
        return bool(self._inbox) or (self._next is not None and self._next is not self.state)

    def _try(self) -> None:
        network = self._network
        if self._closed:
            return
        server = network.servers.get(self.endpoint)
        names = () if server is None else (self.owner.name, server.owner.name)
        if (
            server is None
            or server.owner.paused
            or not (network.reaches(*names) and network.reaches(*names[::-1]))
        ):
            network.schedule.after(network.schedule.between(0.01, 0.08), self._try)
            return
        network.peers += 1
        self.peer = network.peers.to_bytes(5, "big")
        self._server = server
        server.peers[self.peer] = self
        network.connections.append(self)
        self._next = ConnectionState.READY
        self.owner.wake()

    def update(self) -> ConnectionState:
        if self._next is not None and self.state is not ConnectionState.LOST:
            self.state = self._next
        return self.state

    def send(self, header: bytes, frames: Sequence[Any] = ()) -> bool:
        if self.update() is not ConnectionState.READY:
            return False
        server, peer = self._server, self.peer
        assert server is not None
        data = [bytes(frame) for frame in frames]
        deliver = lambda: server.take(peer, bytes(header), data)  # noqa: E731
        self._network.carry(self.owner.name, server.owner.name, self.line, deliver)
        return True

    def passed(self) -> int:
        return 0

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        return self._inbox.popleft() if self._inbox else None

    def take(self, header: bytes, frames: list[bytes]) -> None:
        if not self._closed and self._next is not ConnectionState.LOST:
            self._inbox.append((header, frames))
            self.owner.wake()

    def lose(self) -> None:
        """The connection breaks: both ends notice; what is on its way is lost."""
        if self._closed or self._next is ConnectionState.LOST:
            return
        self._next = ConnectionState.LOST
        self._forget()
        self.owner.wake()

    def close(self, linger_ms: int = 0) -> None:
        self._closed = True
        self.state = ConnectionState.LOST
        self._forget()

    def _forget(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        if self in self._network.connections:
            self._network.connections.remove(self)
        reaches = self._network.reaches(self.owner.name, server.owner.name)
        self._network.schedule.after(LOSS_NOTICED_S if reaches else SILENCE_S, lambda: server.lose(self.peer))


class SimPublisher:
    """As `transport.publisher.Publisher`."""

    def __init__(self, network: Network, owner: Process, endpoint: str) -> None:
        self.listener = Listener(endpoint)
        self._network = network
        self._owner = owner
        for subscriber in network.subscribers.get(endpoint, ()):
            subscriber.join()

    def send(self, data: bytes) -> None:
        for subscriber in tuple(self._network.subscribers.get(self.listener.tcp, ())):
            subscriber.publish(self._owner.name, bytes(data))


class SimSubscriber:
    """As `transport.publisher.Subscriber`: misses what is published before it has taken effect."""

    def __init__(self, network: Network, owner: Process, endpoint: str) -> None:
        self.endpoint = endpoint
        self.line: dict[str, float] = {}
        self._network = network
        self._owner = owner
        self._inbox: deque[bytes] = deque()
        self.closed = False
        network.subscribers.setdefault(endpoint, []).append(self)
        self.join()

    def join(self) -> None:
        self.since = self._network.schedule.now + self._network.schedule.between(1e-3, 0.1)

    @property
    def readable(self) -> bool:
        return bool(self._inbox)

    def publish(self, source: str, data: bytes) -> None:
        if self._network.schedule.now >= self.since:
            network = self._network
            late = network.weather.publishes_late
            network.carry(source, self._owner.name, self.line, lambda: self._take(data), late)

    def _take(self, data: bytes) -> None:
        if not self.closed:
            self._inbox.append(data)
            self._owner.wake()

    def receive(self) -> bytes | None:
        return self._inbox.popleft() if self._inbox else None

    def close(self) -> None:
        self.closed = True
        self._network.subscribers[self.endpoint].remove(self)
