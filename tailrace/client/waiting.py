"""Waits that Ctrl-C ends, whenever it comes."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Final

SIGNALS_HEARD_WITHIN_S: Final = 0.5
_NOT_HELD: Final = ("release unlocked lock", "cannot release un-acquired lock")


class Sign:
    """As `threading.Event`, but `set` never waits: there is no lock that who waits could keep.

    What a signal handler raises within the wait for an event may leave that locked for ever.
    """

    def __init__(self) -> None:
        self._set = False
        self._waiting: deque[Lock] = deque()

    def is_set(self) -> bool:
        """Was it set?"""
        return self._set

    def set(self) -> None:
        """Wake all who wait. May be repeated."""
        self._set = True
        while self._waiting:
            self._waiting.popleft().release()

    def wait(self, timeout_s: float) -> bool:
        """Until it is set; False if so many seconds were over first."""
        lock = Lock()
        lock.acquire()
        self._waiting.append(lock)
        if not self._set:  # looked at after that, so that one of both sees the other
            lock.acquire(timeout=timeout_s)
        if not self._set:
            with suppress(ValueError):  # it is being set
                self._waiting.remove(lock)
        return self._set


def wait_in_steps(
    wait: Callable[[float], bool], timeout_s: float | None, look: Callable[[], None] | None = None
) -> bool:
    """`wait(seconds)`, of an event, a condition or a lock, until it is True; False if `timeout_s` was over.

    A signal ends a wait only if it goes to the very thread that waits, and after that has begun to. Its
    handler runs when the wait is over otherwise: so none lasts longer than SIGNALS_HEARD_WITHIN_S. `look` is
    called before each of them (`Notice.look`).
    """
    until = None if timeout_s is None else monotonic() + timeout_s
    while timeout_s is None or timeout_s > SIGNALS_HEARD_WITHIN_S:
        if look is not None:
            look()
        if _wait(wait, SIGNALS_HEARD_WITHIN_S):
            return True
        timeout_s = None if until is None else until - monotonic()
    return _wait(wait, max(0.0, timeout_s))


def _wait(wait: Callable[[float], bool], seconds: float) -> bool:
    """What comes just as an event has let go of its lock ends in an error of that; the caller gets itself."""
    try:
        return wait(seconds)
    except RuntimeError as error:
        if str(error) in _NOT_HELD and error.__context__ is not None:
            raise error.__context__ from None
        raise
