"""When the I/O thread is woken for the batches of those who send."""

from collections.abc import Callable
from math import inf


class Alarm:
    """Guarded by the accumulator's lock, but for `ring`. Times in seconds of `time.monotonic`."""

    __slots__ = ("_heard", "_set", "_wake", "_woken", "due")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.due = inf
        """When the I/O thread comes next at the latest, as far as open batches have asked for it."""
        self._wake = wake
        self._woken = False
        """It was woken, and did not come yet."""
        self._set = self._heard = 0
        """Counts that differ while there is a `due` that it was not told of."""

    def set(self, due: float) -> None:
        """A batch that is opened now will be due then; `ring` must follow."""
        if due < self.due:
            self.due = due
            self._set += not self._woken

    def ring(self) -> None:
        """Wake the I/O thread if that is needed. The lock is not held: that thread wants it at once."""
        last = self._set
        if self._heard != last:
            self._wake()
            self._heard = last  # what interrupts before this leaves it to the next one who rings

    def ring_now(self) -> None:
        """Wake the I/O thread, unless that was done."""
        if not self._woken:
            self._wake()
            self._woken = True

    def answer(self) -> None:
        """The I/O thread is here, and sees what there is. `rest` follows before the lock is let go."""
        self._woken = True  # there is no need to wake who is here
        self._heard = self._set

    def rest(self, due: float) -> None:
        """It has seen all, and will come back when something is due."""
        self._woken = False
        self.due = due
