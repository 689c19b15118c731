"""Latencies: figures as the package itself gives them, and a clear word when it is not there."""

import sys
from random import Random

import pytest
from hdrh.histogram import HdrHistogram

from tailrace.bench.counts import LATENCY_US_MAX, LatencyCounts
from tailrace.bench.histogram import PERCENTILES, Histogram, require
from tailrace.protocol.errors import TailraceError


def test_figures_are_the_packages_own() -> None:
    random = Random(3)
    counts, theirs = LatencyCounts(), HdrHistogram(1, LATENCY_US_MAX, 3)
    for _ in range(2_000):
        us = int(random.lognormvariate(7, 1.5)) + 1
        counts.record(us * 1_000)
        theirs.record_value(us)
    ours = Histogram(counts.take())
    latencies = ours.latencies()
    assert latencies is not None
    assert latencies.count == 2_000
    for percent, found in zip(PERCENTILES, ours.at(PERCENTILES), strict=True):
        assert found == pytest.approx(theirs.get_value_at_percentile(percent) / 1000, rel=2e-3)
    assert latencies.avg_ms == pytest.approx(theirs.get_mean_value() / 1000, rel=2e-3)
    assert latencies.max_ms == pytest.approx(theirs.get_max_value() / 1000, rel=2e-3)


def test_so_many_percent_did_not_exceed_it() -> None:
    """At least so many: 2 of 5 are less than half. And no more than needed, whatever 99.9% are in binary."""
    assert Histogram(dict.fromkeys((10, 20, 30, 40, 50), 1)).at((50.0, 60.0, 61.0)) == [0.03, 0.03, 0.04]
    for count in (1_000, 10_000, 1_000_000):
        above = count // 1_000
        assert Histogram({1: count - above, 2: above}).at((99.9,)) == [0.001]
        assert Histogram({1: count - above - 1, 2: above + 1}).at((99.9,)) == [0.002]


def test_it_travels() -> None:
    empty = Histogram()
    assert (empty.latencies(), empty.at((50.0,))) == (None, [0.0])
    counts = LatencyCounts()
    counts.record(5_000_000, 99)
    counts.record(80_000_000)
    taken = counts.take()
    assert (sum(taken.values()), counts.take()) == (100, {})
    both = Histogram({5_000: 1})
    both.add(Histogram(taken).pack())
    low, high = both.at((99.0, 100.0))
    assert (both.count, low, high) == (101, pytest.approx(5, rel=1e-3), pytest.approx(80, rel=1e-3))


@pytest.mark.parametrize("us", [1, 2_047, 2_048, 123_456, 3_599_999_999])
def test_three_digits_are_kept(us: int) -> None:
    counts = LatencyCounts()
    counts.record(us * 1_000 + 999)
    ((kept, count),) = counts.take().items()
    assert (kept, count) == (pytest.approx(us, rel=1e-3), 1)


def test_what_is_out_of_bounds_counts_as_the_bound() -> None:
    counts = LatencyCounts()
    counts.record(-5)
    counts.record(10**18)
    low, high = Histogram(counts.take()).at((1.0, 100.0))
    assert (low, high) == (0.001, pytest.approx(LATENCY_US_MAX / 1000, rel=1e-3))


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    with pytest.raises(TailraceError, match=r"pip install 'tailrace\[bench\]'"):
        require()
