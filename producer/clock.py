"""The wall clock as records are stamped with it."""

from time import time_ns
from typing import Final

from .batch import Batch

CLOCK_RESOLUTION_S: Final = 0.001
"""It is read once in this time."""


class Clock:
    """`time_ms` is the wall clock's in milliseconds since 1970, as of the last `read`; not after `tick`."""

    __slots__ = ("tick", "time_ms")

    def __init__(self) -> None:
        self.time_ms = 0
        self.tick = 0.0

    def read(self, now: float) -> None:
        """Read it; `now` is in seconds of `time.monotonic`, as `tick` is."""
        self.time_ms = time_ns() // 1_000_000
        self.tick = now + CLOCK_RESOLUTION_S

    def stamp(self, batch: Batch, index: int, now: float) -> None:
        """Record `index` of a batch, the one being added, is of now. Due at `batch.tick`."""
        if batch.torn:
            batch.mend()
        if now >= self.tick:
            self.read(now)
        if batch.time_ms != self.time_ms:
            batch.mark_time(index, self.time_ms)
        batch.tick = self.tick
