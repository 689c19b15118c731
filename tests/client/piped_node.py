"""A node that has pipes, and requests to it."""

from collections.abc import Callable
from threading import Thread, current_thread
from types import SimpleNamespace
from typing import Any

from tailrace.client.engine import Engine
from tailrace.node.intake import Intake
from tailrace.protocol.errors import LocalPathError, TailraceError
from tailrace.protocol.limits import PIPED_BYTES_MAX
from tailrace.protocol.local_messages import ArenaOpened, OpenArena, OpenPipes, PipesOpened
from tailrace.protocol.messages import ACKS_NONE, Ping, Pong, Produce, ProduceEntry, Request
from tailrace.protocol.wire import decode_node_request, encode, failure
from tailrace.transport.peer_pipes import PeerPipes
from tailrace.transport.pipes import PipeEnd
from tailrace.transport.poller import Source
from tailrace.transport.server import Incoming

from ..patience import PATIENCE_S, wait_until
from .in_thread import ANY_PORT, InThread

LARGE = b"l" * (2 * PIPED_BYTES_MAX)


class PipedNode(InThread):
    """A node that takes requests as the real one does, and writes down how each came.

    Pings are answered, with their own payload if `echo`; in the order of their coming, unless `held`: then
    when `release` is called. OpenPipes is granted unless `opens` is False; None: never answered. An arena
    that it is shown with `arenas` stays empty. `failure`: what pings get in place of an answer.
    """

    def __init__(
        self, ipc: str, *, opens: bool | None = True, echo: bool = False, arenas: bool = False
    ) -> None:
        self.opens = opens
        self.echo = echo
        self.arenas = arenas
        self.failure: TailraceError | None = None
        self.held = False
        self.requests: list[tuple[Request, bytes]] = []
        self.through_pipe: list[bool] = []
        self._waiting: list[tuple[bytes, bytes, list[bytes]]] = []
        super().__init__(tcp=ANY_PORT, ipc=ipc)
        self.pipes = PeerPipes(self._poller)
        ignored = SimpleNamespace(close=lambda _: None, gone=lambda _: None)
        broker: Any = SimpleNamespace(server=self._server, pipes=self.pipes, arenas=ignored, fetches=ignored)
        self._intake = Intake(broker)
        self._intake.dispatch = SimpleNamespace(receive=self._receive)  # type: ignore[assignment]
        self._thread.start()

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload in list(self.requests)]

    def release(self) -> None:
        """Answer what was held, in its order."""
        self.held = False
        self.do(self._answer_all)

    def _round(self, ready: list[Source]) -> None:
        self._intake.take(ready, 0.0)

    def _close(self) -> None:
        self.pipes.close_all()

    def _receive(self, incoming: Incoming, _now: float) -> None:
        request = decode_node_request(incoming.header)
        if isinstance(request, OpenPipes):
            self._open(incoming, request)
        elif isinstance(request, OpenArena):
            refused = failure(request.request_id, LocalPathError("no"))
            self._reply(
                incoming.peer, encode(ArenaOpened(request.request_id) if self.arenas else refused), []
            )
        else:
            payload = b"".join(incoming.frames)
            self.requests.append((request, payload))
            # The memory of what came over a connection belongs to a message of ZeroMQ's.
            self.through_pipe.append(isinstance(incoming.header.obj, bytes))
            if isinstance(request, Ping):
                pong, failed = Pong(request.request_id), self.failure
                reply = encode(pong if failed is None else failure(request.request_id, failed))
                self._waiting.append((incoming.peer, reply, [payload] if self.echo else []))
                if not self.held:
                    self._answer_all()

    def _open(self, incoming: Incoming, request: OpenPipes) -> None:
        if self.opens is None:
            return
        reply: Any = failure(request.request_id, LocalPathError("not today"))
        if self.opens:
            requests = PipeEnd(request.requests_fd, request.requests_inode)
            replies = PipeEnd(request.replies_fd, request.replies_inode)
            self.pipes.open(incoming.peer, incoming.part, requests, replies)
            reply = PipesOpened(request.request_id)
        self._server.send(incoming.peer, encode(reply))

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            self._reply(*answer)

    def _reply(self, peer: bytes, header: bytes, frames: list[bytes]) -> None:
        if not self.pipes.send(peer, header, frames):
            self._server.send(peer, header, frames)


Start = Callable[..., PipedNode]


class Asked:
    """Requests to node 1, and what came of them in the order of its coming, and in which threads."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.asked = 0
        self.sent: list[bytes] = []
        self.answered: list[tuple[bytes, Any, list[bytes]]] = []
        self.threads: list[Thread] = []
        self.told: Callable[[], object] = lambda: None
        """Called after each answer."""

    def ask(self, *payloads: bytes, **options: Any) -> None:
        """All at once, in this order."""
        self.asked += len(payloads)

        def in_io_thread() -> None:
            for payload in payloads:
                self.sent.append(payload)

                def on_reply(reply: Any, frames: Any, payload: bytes = payload) -> None:
                    self.threads.append(current_thread())
                    self.answered.append((payload, reply, list(map(bytes, frames))))
                    self.told()

                self.engine.request(1, Ping, (payload,), on_reply=on_reply, **options)

        self.engine.submit(in_io_thread)

    def tell(self, *payloads: bytes) -> None:
        """What gets no answer; what could not be sent is left out of `sent`."""

        def in_io_thread() -> None:
            for payload in payloads:
                if self.engine.tell(1, _unanswered, (payload,)):
                    self.sent.append(payload)

        self.engine.submit(in_io_thread)

    def wait(self) -> None:
        wait_until(lambda: len(self.answered) == self.asked, "every answer")

    def all_well(self) -> bool:
        return all(isinstance(reply, Pong) for _, reply, _ in self.answered)


def _unanswered(request_id: int) -> Request:
    return Produce(request_id, acks=ACKS_NONE, entries=[ProduceEntry(bytes(16), 0, 0)])


def piped(engine: Engine, node: PipedNode) -> Asked:
    """After a request through a pipe. Those before may have gone where the node was."""
    asked = Asked(engine)
    engine.refresh(PATIENCE_S)
    while not any(node.through_pipe):
        asked.ask(b"first")
        asked.wait()
    node.requests.clear()
    node.through_pipe.clear()
    return Asked(engine)
