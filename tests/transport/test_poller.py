"""Waiting: who is reported, for how long, and what interrupts it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tailrace.transport.connection import Connection
from tailrace.transport.context import Context
from tailrace.transport.poller import Poller
from tailrace.transport.server import Server
from tailrace.transport.wakeup import Wakeup

from ..patience import BUSY_S

Own = Callable[..., Any]


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
