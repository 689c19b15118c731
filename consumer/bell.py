"""Wakes one thread that waits. One call in C where a `threading.Condition` takes a dozen in Python."""

import threading
from functools import partial

from tailrace.client.waiting import wait_in_steps


class Bell:
    """One thread waits, any other rings; a ring that nobody waits for is kept, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._acquire = partial(self._lock.acquire, True)

    def ring(self) -> None:
        """Wake the thread that waits, or that will wait next. Only one thread at a time may ring."""
        if self._lock.locked():
            self._lock.release()

    def wait(self, timeout_s: float | None) -> bool:
        """Until it rings; False if `timeout_s` was over first. Signal handlers run, and may raise."""
        return wait_in_steps(self._acquire, timeout_s)
