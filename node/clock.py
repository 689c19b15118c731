"""The node's clocks."""

import time
from typing import Final

_BOOTTIME: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


def uptime_s() -> float:
    """Seconds, monotonic; on Linux they count while the machine is suspended, too.

    They did for everybody else: a node that was away for long finds its lease over (RELIABILITY R13).
    """
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


def wall_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
