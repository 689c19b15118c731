"""When a process that died is started again. Pure: time is an argument, in seconds."""

from typing import Final

FIRST_S: Final = 0.1
LONGEST_S: Final = 10.0
STABLE_S: Final = 10.0
"""A process that was ready for so long had nothing to do with the failures before."""


class Restarts:
    """The back-off of one process: 0.1 s, doubled with each failure in a row up to 10 s."""

    def __init__(self) -> None:
        self._pause_s = FIRST_S
        self._ready_at: float | None = None

    def ready(self, now: float) -> None:
        """The process is up."""
        self._ready_at = now

    def died(self, now: float) -> float:
        """The process is gone; how many seconds to wait before it is started again."""
        if self._ready_at is not None and now - self._ready_at >= STABLE_S:
            self._pause_s = FIRST_S
        self._ready_at = None
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, LONGEST_S)
        return pause_s
