"""Latencies: the one door to the package `hdrhistogram`.

Microseconds up to an hour, to three digits. The package's own queries loop over all 23,552 counts in
Python, so they are answered here from the array of counts.
"""

from bisect import bisect_left
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from itertools import accumulate
from math import ceil
from operator import mul
from typing import Any, Final

import msgspec

from tailrace.protocol.errors import TailraceError

from .counts import LATENCY_US_MAX

_DIGITS: Final = 3
PERCENTILES: Final = (50.0, 95.0, 99.0, 99.9)
CURVE: Final = (
    0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.95, 99.99, 99.995, 99.999, 100.0,
)  # fmt: skip
"""Percentiles that are plotted."""


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """What a histogram says, in milliseconds."""

    count: int
    avg_ms: float
    max_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float


def require() -> None:
    """Raise TailraceError that says what to install if the package is missing."""
    try:
        import hdrh.histogram  # noqa: F401
    except ImportError:
        raise TailraceError(
            "load tests measure latencies with hdrhistogram: pip install 'tailrace[bench]'"
        ) from None


class Histogram:
    """Counts of latencies, with those in `counts` (microseconds: how many).

    Raises TailraceError like `require`.
    """

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        require()
        from hdrh.histogram import HdrHistogram

        self._counts: Any = HdrHistogram(1, LATENCY_US_MAX, _DIGITS)
        for us, count in (counts or {}).items():
            self._counts.record_value(us, count)

    def pack(self) -> str:
        """All of it as text: many are kept for a long time."""
        packed: bytes = self._counts.encode()
        return packed.decode()

    def add(self, packed: str) -> None:
        """Add what another one packed."""
        self._counts.decode_and_add(packed.encode())

    @property
    def count(self) -> int:
        """How many latencies."""
        return int(self._counts.get_total_count())

    def at(self, percentiles: tuple[float, ...]) -> list[float]:
        """Milliseconds that so many percent did not exceed; zeros when there are none."""
        ends = list(accumulate(self._counts.counts))
        if not ends[-1]:
            return [0.0] * len(percentiles)
        values = _values_us()
        wanted = (max(1, ceil(ends[-1] * _exact(percent) / 100)) for percent in percentiles)
        return [values[bisect_left(ends, count)] / 1000 for count in wanted]

    def latencies(self) -> Latencies | None:
        """The figures; None when there are none."""
        count = self.count
        if not count:
            return None
        mean_us = sum(map(mul, self._counts.counts, _values_us())) / count
        p50, p95, p99, p999, most = self.at((*PERCENTILES, 100.0))
        return Latencies(
            count=count, avg_ms=mean_us / 1000, max_ms=most, p50_ms=p50, p95_ms=p95, p99_ms=p99, p999_ms=p999
        )


@cache
def _exact(percent: float) -> Fraction:
    """As it is written: 99.9% of 1,000 are 999, and no more."""
    return Fraction(str(percent))


@cache
def _values_us() -> list[int]:
    """The latency that each place of the counts stands for."""
    counts = Histogram()._counts
    return [counts.get_value_from_index(place) for place in range(counts.counts_len)]
