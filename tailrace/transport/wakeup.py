"""Wake a thread that sleeps in `Poller.poll`, from any thread or signal handler."""

import os
from collections.abc import Sequence

from .descriptors import descriptors_for


class _Flag:
    """A descriptor that is closed when nobody refers to it any more.

    Who sets it while another gives it up does not write into a file that has got its number, and a signal
    handler that raises in there leaves no lock held.
    """

    number = -1

    def __init__(self) -> None:
        with descriptors_for("a wake-up"):
            self.number = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class Wakeup:
    """A flag with a file descriptor: readable from `set()` until `clear()`.

    `set` may be called by any thread and by signal handlers, also during and after `close`. Raises
    LimitExceededError if the process may open no more files.
    """

    def __init__(self) -> None:
        self._flag: _Flag | None = _Flag()

    def set(self) -> None:
        """Wake the sleeper; many calls before a `clear` are one. Does nothing once closed."""
        flag = self._flag
        if flag is not None:
            os.eventfd_write(flag.number, 1)

    def clear(self) -> None:
        """Take the flag back. Look at what was handed over after this, not before."""
        try:
            os.eventfd_read(self.fileno())
        except BlockingIOError:
            return

    def fileno(self) -> int:
        """The descriptor to poll for input; -1 once closed."""
        flag = self._flag
        return -1 if flag is None else flag.number

    def pollables(self) -> Sequence[int]:
        """What a `Poller` watches."""
        return (self.fileno(),)

    def close(self) -> None:
        """Give the descriptor back; who is in `set` just then does it. Take it out of its poller first."""
        self._flag = None
