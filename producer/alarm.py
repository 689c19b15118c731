"""When the I/O thread is woken for the batches of those who send."""

from collections.abc import Callable
from math import inf
from typing import Final

AT_ONCE: Final = -inf


class Alarm:
    """Guarded by the accumulator's lock, but for `ring`, after which the I/O thread wants that lock itself.

    Times in seconds of `time.monotonic`.
    """

    __slots__ = ("_due", "heard", "last", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self._due = inf
        """When the I/O thread comes next at the latest, as far as it was or will be told."""
        self.last = self.heard = 0
        """Numbers of due times, which differ while there is one that it was not told of."""

    def set(self, due: float) -> None:
        """What comes next will be due then. First, so that no interrupt comes between; `ring` must follow."""
        if due < self._due:
            self._due = due
            self.last += 1

    def ring(self) -> None:
        """Wake the I/O thread if that is needed."""
        last = self.last
        if self.heard != last:
            self.wake()
            self.heard = last  # what interrupts before this leaves it to the next one who rings

    def reset(self, due: float) -> None:
        """The I/O thread has seen what there is, and comes again when something is due."""
        self._due = due
        self.heard = self.last
