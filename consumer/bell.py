"""Wakes one thread that waits. One call in C where a `threading.Condition` takes a dozen in Python."""

import threading
from collections.abc import Callable
from functools import partial

from tailrace.client.waiting import wait_in_steps


class Bell:
    """One thread waits, any other rings; a ring that nobody waits for is kept, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.wait: Callable[[float | None], bool] = partial(wait_in_steps, partial(self._lock.acquire, True))
        """Until it rings; False if so many seconds were over first. Signal handlers run, and may raise."""

    def ring(self) -> None:
        """Wake the thread that waits, or that will wait next. Only one thread at a time may ring."""
        if self._lock.locked():
            try:  # noqa: SIM105 - suppress() is three calls more for each record
                self._lock.release()
            except RuntimeError:
                pass  # a signal handler has rung just now
