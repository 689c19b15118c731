"""Waits of the main thread, and signals that do not end them by themselves."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest

from tailrace.client.waiting import SIGNALS_HEARD_WITHIN_S, wait_in_steps
from tailrace.producer.waiters import Waiters

from ..patience import BUSY_S


class HeardError(Exception):
    """What the signal's handler raises."""


@pytest.fixture
def handler() -> Iterator[None]:
    def hear(*_: object) -> None:
        raise HeardError

    before = signal.signal(signal.SIGUSR1, hear)
    yield
    signal.signal(signal.SIGUSR1, before)


def of_a_condition(seconds: float) -> bool:
    condition = threading.Condition()
    with condition:
        return condition.wait(seconds)


def of_a_lock(seconds: float) -> bool:
    lock = threading.Lock()
    lock.acquire()
    return lock.acquire(timeout=seconds)


@pytest.mark.parametrize("timeout_s", [None, 3_600.0])
@pytest.mark.parametrize("wait", [threading.Event().wait, of_a_condition, of_a_lock])
def test_a_signal_that_another_thread_takes_is_heard(
    handler: None, wait: Callable[[float], bool], timeout_s: float | None
) -> None:
    """As one is that comes just before the wait: only its handler is to be run by the thread that waits."""

    def take_it() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    timer = threading.Timer(0.05, take_it)
    started = time.monotonic()
    with pytest.raises(HeardError):  # noqa: PT012
        timer.start()
        wait_in_steps(wait, timeout_s)
    assert time.monotonic() - started < SIGNALS_HEARD_WITHIN_S + BUSY_S
    timer.join()


class Interrupt:
    """Raises HeardError before the line number `at` that is run of the library's waits."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if frame.f_code not in (threading.Condition.wait.__code__, threading.Event.wait.__code__):
            return None
        if event == "line":
            self._left -= 1
            if self._left < 0:
                raise HeardError
        return self._trace


def lines_of(wait: Callable[[], object]) -> int:
    """How many lines of the library's waits a wait runs."""
    at = 0
    while True:
        try:
            with Interrupt(at):
                wait()
        except HeardError:
            at += 1
        else:
            return at


def in_another_thread(look: Callable[[], bool]) -> bool:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(look).result()


def test_what_comes_while_a_lock_is_let_go_is_heard_as_it_is() -> None:
    """At each line of the wait of an event, and of that for memory, with the lock free afterwards."""
    assert lines_of(lambda: wait_in_steps(threading.Event().wait, 0.001)) > 10

    lock = threading.RLock()
    waiters = Waiters(lock, lambda: None)

    def for_memory() -> None:
        try:
            with lock:
                waiters.wait(0.001)
        finally:
            sys.settrace(None)
            assert in_another_thread(lambda: lock.acquire(timeout=0) and lock.release() is None)

    assert lines_of(for_memory) > 10
    assert not waiters


def test_it_ends_when_it_may() -> None:
    event = threading.Event()
    timer = threading.Timer(1.5 * SIGNALS_HEARD_WITHIN_S, event.set)
    timer.start()
    assert wait_in_steps(event.wait, None)
    timer.join()
    assert wait_in_steps(event.wait, -1.0)


@pytest.mark.parametrize("timeout_s", [-1.0, 0.0, 0.01, 1.5 * SIGNALS_HEARD_WITHIN_S])
def test_it_lasts_as_long_as_it_should(timeout_s: float) -> None:
    started = time.monotonic()
    assert not wait_in_steps(threading.Event().wait, timeout_s)
    assert timeout_s <= time.monotonic() - started < timeout_s + BUSY_S
