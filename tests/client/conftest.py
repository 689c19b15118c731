"""A coordinator and nodes on real sockets, as scripted as a test wants them.

They run in this process, so that a test can make them forget an update, keep silent, or come back
at another port, which the real ones do not do when asked.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tailrace.client.engine import Engine
from tailrace.protocol.cluster import (
    Change,
    ClusterState,
    Listener,
    NodeChanged,
    NodeInfo,
    PartitionInfo,
    TopicConfig,
    TopicInfo,
)
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.messages import Beat, GetSnapshot, Ping, Pong, Reply, Request, SnapshotTaken, Update
from tailrace.protocol.wire import (
    decode_coordinator_request,
    decode_node_request,
    encode,
    failure,
    request_id_of,
)
from tailrace.transport.poller import Source
from tailrace.transport.publisher import Publisher
from tailrace.transport.server import Incoming

from ..patience import PATIENCE_S, wait_until
from .in_thread import ANY_PORT, InThread
from .piped_node import PipedNode, Start

Answer = Reply | TailraceError | tuple[Reply, list[bytes]] | None


class StandIn(InThread):
    """A ROUTER in a thread of its own. `answer` maps a request to a reply, an error, or None: silence."""

    def __init__(
        self,
        answer: Callable[[Request], Answer],
        *,
        tcp: str = ANY_PORT,
        ipc: str = "",
        coordinator: bool = False,
    ):
        self.answer = answer
        self.requests: list[Request] = []
        self._decode = decode_coordinator_request if coordinator else decode_node_request
        super().__init__(tcp=tcp, ipc=ipc)
        self._publisher = Publisher(self._context, tcp=ANY_PORT) if coordinator else None
        if self._publisher is not None:
            self._poller.add(self._publisher)
        self.publisher = self._publisher.listener if self._publisher else Listener("")
        self._thread.start()

    @property
    def address(self) -> str:
        return self.listener.tcp.removeprefix("tcp://")

    def publish(self, message: Update | Beat) -> None:
        assert self._publisher is not None, "a node publishes nothing"
        self.do(partial(self._publisher.send, encode(message)))

    def _round(self, _ready: list[Source]) -> None:
        while (incoming := self._server.receive()) is not None:
            self._serve(incoming)

    def _close(self) -> None:
        if self._publisher:
            self._publisher.close()

    def _serve(self, incoming: Incoming) -> None:
        try:
            request = self._decode(incoming.header)
        except TailraceError as error:
            self._server.send(incoming.peer, encode(failure(request_id_of(incoming.header), error)))
            return
        self.requests.append(request)
        answer = self.answer(request)
        if answer is None:
            return
        reply, frames = answer if isinstance(answer, tuple) else (answer, [])
        if isinstance(reply, TailraceError):
            reply = failure(request.request_id, reply)
        self._server.send(incoming.peer, encode(reply), frames)


class StandInCoordinator(StandIn):
    """Owns a cluster state, gives snapshots of it and publishes changes."""

    def __init__(self, *, tcp: str = ANY_PORT, epoch: int = 1, cluster_id: str = "c") -> None:
        self.state = ClusterState()
        self.state.controller_epoch = epoch
        self.cluster_id = cluster_id
        self.others: Callable[[Request], Answer] = lambda request: None
        self.silent = False
        self.welcomed = 0
        """How often those whose subscription took effect got a beat, as from the real one."""
        super().__init__(self._answer, tcp=tcp, coordinator=True)

    def _round(self, ready: list[Source]) -> None:
        super()._round(ready)
        assert self._publisher is not None
        if self._publisher in ready and self._publisher.joined():
            self._publisher.send(encode(Beat(self.state.controller_epoch, self.state.version)))
            self.welcomed += 1

    def change(self, *changes: Change, publish: bool = True) -> None:
        """One version more."""
        for change in changes:
            self.state.apply(change)
        self.state.version += 1
        if publish:
            self.publish(Update(self.state.controller_epoch, self.state.version, list(changes)))

    def beat(self) -> None:
        self.publish(Beat(self.state.controller_epoch, self.state.version))

    def snapshots_asked(self) -> int:
        return sum(isinstance(request, GetSnapshot) for request in self.requests)

    def _answer(self, request: Request) -> Answer:
        if self.silent:
            return None
        if isinstance(request, GetSnapshot):
            return SnapshotTaken(
                request.request_id, 1, self.cluster_id, self.publisher, self.state.snapshot()
            )
        if isinstance(request, Ping):
            return Pong(request.request_id)
        return self.others(request)


def make_topic(name: str, *, leader: int = 1, partitions: int = 1, epoch: int = 0) -> TopicInfo:
    """A topic whose partitions all have one leader. Its id follows from its name."""
    partition = PartitionInfo((leader,), leader, epoch, 0, (leader,))
    return TopicInfo(name.encode().ljust(16, b"\0")[:16], name, TopicConfig(), (partition,) * partitions)


def make_node(node_id: int, listener: Listener, *, epoch: int = 1, alive: bool = True) -> NodeInfo:
    return NodeInfo(node_id, epoch, listener, "s", alive)


@pytest.fixture
def coordinator() -> Iterator[StandInCoordinator]:
    standin = StandInCoordinator()
    yield standin
    standin.stop()


@pytest.fixture
def engine(coordinator: StandInCoordinator) -> Iterator[Engine]:
    engine = Engine(coordinator.address, name="test")
    engine.start()
    engine.ready(PATIENCE_S)
    wait_until(lambda: coordinator.welcomed, "the engine hears what is published")
    yield engine
    engine.close()


@pytest.fixture
def start_engine() -> Iterator[Callable[..., Engine]]:
    """`start_engine(addresses)`: started, and closed when the test ends."""
    engines: list[Engine] = []

    def start(servers: str | list[str], request_timeout_ms: int = 30_000, *, local: bool = True) -> Engine:
        engines.append(Engine(servers, request_timeout_ms=request_timeout_ms, name="test", local=local))
        engines[-1].start()
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


@pytest.fixture
def start_node() -> Iterator[Callable[..., StandIn]]:
    """`start_node(answer)`: a node that answers each request so, stopped when the test ends."""
    nodes: list[StandIn] = []

    def start(answer: Callable[[Request], Answer], tcp: str = ANY_PORT) -> StandIn:
        nodes.append(StandIn(answer, tcp=tcp))
        return nodes[-1]

    yield start
    for standin in nodes:
        standin.stop()


@pytest.fixture
def eventually() -> Callable[..., None]:
    """`eventually(condition)`: fails unless it comes true in time."""

    def wait(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "did not come true in time"
            time.sleep(0.001)

    return wait


@pytest.fixture
def topic() -> Callable[..., TopicInfo]:
    """`topic(name, leader=1, partitions=1)`."""
    return make_topic


@pytest.fixture
def node() -> Callable[..., NodeInfo]:
    """`node(node_id, listener, alive=True)`."""
    return make_node


@pytest.fixture
def start_coordinator() -> Iterator[Callable[..., StandInCoordinator]]:
    """`start_coordinator(tcp=..., epoch=...)`, stopped when the test ends."""
    coordinators: list[StandInCoordinator] = []

    def start(**options: object) -> StandInCoordinator:
        coordinators.append(StandInCoordinator(**options))
        return coordinators[-1]

    yield start
    for standin in coordinators:
        standin.stop()


@pytest.fixture
def start_piped(coordinator: StandInCoordinator, tmp_path: Path) -> Iterator[Start]:
    """`start_piped(...)`: node 1, in a new epoch if it was there before."""
    nodes: list[PipedNode] = []

    def start(**options: Any) -> PipedNode:
        nodes.append(PipedNode(f"ipc://{tmp_path}/n/{len(nodes)}", **options))
        coordinator.change(NodeChanged(make_node(1, nodes[-1].listener, epoch=len(nodes))))
        return nodes[-1]

    yield start
    for each in nodes:
        each.stop()
