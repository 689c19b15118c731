"""Pipes at the client: small and large requests in one order, and nothing left at any end."""

import gc
import os
import random
import select
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.client.engine import COORDINATOR, Engine
from tailrace.client.local_path import LocalPath
from tailrace.node.intake import Intake
from tailrace.protocol.cluster import NodeChanged
from tailrace.protocol.errors import ConnectionFailedError, LocalPathError, TimedOutError
from tailrace.protocol.limits import PIPED_BYTES_MAX
from tailrace.protocol.local_messages import OpenArena, OpenPipes, PipesOpened
from tailrace.protocol.messages import ACKS_NONE, Ping, Pong, Produce, ProduceEntry, Request
from tailrace.protocol.wire import decode_node_request, encode, failure
from tailrace.transport import pipes as client_pipes
from tailrace.transport.peer_pipes import PeerPipes
from tailrace.transport.pipes import PipeEnd
from tailrace.transport.poller import Source
from tailrace.transport.server import Incoming
from tests.client.conftest import ANY_PORT, InThread, StandInCoordinator, make_node

from ..patience import PATIENCE_S, wait_until

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="pipes to a node are Linux's")

LARGE = b"l" * (2 * PIPED_BYTES_MAX)
SIZES = (b"", b"small", b"s" * 3_000, LARGE)


class PipedNode(InThread):
    """A node that takes requests as the real one does, and writes down how each came.

    Pings are answered, with their own payload if `echo`; in the order of their coming, unless `held`: then
    when `release` is called. OpenPipes is granted unless `opens` is False; None: never answered. No arenas.
    """

    def __init__(self, ipc: str, *, opens: bool | None = True, echo: bool = False) -> None:
        self.opens = opens
        self.echo = echo
        self.held = False
        self.requests: list[tuple[Request, bytes]] = []
        self.through_pipe: list[bool] = []
        self._waiting: list[tuple[bytes, bytes, list[bytes]]] = []
        super().__init__(tcp=ANY_PORT, ipc=ipc, watch_peers=True)
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
            self._reply(incoming.peer, encode(failure(request.request_id, LocalPathError("no"))), [])
        else:
            payload = b"".join(incoming.frames)
            self.requests.append((request, payload))
            # The memory of what came over a connection belongs to a message of ZeroMQ's.
            self.through_pipe.append(isinstance(incoming.header.obj, bytes))
            if isinstance(request, Ping):
                reply = encode(Pong(request.request_id))
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


class Asked:
    """Requests to node 1, and what came of them in the order of its coming."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.asked = 0
        self.sent: list[bytes] = []
        self.answered: list[tuple[bytes, Any, list[bytes]]] = []

    def ask(self, *payloads: bytes, timeout_s: float | None = None) -> None:
        """All at once, in this order."""
        self.asked += len(payloads)
        options = {} if timeout_s is None else {"timeout_s": timeout_s}

        def in_io_thread() -> None:
            for payload in payloads:
                self.sent.append(payload)

                def on_reply(reply: Any, frames: Any, payload: bytes = payload) -> None:
                    self.answered.append((payload, reply, list(map(bytes, frames))))

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


def local_path(engine: Engine) -> LocalPath | None:
    return engine._loop.connections.links[1].path


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


def test_small_requests_go_through_the_pipe(engine: Engine, start_piped: Start) -> None:
    node = start_piped()
    asked = piped(engine, node)
    for _ in range(10):
        asked.ask(b"1", b"2", b"3")
        asked.wait()
    assert asked.all_well()
    assert node.payloads == asked.sent
    assert all(node.through_pipe)
    assert engine.paths == {1: "pipes"}


def test_one_behind_a_large_one_follows_it(engine: Engine, start_piped: Start) -> None:
    node = start_piped()
    asked = piped(engine, node)
    node.held = True
    asked.ask(b"1", LARGE, b"2", b"3")
    wait_until(lambda: len(node.requests) == 4, "the requests")
    assert node.through_pipe == [True, False, False, False]
    asked.ask(b"4")
    wait_until(lambda: len(node.requests) == 5, "the request")
    assert not node.through_pipe[-1], "none of them is answered"
    node.release()
    asked.wait()
    asked.ask(b"5", b"6")
    asked.wait()
    assert node.through_pipe[-2:] == [True, True]
    assert node.payloads == asked.sent == [payload for payload, _, _ in asked.answered]


def test_behind_what_nobody_answers_nothing_is_piped(engine: Engine, start_piped: Start) -> None:
    node = start_piped()
    asked = piped(engine, node)
    asked.tell(b"1", b"2")
    wait_until(lambda: len(node.requests) == 2, "the requests")
    assert node.through_pipe == [True, True]
    asked.tell(LARGE, b"3")
    asked.ask(b"4")
    asked.wait()
    asked.ask(b"5")
    asked.wait()
    assert node.through_pipe == [True, True, False, False, False, False]
    assert node.payloads == asked.sent


@pytest.mark.parametrize("seed", range(20))
def test_any_mix_comes_in_its_order(engine: Engine, start_piped: Start, seed: int) -> None:
    """Requests of all sizes and such without an answer, at a node that answers at once, late or in bursts."""
    chance, node = random.Random(seed), start_piped()
    asked = piped(engine, node)
    telling = chance.random() < 0.5
    for number in range(300):
        payload = b"%06d" % number + (chance.choices(SIZES, (4, 4, 2, 1))[0] if number else b"")
        if telling and chance.random() < 0.2 and len(payload) < PIPED_BYTES_MAX:
            asked.tell(payload)
        else:
            asked.ask(payload)
        if chance.random() < 0.1:
            node.held = True
        if chance.random() < 0.15:
            node.release()
        if chance.random() < 0.05:
            node.release()
            asked.wait()
    node.release()
    wait_until(lambda: len(node.requests) == 300, "all requests")
    node.release()
    asked.wait()
    assert asked.all_well()
    assert node.payloads == asked.sent
    answered = [payload for payload, _, _ in asked.answered]
    assert answered == sorted(answered), "small replies come in order, too"
    assert node.through_pipe[0]


def test_a_full_pipe(engine: Engine, start_piped: Start) -> None:
    """A node that does not read gets the rest over the connection, behind what is in the pipe."""
    node = start_piped()
    asked = piped(engine, node)
    gate = threading.Event()
    node.do(partial(gate.wait, PATIENCE_S))
    asked.ask(*[b"%06d" % number + b"x" * 1_000 for number in range(200)])
    engine.refresh(PATIENCE_S)  # they are sent
    gate.set()
    asked.wait()
    assert asked.all_well()
    assert node.payloads == asked.sent
    assert node.through_pipe.index(False) > 10
    assert not any(node.through_pipe[node.through_pipe.index(False) :])


def test_small_replies_to_a_client_that_is_busy(engine: Engine, start_piped: Start) -> None:
    """The node finds the other pipe full: nothing is lost, and nothing overtaken."""
    node = start_piped(echo=True)
    asked = piped(engine, node)
    gate = threading.Event()
    payloads = [b"%06d" % number + b"x" * 1_000 for number in range(200)]
    node.held = True
    asked.ask(*payloads)
    wait_until(lambda: len(node.requests) == 200, "the requests")
    engine.submit(partial(gate.wait, PATIENCE_S))
    done = threading.Event()
    node.release()
    node.do(done.set)
    assert done.wait(PATIENCE_S)
    gate.set()
    asked.wait()
    assert [frames for _, _, frames in asked.answered] == [[payload] for payload in payloads]


def test_refused_all_goes_over_the_connection(engine: Engine, start_piped: Start) -> None:
    before = pipe_descriptors()
    node = start_piped(opens=False)
    engine.refresh(PATIENCE_S)
    asked = Asked(engine)
    for payload in (b"1", LARGE, b"2"):
        asked.ask(payload)
        asked.wait()
    assert asked.all_well()
    assert node.payloads == asked.sent
    assert not any(node.through_pipe)
    assert engine.paths == {1: "frames: no"}
    wait_until(lambda: pipe_descriptors() == before, "the pipes to be closed")


def test_no_more_descriptors(engine: Engine, start_piped: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def pipe2(_flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(client_pipes.os, "pipe2", pipe2)
    node = start_piped()
    engine.refresh(PATIENCE_S)
    asked = Asked(engine)
    asked.ask(b"1", b"2")
    asked.wait()
    assert asked.all_well()
    assert not any(node.through_pipe)


def test_an_answer_that_never_comes(
    engine: Engine, start_piped: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.client.connections.OPEN_TIMEOUT_S", 0.05)
    before = pipe_descriptors()
    node = start_piped(opens=None)
    engine.refresh(PATIENCE_S)
    asked = Asked(engine)
    asked.ask(b"1")
    asked.wait()
    wait_until(lambda: pipe_descriptors() == before, "the pipes to be closed")
    asked.ask(b"2")
    asked.wait()
    assert asked.all_well()
    assert not any(node.through_pipe)


def test_an_answer_that_comes_too_late(
    engine: Engine, start_piped: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node has opened the pipes, and the client gives them up: no answer is lost in there."""
    timeout_s, made, pipe2 = 0.3, [], os.pipe2
    monkeypatch.setattr("tailrace.client.connections.OPEN_TIMEOUT_S", timeout_s)
    monkeypatch.setattr(client_pipes.os, "pipe2", lambda flags: made.append(flags) or pipe2(flags))
    before, node, gate = pipe_descriptors(), start_piped(), threading.Event()
    node.do(partial(gate.wait, PATIENCE_S))
    engine.refresh(PATIENCE_S)
    asked = Asked(engine)
    asked.ask(b"1")
    wait_until(lambda: len(made) == 2, "the client's pipes")
    asked.ask(b"2")  # behind OpenPipes

    def stay_away(_reply: Any, _frames: Any) -> None:
        """All answers come meanwhile. What is due by time is looked at before them."""
        gate.set()
        wait_until(lambda: len(node.requests) == 2, "the requests")
        until = time.monotonic() + timeout_s
        wait_until(lambda: time.monotonic() > until, "the timeout")

    engine.submit(lambda: engine.request(COORDINATOR, Ping, on_reply=stay_away))
    asked.wait()
    wait_until(lambda: pipe_descriptors() == before, "all ends to be closed")
    asked.ask(b"3")
    asked.wait()
    assert asked.all_well()
    assert node.payloads == asked.sent


def pipe_descriptors() -> int:
    """Ends of pipes that this process has: the client's and those of the node in it."""
    gc.collect()
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("pipe:")
        except FileNotFoundError:
            continue
    return count


def test_nothing_is_left_when_the_engine_closes(
    coordinator: StandInCoordinator, start_engine: Any, start_piped: Start
) -> None:
    node = start_piped()
    before = pipe_descriptors()
    for _ in range(3):
        engine = start_engine(coordinator.address)
        node.through_pipe.clear()
        piped(engine, node)
        assert pipe_descriptors() == before + 6
        engine.close()
        wait_until(lambda: pipe_descriptors() == before, "all ends to be closed")


def test_closed_before_the_answer(
    coordinator: StandInCoordinator, start_engine: Any, start_piped: Start
) -> None:
    node = start_piped(opens=None)
    before = pipe_descriptors()
    engine = start_engine(coordinator.address)
    engine.ready(PATIENCE_S)
    asked = Asked(engine)
    asked.ask(b"1")
    asked.wait()
    assert pipe_descriptors() == before + 4
    engine.close()
    assert pipe_descriptors() == before
    assert node.payloads == [b"1"]


def test_a_node_that_goes_and_comes_back(engine: Engine, start_piped: Start) -> None:
    """What is unanswered fails, what was answered is not; then there are new pipes."""
    before = pipe_descriptors()
    for _ in range(3):
        node = start_piped()
        asked = piped(engine, node)
        node.held = True
        asked.ask(*[b"%d" % number for number in range(10)])
        wait_until(lambda node=node: len(node.requests) == 10, "the requests")
        assert all(node.through_pipe)
        node.stop()
        asked.wait()
        assert all(isinstance(reply, ConnectionFailedError) for _, reply, _ in asked.answered)
        assert pipe_descriptors() == before


def test_answers_before_the_end(engine: Engine, start_piped: Start) -> None:
    """They are in the pipe when the connection is lost."""
    node = start_piped()
    asked = piped(engine, node)
    node.held = True
    asked.ask(*[b"%d" % number for number in range(10)])
    wait_until(lambda: len(node.requests) == 10, "the requests")
    gate = threading.Event()
    engine.submit(partial(gate.wait, PATIENCE_S))
    node.release()
    node.stop()
    gate.set()
    asked.wait()
    assert asked.all_well()


def test_a_pipe_that_cannot_be_read(engine: Engine, start_piped: Start) -> None:
    """The connection is given up, as one that is lost, also if a message that came around was first."""
    for around in (False, True):
        node = start_piped()
        asked = piped(engine, node)
        node.held = True
        asked.ask(b"1")
        wait_until(lambda node=node: bool(node.requests), "the request")
        peer, ends = next(iter(node.pipes._ends.items()))

        node.do(partial(os.write, ends.replies, b"\xff\xff"))
        if around:
            node.do(partial(node._server.send, peer, encode(Pong(10_000))))
        asked.wait()
        assert isinstance(asked.answered[0][1], ConnectionFailedError)
        node.held = False
        node.through_pipe.clear()
        again = piped(engine, node)
        again.ask(b"2")
        again.wait()
        assert again.all_well()


def test_late_replies_through_the_pipe(engine: Engine, start_piped: Start) -> None:
    """A request that nobody waits for any more is answered: the next ones are not confused."""
    node = start_piped()
    asked = piped(engine, node)
    node.held = True
    asked.ask(b"1", timeout_s=0.02)
    asked.wait()
    assert isinstance(asked.answered[0][1], TimedOutError)
    asked.ask(LARGE, b"2")
    wait_until(lambda: len(node.requests) == 3, "the requests")
    node.release()
    asked.wait()
    assert node.through_pipe == [True, False, False]
    asked.ask(b"3")
    asked.wait()
    assert node.through_pipe[-1]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_writes_nothing(engine: Engine, start_piped: Start) -> None:
    """It has the parent's descriptors, and leaves them alone; the parent's are closed with the parent's."""
    node = start_piped()
    asked = piped(engine, node)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asked.engine.close()
            engine.__del__()
            del asked
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    asked.ask(b"1", b"2")
    asked.wait()
    assert asked.all_well()
    assert node.payloads == [b"1", b"2"]
    assert all(node.through_pipe)
