"""Wake a thread that sleeps in `Poller.poll`, from any thread or signal handler."""

import os
import threading
from collections.abc import Sequence

from .descriptors import descriptors_for


class Wakeup:
    """A flag with a file descriptor: readable from `set()` until `clear()`.

    `set` may be called by any thread and by signal handlers, also during and after `close`. Raises
    LimitExceededError if the process may open no more files.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler may call set() while its own thread is inside set() or close().
        # Without a lock a late set() could write into a file that got the closed descriptor's number.
        self._lock = threading.RLock()
        self._over = False
        self._fd = -1
        with descriptors_for("a wake-up"):
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __del__(self) -> None:
        """Forgotten: its owner could not be finished, since a signal handler raised."""
        if hasattr(self, "_fd"):
            self.close()

    def set(self) -> None:
        """Wake the sleeper; many calls before a `clear` are one. Does nothing once closed."""
        try:
            with self._lock:
                if self._fd >= 0:
                    os.eventfd_write(self._fd, 1)
        finally:
            if self._over:
                self.close()

    def clear(self) -> None:
        """Take the flag back. Look at what was handed over after this, not before."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return

    def fileno(self) -> int:
        """The descriptor to poll for input."""
        return self._fd

    def pollables(self) -> Sequence[int]:
        """What a `Poller` watches."""
        return (self._fd,)

    def close(self) -> None:
        """Give the descriptor back. Take it out of its poller first.

        It never waits: a signal handler that came into a `set()` may wait for the thread that closes. Who is
        in there closes it then.
        """
        self._over = True
        if self._lock.acquire(blocking=False):
            try:
                fd, self._fd = self._fd, -1
                if fd >= 0:
                    os.close(fd)
            finally:
                self._lock.release()
