"""A client's latencies between two samples: cheap to add to and to empty, so that nothing waits for that."""

from typing import Final

LATENCY_US_MAX: Final = 3_600_000_000
"""An hour; longer ones count as that."""
_BITS: Final = 11
"""Of a latency so many bits are kept: three digits."""


class LatencyCounts:
    """How many records took how many microseconds, to three digits."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def record(self, nanoseconds: int, count: int = 1) -> None:
        """So many records took so long; at least a microsecond."""
        us = min(max(1, nanoseconds // 1000), LATENCY_US_MAX)
        shift = max(0, us.bit_length() - _BITS)
        us = us >> shift << shift
        self._counts[us] = self._counts.get(us, 0) + count

    def take(self) -> dict[int, int]:
        """All of it; there is nothing left afterwards."""
        taken, self._counts = self._counts, {}
        return taken
