"""The report: one page, well formed, with nothing in it that a browser would have to fetch or could run."""

import platform
import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.metadata import version
from xml.etree import ElementTree

import pytest

from tailrace.bench.lines import Done
from tailrace.bench.plot import Series, chart, linear, logarithmic, percentiles
from tailrace.bench.report import html_of
from tailrace.bench.results import Results
from tailrace.bench.verify import SequenceSet, judge

from .conftest import START_NS, heard

Make = Callable[..., Results]

S = 1_000_000_000
_EMPTY = ("meta", "line", "polyline", "circle", "br")


class _Balance(HTMLParser):
    """Is every tag closed in its order?"""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name in ("src", "href") or name.startswith("on") for name, _ in attrs)
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str) -> list[ElementTree.Element]:
    """Its plots."""
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    assert "<script" not in page
    assert "http" not in page
    assert "@import" not in page
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_a_whole_page(make_results: Make) -> None:
    clients = [
        heard(
            "producer", 0, [100, 300, 500], ms=5, done=Done(sent=510, failed=10, error="<script>x</script>")
        ),
        heard("consumer", 0, [90, 250, 500], ms=8),
    ]
    acked = SequenceSet()
    acked.add(3)
    results = make_results(clients, mode="e2e", verification=judge([4], [acked], []))
    page = html_of(results)
    plots = check(page)
    assert [plot.get("aria-label") for plot in plots] == [
        "Throughput", "Latency by percentile", "Latency over time, percentiles of about a second",
    ]  # fmt: skip
    assert all(len(plot.findall("polyline")) == 2 for plot in plots)
    assert "latency: from when a record was sent until a consumer had it</p>" in page
    assert "10 records were not acknowledged. &lt;script&gt;" in page
    assert "VERIFICATION FAILED" in page
    assert "<td>unknown</td>" in page
    assert "prefers-color-scheme: dark" in page
    assert f"pyzmq {version('pyzmq')}, lmdb {version('lmdb')}; {platform.platform()}" in page
    for name, value in (("record_bytes", "1024"), ("topic", "&lt;b&gt;t&lt;/b&gt;"), ("flush", "-")):
        assert f"<tr><td>{name}</td><td>{value}</td></tr>" in page


@pytest.mark.parametrize(("acks", "why"), [("0", "lost, which acks=0 allows"), ("all", "removed before")])
def test_what_was_not_read(make_results: Make, acks: str, why: str) -> None:
    """It is on the page, too: who sees only that is not to take 0.5% of the records for all of them."""
    clients = [heard("producer", 0, [1_000], ms=5), heard("consumer", 0, [5], ms=8)]
    page = html_of(make_results(clients, mode="e2e", acks=acks))
    check(page)
    assert f"995 records were not read: {why}" in page
    assert "not read" not in html_of(make_results(clients, mode="e2e", acks=acks, interrupted=True))
    clients = [heard("producer", 0, [6], ms=5), heard("consumer", 0, [5], ms=8)]
    assert f"1 record was not read: {why}" in html_of(make_results(clients, mode="e2e", acks=acks))


def test_what_nobody_here_has_written(make_results: Make) -> None:
    """Others may have; what failed may be stored all the same."""
    failed = Done(sent=13, failed=3, last_ns=START_NS + S)
    clients = [heard("producer", 0, [10], ms=5, done=failed), heard("consumer", 0, [14], ms=8)]
    said = "read beyond what was acknowledged: 4 records; "
    others = f"{said}others write to &lt;b&gt;t&lt;/b&gt;, and what is lost does not show.</p>"
    assert others in html_of(make_results(clients, mode="e2e"))
    assert f"{said}some are there twice.</p>" in html_of(make_results(clients, mode="latency"))
    assert said not in html_of(make_results(clients, mode="produce"))
    clients[1] = heard("consumer", 0, [13], ms=8)
    assert "read beyond" not in html_of(make_results(clients, mode="e2e"))


@pytest.mark.parametrize("counts", [[], [5], [5, 5]])
def test_little_to_show(make_results: Make, counts: list[int]) -> None:
    check(html_of(make_results([heard("producer", 0, counts, ms=0.5)], interrupted=True)))
    check(html_of(make_results([heard("consumer", 0, counts)], mode="consume")))


def test_points_lie_in_the_plot() -> None:
    across = linear("s", 7.3, str, exact=True)
    up = logarithmic("ms", 0.4, 730, str)
    plot = ElementTree.fromstring(chart("<&>", across, up, [Series("a", [(0, 0.4), (3, 10), (7.3, 730)])]))
    line = plot.find("polyline")
    assert line is not None
    points = [tuple(map(float, point.split(","))) for point in (line.get("points") or "").split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert all(84 <= x <= 740 and 34 <= y <= 254 for x, y in points)
    assert points[-1][0] == 740


def test_axes() -> None:
    axis = linear("records/s", 930_000, lambda value: f"{value:g}")
    assert [text for _, text in axis.ticks] == ["0", "200000", "400000", "600000", "800000", "1e+06"]
    assert [value for value, _ in linear("s", 5.3, str, exact=True).ticks] == [0, 2, 4]
    assert linear("records/s", 0, str).place(0) == 0
    axis = logarithmic("ms", 3, 4, lambda value: f"{value:g}")
    assert [text for _, text in axis.ticks] == ["1", "2", "5", "10"]
    assert [text for _, text in logarithmic("ms", 0.001, 50, str).ticks] == [
        "0.001",
        "0.01",
        "0.1",
        "1.0",
        "10.0",
        "100.0",
    ]
    axis = percentiles("percentile", 99.95)
    assert [text for _, text in axis.ticks] == ["0%", "50%", "90%", "99%", "99.9%"]
    assert (axis.place(0), axis.place(99.95), axis.place(100)) == (0, 1, 1)
