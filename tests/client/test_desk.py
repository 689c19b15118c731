"""A desk: small replies are read by the thread that waits there, the I/O thread reads all others."""

import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf

import pytest

from tailrace.client.desk import Desk
from tailrace.client.engine import Engine
from tailrace.protocol.errors import BusyError, ConnectionFailedError
from tailrace.protocol.messages import Pong
from tailrace.protocol.wire import encode

from ..interrupting import InterruptionError, interrupted_at
from ..patience import PATIENCE_S, wait_until
from .piped_node import LARGE, Asked, PipedNode, Start, piped

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="pipes to a node are Linux's")

ME = threading.main_thread()


class Waiter:
    """One that waits at a desk of the engine's, while another thread has something happen."""

    def __init__(self, engine: Engine) -> None:
        self.desk: Desk = engine.desk()
        self.loop = engine._loop
        self.piped = engine._loop.connections.piped
        self.io_thread = engine._loop.thread

    def meanwhile(self, action: Callable[[], object], *, reads: bool = True) -> None:
        """Wait until `action`, which is done when the wait has begun, has ended it."""

        def act() -> None:
            wait_until(lambda: not reads or self.borrowed, "the wait")
            action()

        actor = threading.Thread(target=act)
        self.desk.taken = True
        actor.start()
        started = time.monotonic()
        self.desk.wait(PATIENCE_S, reads=reads)
        assert time.monotonic() - started < PATIENCE_S, "it was not woken"
        assert not (self.loop._sleeping and self.piped.unfinished), "nobody wakes the I/O thread"
        assert not self.desk.taken
        actor.join()

    def meet(self, node: PipedNode) -> None:
        """Wait, and find all that `node` has held: no answer is read before the last has come."""

        def release() -> None:
            answered = threading.Event()
            with self.piped._lock:  # who reads a pipe takes it
                node.release()
                node.do(answered.set)
                assert answered.wait(PATIENCE_S)

        self.meanwhile(release)

    @property
    def borrowed(self) -> bool:
        return self.piped.occupied and self.piped.lent is self.piped.pipes


@pytest.fixture
def waiter(engine: Engine) -> Waiter:
    return Waiter(engine)


@pytest.fixture
def node(start_piped: Start) -> PipedNode:
    return start_piped(arenas=True)


@pytest.fixture
def asked(engine: Engine, node: PipedNode) -> Asked:
    """Their answers are held."""
    asked = piped(engine, node)
    node.held = True
    return asked


@pytest.fixture
def quiet_engine(engine: Engine, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Nothing wakes its I/O thread but what a test does, not even that it has heard nothing for long."""
    monkeypatch.setattr("tailrace.client.follower.BEAT_SILENCE_MS_MAX", inf)
    engine.refresh(PATIENCE_S)
    engine.submit(partial(setattr, engine._loop.follower, "due_at", inf))
    return engine


def ask(asked: Asked, node: PipedNode, *payloads: bytes, **options: object) -> None:
    """Until the node has them all and the I/O thread sleeps again."""
    before = len(node.requests)
    asked.ask(*payloads, **options)
    wait_until(lambda: len(node.requests) == before + len(payloads), "the requests")
    wait_until(lambda: asked.engine._loop._sleeping, "the I/O thread has done all else")


def test_who_waits_reads_swift_replies(waiter: Waiter, node: PipedNode, asked: Asked) -> None:
    for number in range(10):
        ask(asked, node, b"%d" % number, swift=True)
        waiter.meanwhile(node.release)
        assert len(asked.answered) == number + 1
        node.held = True
    assert asked.threads == [ME] * 10
    assert asked.all_well()
    assert all(node.through_pipe), "none is owed any more"


def test_several_at_once(waiter: Waiter, node: PipedNode, asked: Asked) -> None:
    ask(asked, node, b"1", b"2", b"3", swift=True)
    waiter.meet(node)
    assert [payload for payload, _, _ in asked.answered] == [b"1", b"2", b"3"]
    assert asked.threads == [ME] * 3


def test_what_is_not_for_it_is_left_with_all_behind_it(waiter: Waiter, node: PipedNode, asked: Asked) -> None:
    """In their order, and at once."""
    ask(asked, node, b"1", b"2", swift=True)
    ask(asked, node, b"3")
    ask(asked, node, b"4", swift=True)
    waiter.meet(node)
    asked.wait()
    assert [payload for payload, _, _ in asked.answered] == [b"1", b"2", b"3", b"4"]
    assert asked.threads == [ME, ME, waiter.io_thread, waiter.io_thread]


@pytest.mark.parametrize("swift", [True, False])
def test_the_io_thread_handles(waiter: Waiter, node: PipedNode, asked: Asked, *, swift: bool) -> None:
    """Errors, and all that is not swift."""
    if swift:
        node.failure = BusyError("not now")
    ask(asked, node, b"1", swift=swift)
    waiter.meanwhile(node.release)
    asked.wait()
    assert isinstance(asked.answered[0][1], BusyError if swift else Pong)
    assert asked.threads == [waiter.io_thread]


def test_the_io_thread_handles_what_may_use_shared_memory(
    engine: Engine, waiter: Waiter, node: PipedNode, asked: Asked
) -> None:
    """It gives the slot back."""
    node.held = False
    asked.ask(b"")
    asked.ask(LARGE, swift=True)  # has the node asked to share memory
    asked.wait()
    path = engine._loop.connections.links[1].path
    assert path is not None
    wait_until(lambda: path.open, "shared memory")
    node.held = True
    asked.threads.clear()
    ask(asked, node, LARGE, swift=True)
    assert path._slots
    waiter.meanwhile(node.release)
    asked.wait()
    assert asked.threads == [waiter.io_thread]
    assert not path._slots


def test_nobody_waits(waiter: Waiter, node: PipedNode, asked: Asked) -> None:
    """After a wait that has left nothing owed, too."""
    node.held = False
    asked.ask(b"1", swift=True)
    asked.wait()
    node.held = True
    ask(asked, node, b"2", swift=True)
    waiter.meanwhile(node.release)
    asked.wait()
    asked.ask(b"3", swift=True)
    asked.wait()
    assert asked.threads == [waiter.io_thread, ME, waiter.io_thread]


def test_a_wait_that_ends_too_early(waiter: Waiter, node: PipedNode, asked: Asked) -> None:
    """What is owed is read by the I/O thread then."""
    ask(asked, node, b"1", swift=True)
    waiter.desk.wait(0.01, reads=True)
    assert not waiter.piped.lent
    node.release()
    asked.wait()
    assert asked.threads == [waiter.io_thread]


def test_a_wait_for_the_bell_alone(waiter: Waiter, node: PipedNode, asked: Asked) -> None:
    """All is read by the I/O thread, though the wait before was another one."""
    ask(asked, node, b"1", swift=True)
    waiter.meanwhile(node.release)
    node.held = True
    ask(asked, node, b"2", swift=True)

    def act() -> None:
        node.release()
        asked.wait()
        waiter.desk.ring()

    waiter.meanwhile(act, reads=False)
    assert asked.threads == [ME, waiter.io_thread]


@pytest.mark.parametrize("reads", [True, False])
def test_a_ring(engine: Engine, waiter: Waiter, node: PipedNode, asked: Asked, *, reads: bool) -> None:
    desk = waiter.desk
    waiter.meanwhile(desk.ring, reads=reads)
    desk.taken = True
    desk.ring()  # before the wait begins
    started = time.monotonic()
    desk.wait(PATIENCE_S, reads=reads)
    desk.ring()  # nobody waits: it is not kept
    desk.wait(0.05, reads=reads)
    assert 0.05 <= time.monotonic() - started < PATIENCE_S


@pytest.mark.parametrize("reads", [True, False])
def test_the_time_is_over(waiter: Waiter, asked: Asked, *, reads: bool) -> None:
    started = time.monotonic()
    waiter.desk.taken = True
    waiter.desk.wait(0.6, reads=reads)
    assert time.monotonic() - started >= 0.6
    assert not waiter.desk.taken


def test_the_connection_is_lost_in_a_wait(
    engine: Engine, waiter: Waiter, node: PipedNode, asked: Asked, start_piped: Start
) -> None:
    """Who waits is not woken for that, but by what follows; then it reads from the new pipes."""
    ask(asked, node, b"1", swift=True)

    def act() -> None:
        node.stop()
        asked.wait()
        waiter.desk.ring()

    waiter.meanwhile(act)
    assert isinstance(asked.answered[0][1], ConnectionFailedError)
    waiter.desk.wait(0.01, reads=True)  # there are no pipes
    again = start_piped()
    asked = piped(engine, again)
    again.held = True
    ask(asked, again, b"2", swift=True)
    waiter.meanwhile(again.release)
    asked.wait()
    assert asked.threads == [ME]


def test_pipes_that_are_closed_and_opened_in_a_wait(
    engine: Engine, waiter: Waiter, node: PipedNode, asked: Asked, start_piped: Start
) -> None:
    """Their numbers are others' then. What comes through the new ones is read by the I/O thread."""
    later: list[Asked] = []

    def act() -> None:
        node.stop()
        again = start_piped()
        later.append(piped(engine, again))
        later[0].ask(b"2", swift=True)
        later[0].wait()
        waiter.desk.ring()

    ask(asked, node, b"1", swift=True)
    waiter.meanwhile(act)
    wait_until(lambda: later and later[0].answered, "the answer")
    assert later[0].all_well()


def test_what_cannot_be_read(engine: Engine, waiter: Waiter, node: PipedNode, asked: Asked) -> None:
    """The connection is given up; what came before is whole."""
    ask(asked, node, b"1", b"2", swift=True)
    (ends,) = node.pipes._ends.values()

    def act() -> None:
        node.do(partial(os.write, ends.replies, b"\xff\xff"))

    waiter.meanwhile(act)
    asked.wait()
    assert all(isinstance(reply, ConnectionFailedError) for _, reply, _ in asked.answered)
    node.release()
    again = piped(engine, node)
    again.ask(b"3", swift=True)
    again.wait()
    assert again.all_well()


def test_a_reply_that_nobody_waits_for(waiter: Waiter, node: PipedNode, asked: Asked) -> None:
    """Its request was given up: those behind it are answered."""
    ask(asked, node, b"1", swift=True, timeout_s=0.01)
    asked.wait()
    ask(asked, node, b"2", swift=True)
    waiter.meanwhile(node.release)
    asked.wait()
    assert isinstance(asked.answered[1][1], Pong)
    node.requests.clear()
    asked.ask(b"3", swift=True)
    asked.wait()
    assert all(node.through_pipe), "none is owed any more"


def test_a_message_that_answers_nothing(waiter: Waiter, node: PipedNode, asked: Asked) -> None:
    peer = next(iter(node.pipes._ends))
    ask(asked, node, b"1", swift=True)

    def act() -> None:
        node.do(partial(node.pipes.send, peer, encode(Pong(10_000)), []))
        node.release()

    waiter.meanwhile(act)
    asked.wait()
    assert asked.all_well()


def test_interrupted_anywhere(quiet_engine: Engine, waiter: Waiter, node: PipedNode, asked: Asked) -> None:
    """Handlers are told again what they were told half of."""
    places = set[str]()
    over = point = 0
    while over < 3:
        point += 1
        desk = quiet_engine.desk()  # it knows of no pipes yet
        asked.told = desk.ring
        wanted, interrupted = b"%d" % point, threading.Event()

        def told(wanted: bytes = wanted) -> bool:
            return wanted in [payload for payload, _, _ in asked.answered[-3:]]

        def wait(desk: Desk = desk, told: Callable[[], bool] = told) -> None:
            while not told():
                desk.taken = True
                if desk.unfinished:
                    quiet_engine.wake()
                if not told():
                    desk.wait(PATIENCE_S, reads=True)

        def release(interrupted: threading.Event = interrupted) -> None:
            wait_until(lambda: waiter.borrowed or interrupted.is_set(), "the wait")
            node.release()

        node.held = True
        ask(asked, node, wanted, swift=True, timeout_s=2 * PATIENCE_S)
        releaser = threading.Thread(target=release)
        releaser.start()
        further = (1 + point // 2 % 7,) if point % 2 else ()
        started = time.monotonic()
        with interrupted_at(1 + point // 2, *further) as interrupts, suppress(InterruptionError):
            wait()
        interrupted.set()
        wait()
        assert time.monotonic() - started < PATIENCE_S, interrupts.places
        releaser.join()
        places.update(place.partition(":")[0] for place in interrupts.places)
        over = over + 1 if interrupts.over else 0
    assert {"desk.py", "piped_replies.py", "pending.py", "pipes.py"} <= places
    assert asked.all_well()


def test_something_is_left_to_the_io_thread_just_as_that_goes_round(
    quiet_engine: Engine, waiter: Waiter, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before it takes note that it was woken."""
    left = []

    def monotonic() -> float:
        if not left:
            left.append(True)
            waiter.piped.unfinished = True
            quiet_engine.wake()
        return time.monotonic()

    monkeypatch.setattr("tailrace.client.loop.monotonic", monotonic)
    quiet_engine.wake()
    wait_until(lambda: left and quiet_engine._loop._sleeping, "the I/O thread sleeps again")
    assert not waiter.piped.unfinished


def test_both_threads_count_what_is_owed(
    waiter: Waiter, node: PipedNode, asked: Asked, start_piped: Start
) -> None:
    """Large answers come to the one, small ones to the other at the same time."""
    node.echo, node.held = True, False
    asked.told = waiter.desk.ring
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            for number in range(5):
                asked.ask(b"%d" % number, swift=True)
                asked.ask(LARGE)
            while len(asked.answered) < asked.asked:
                waiter.desk.taken = True
                if len(asked.answered) < asked.asked:
                    waiter.desk.wait(PATIENCE_S, reads=True)
    finally:
        sys.setswitchinterval(interval)
    assert {ME, waiter.io_thread} == set(asked.threads)
    assert asked.engine._loop.connections.links[1].owed == 0
