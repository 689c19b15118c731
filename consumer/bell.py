"""Wakes one thread that waits. One call in C where a `threading.Condition` takes a dozen in Python."""

import threading


class Bell:
    """One thread waits, any other rings; a ring that nobody waits for is kept, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the thread that waits, or that will wait next. Only one thread at a time may ring."""
        if self._lock.locked():
            self._lock.release()

    def wait(self, timeout_s: float | None) -> bool:
        """Until it rings; False if `timeout_s` was over first. Signal handlers run, and may raise."""
        return self._lock.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))
