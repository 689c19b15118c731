"""Waiting: who is reported, for how long, and what interrupts it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from tailrace.transport import poller as the_poller
from tailrace.transport.connection import Connection
from tailrace.transport.context import Context
from tailrace.transport.poller import Poller
from tailrace.transport.publisher import Subscriber
from tailrace.transport.server import Server
from tailrace.transport.wakeup import Wakeup

from ..patience import BUSY_S, PATIENCE_S

Own = Callable[..., Any]


@pytest.fixture(autouse=True, params=[sys.platform, "another"])
def _system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is epoll, and elsewhere."""
    monkeypatch.setattr(the_poller.sys, "platform", request.param)


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


def test_a_wakeup_is_reported_until_it_is_cleared(wakeup: Wakeup) -> None:
    poller = Poller()
    poller.add(wakeup)
    assert poller.poll(0) == []
    wakeup.set()
    wakeup.set()
    assert poller.poll(5) == [wakeup]
    assert poller.poll(5) == [wakeup]
    wakeup.clear()
    wakeup.clear()
    assert poller.poll(0) == []


def test_who_closes_a_wakeup_does_not_wait_for_who_sets_it(
    wakeup: Wakeup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler that came into that may wait for who closes. The descriptor is given back then."""
    write, descriptor = os.eventfd_write, wakeup.fileno()

    def interrupted(number: int, value: int) -> None:
        closer = threading.Thread(target=wakeup.close)
        closer.start()
        closer.join(PATIENCE_S)
        assert not closer.is_alive()
        assert wakeup.fileno() == -1
        write(number, value)  # its own still

    monkeypatch.setattr(os, "eventfd_write", interrupted)
    wakeup.set()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    wakeup.set()


def test_a_set_that_was_interrupted_keeps_nobody_from_setting_or_closing(
    wakeup: Wakeup, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = wakeup.fileno()

    def interrupted(number: int, value: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "eventfd_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            wakeup.set()
    for act in (wakeup.set, wakeup.close, wakeup.set):
        another = threading.Thread(target=act, daemon=True)
        another.start()
        another.join(PATIENCE_S)
        assert not another.is_alive()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_timeout_is_waited_for_in_full(wakeup: Wakeup) -> None:
    poller = Poller()
    poller.add(wakeup)
    start = time.monotonic()
    assert poller.poll(0.0301) == []
    assert time.monotonic() - start >= 0.0301


def test_sources_are_reported_until_they_are_read(
    context: Context, own: Own, connect: Callable[[str], Connection], wakeup: Wakeup
) -> None:
    server = own(Server(context, tcp="tcp://127.0.0.1:0"))
    connection = connect(server.listener.tcp)
    poller = Poller()
    for source in (server, connection, wakeup):
        poller.add(source)
    assert poller.poll(5) == [server]  # a connection has come
    assert server.take_gone() == []
    assert poller.poll(0) == []
    connection.send(b"one")
    connection.send(b"two")
    assert poller.poll(5) == [server]
    request = server.receive()
    assert request is not None
    while server.receive() is None:
        assert poller.poll(5) == [server]
    server.send(request.peer, b"answer")
    assert poller.poll(5) == [connection]
    poller.remove(connection)
    wakeup.set()
    assert poller.poll(5) == [wakeup]


def test_sockets_that_are_used_between_waits_hide_nothing(
    context: Context, own: Own, connect: Callable[[str], Connection]
) -> None:
    """Whatever is done with a socket may take note of what its descriptor tells."""
    server = own(Server(context, tcp="tcp://127.0.0.1:0"))
    connection = connect(server.listener.tcp)
    poller, answers = Poller(), Poller()
    poller.add(server)
    answers.add(connection)
    random = Random(1)
    sent = answered = received = 0
    peer = b""
    while received < 300:
        for _ in range(random.randint(1, 3)):
            sent += connection.send(b"request")
        while answered < sent:
            assert poller.poll(PATIENCE_S) == [server], f"{sent} requests, {answered} were noticed"
            for _ in range(random.randint(0, 3)):
                request = server.receive()
                if request is not None:
                    peer = request.peer
                    answered += server.send(peer, b"answer")
            if random.random() < 0.5:
                assert server.take_gone() == []
        while received < answered:
            assert answers.poll(PATIENCE_S) == [connection], f"{answered} answers, {received} were noticed"
            if random.random() < 0.5:
                connection.update()
            for _ in range(random.randint(0, 3)):
                received += connection.receive() is not None


def test_whatever_uses_a_socket_says_so(
    context: Context, own: Own, connect: Callable[[str], Connection]
) -> None:
    server = own(Server(context, tcp="tcp://127.0.0.1:0"))
    connection = connect(server.listener.tcp)
    subscriber = own(Subscriber(context, server.listener.tcp))
    uses: list[tuple[Any, Callable[[], object]]] = [
        (server, server.receive),
        (server, server.take_gone),
        (server, lambda: server.disconnect(b"nobody")),
        (server, lambda: server.send(b"nobody", b"header")),
        (server, lambda: server.send_tracked(b"nobody", b"header", [b"frame"])),
        (connection, connection.update),
        (connection, lambda: connection.send(b"header")),
        (connection, connection.receive),
        (subscriber, subscriber.receive),
    ]
    for source, use in uses:
        source.used = False
        use()
        assert source.used
    methods = {(type(source), name) for source, _ in uses for name in vars(type(source)) if name[0] != "_"}
    others = {"close", "connections", "give_up", "passed", "pollables"}  # no socket is polled after them
    assert len(methods) - sum(name in others for _, name in methods) == len(uses)


def test_a_pipe_is_reported_on_input_and_on_hang_up() -> None:
    reader, writer = os.pipe()
    poller = Poller()
    poller.add(reader)
    assert poller.poll(0) == []
    os.write(writer, b"x")
    assert poller.poll(5) == [reader]
    os.read(reader, 1)
    os.close(writer)
    assert poller.poll(5) == [reader]
    poller.remove(reader)
    os.close(reader)


def test_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were not reported are by the next call, once the others are read."""
    monkeypatch.setattr(the_poller, "READY_MAX", 2)
    ends = [os.pipe() for _ in range(3)]
    poller = Poller()
    for reader, writer in ends:
        poller.add(reader)
        os.write(writer, b"x")
    heard: list[Any] = []
    for expected in (2, 1):
        ready = poller.poll(0)
        assert len(ready) == expected
        for reader in ready:
            assert isinstance(reader, int)
            os.read(reader, 1)
        heard += ready
    assert sorted(heard) == [reader for reader, _ in ends]
    for descriptor in (each for pair in ends for each in pair):
        os.close(descriptor)


def test_misuse_is_an_error(wakeup: Wakeup) -> None:
    poller = Poller()
    with pytest.raises(ValueError, match="nothing to wait for"):
        poller.poll(None)
    poller.add(wakeup)
    with pytest.raises(ValueError, match="already"):
        poller.add(wakeup)


def test_a_signal_handler_that_raises_ends_the_wait(wakeup: Wakeup) -> None:
    class StopWaitingError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise StopWaitingError

    poller = Poller()
    poller.add(wakeup)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        with pytest.raises(StopWaitingError):  # noqa: PT012
            timer.start()
            poller.poll(BUSY_S)  # a signal just before the wait is heard after it
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_and_a_thread_may_wake_the_sleeper(wakeup: Wakeup) -> None:
    poller = Poller()
    poller.add(wakeup)
    before = signal.signal(signal.SIGUSR1, lambda *_: wakeup.set())
    try:
        for action in (lambda: os.kill(os.getpid(), signal.SIGUSR1), wakeup.set):
            timer = threading.Timer(0.05, action)
            timer.start()
            while (ready := poller.poll(1)) == []:
                pass  # a signal just before the wait is heard after it
            assert ready == [wakeup]
            wakeup.clear()
            timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_set_after_close_writes_nowhere(wakeup: Wakeup) -> None:
    wakeup.close()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    wakeup.set()
    wakeup.close()
    with pytest.raises(BlockingIOError):
        os.read(reader, 8)
    os.close(reader)
    os.close(writer)
