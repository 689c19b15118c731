"""Pipes at the client: small and large requests in one order, and nothing left at any end."""

import gc
import os
import random
import select
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tailrace.client.engine import COORDINATOR, Engine
from tailrace.client.link import UNANSWERED
from tailrace.protocol.errors import ConnectionFailedError, TimedOutError
from tailrace.protocol.limits import PIPED_BYTES_MAX
from tailrace.protocol.messages import Ping, Pong
from tailrace.protocol.wire import encode
from tailrace.transport import pipes as client_pipes

from ..patience import PATIENCE_S, wait_until
from .conftest import StandInCoordinator
from .piped_node import LARGE, Asked, Start, piped

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="pipes to a node are Linux's")

SIZES = (b"", b"small", b"s" * 3_000, LARGE)


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
    assert engine.paths == {1: "pipes"}
    asked.tell(LARGE, b"3")
    asked.ask(b"4")
    asked.wait()
    assert engine.paths == {1: UNANSWERED}
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
