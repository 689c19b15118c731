"""Latencies: figures as the package itself gives them, and a clear word when it is not there."""

import sys
from random import Random

import pytest
from hdrh.histogram import HdrHistogram

from tailrace.bench.histogram import LATENCY_US_MAX, PERCENTILES, Histogram, require
from tailrace.protocol.errors import TailraceError


def test_figures_are_the_packages_own() -> None:
    random = Random(3)
    ours, theirs = Histogram(), HdrHistogram(1, LATENCY_US_MAX, 3)
    for _ in range(2_000):
        us = int(random.lognormvariate(7, 1.5)) + 1
        ours.record(us * 1_000)
        theirs.record_value(us)
    latencies = ours.latencies()
    assert latencies is not None
    assert latencies.count == 2_000
    for percent, found in zip(PERCENTILES, ours.at(PERCENTILES), strict=True):
        assert found == pytest.approx(theirs.get_value_at_percentile(percent) / 1000, rel=2e-3)
    assert latencies.avg_ms == pytest.approx(theirs.get_mean_value() / 1000, rel=2e-3)
    assert latencies.max_ms == pytest.approx(theirs.get_max_value() / 1000, rel=2e-3)


def test_it_travels() -> None:
    one, two = Histogram(), Histogram()
    assert (one.take(), one.latencies(), one.at((50.0,))) == ("", None, [0.0])
    one.record(5_000_000, 99)
    one.record(80_000_000)
    two.add(one.take())
    two.add("")
    assert (one.count, two.count) == (0, 100)
    low, high = two.at((99.0, 100.0))
    assert (low, high) == (pytest.approx(5, rel=1e-3), pytest.approx(80, rel=1e-3))


def test_what_is_out_of_bounds_counts_as_the_bound() -> None:
    histogram = Histogram()
    histogram.record(-5)
    histogram.record(10**18)
    low, high = histogram.at((1.0, 100.0))
    assert (low, high) == (0.001, pytest.approx(LATENCY_US_MAX / 1000, rel=1e-3))


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    with pytest.raises(TailraceError, match=r"pip install 'tailrace\[bench\]'"):
        require()
