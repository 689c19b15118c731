"""The page and the lines that people read."""

from xml.etree import ElementTree

import pytest

from tailrace.torture.checker import VIOLATIONS, Verdict
from tailrace.torture.report import html_of
from tailrace.torture.spec import Results, Spec
from tailrace.torture.summary import fault_rows, verdict_line
from tailrace.torture.timeline import FaultSpan, Timeline

SPEC = Spec(seed=7, kinds=("kill", "partition"), duration_s=20)


def results_of(*, interrupted: bool = False, unknown: int = 0, **violations: int) -> Results:
    faults = [
        FaultSpan(fault=fault, processes=["node-1"], begin_s=begin, end_s=end, outage_s=outage)
        for fault, begin, end, outage in (
            ("kill leader", 2.5, 4.0, 1.25),
            ("partition <all>", 7.5, 30.0, 3.0),
            ("kill leader", 12.5, 12.5, 0.25),
        )
    ]
    rates = [(0.5, 2_000.0), (1.5, 0.0), (2.5, 90_000.0)]
    return Results(
        spec=SPEC,
        nodes=3,
        verdict=Verdict(
            sent=1_300, acked=1_234, read=1_234, unknown=unknown, replicas=18,
            violations=dict.fromkeys(VIOLATIONS, 0) | violations,
            examples=["lost: record <1>"] if violations else [],
        ),
        timeline=Timeline(seconds=20.0, faults=faults, acked_per_s=rates, read_per_s=rates),
        history="history",
        interrupted=interrupted,
    )  # fmt: skip


def test_the_line() -> None:
    zeros = "0 lost, 0 duplicated, 0 reordered, 0 unseen, 0 diverged"
    assert verdict_line(results_of()) == f"holds: 1,234 records acknowledged, 1,234 read; {zeros}"
    assert verdict_line(results_of(interrupted=True)).startswith(
        "interrupted, so far it holds: 1,234 records"
    )
    assert ", 3 given up by their producer, " in verdict_line(results_of(unknown=3))
    bad = verdict_line(results_of(lost=2, went_back=1))
    assert bad.startswith("VIOLATED: ")
    assert "2 lost, " in bad
    assert bad.endswith("1 went back")


def test_faults_of_all_runs_together() -> None:
    runs = [results_of(), results_of()]
    assert fault_rows(runs) == [("kill leader", 4, "0.75", "1.25"), ("partition <all>", 2, "3.00", "3.00")]


def test_what_comes_at_once_behind_an_outage_does_not_flatten_the_rest() -> None:
    page = html_of([results_of()])
    assert "More than 6,000 records/s is drawn as that." in page
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    line = next(each for each in svg.findall("polyline") if each.get("class") == "line-0")
    heights = [float(point.split(",")[1]) for point in line.get("points", "").split()]
    assert heights[1] == 254.0, "nothing"
    assert 3 * (254.0 - heights[0]) == pytest.approx(254.0 - heights[2], abs=0.3)


def test_the_page() -> None:
    page = html_of([results_of(), results_of(lost=1)])
    assert page.count("<svg") == 2
    assert "record &lt;1&gt;" in page
    assert "<all>" not in page
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    bands = svg.findall("rect")
    assert [each.get("class") for each in bands] == ["band band-0", "band band-2", "band band-0"]
    assert bands[0].findtext("title") == "kill leader: node-1, 2.5 to 4.0 s, outage 1.25 s"
    for each in bands:
        left, width = float(each.get("x", "")), float(each.get("width", ""))
        assert 84 <= left < left + width <= 740
    assert float(bands[2].get("width", "")) > 1, "one can see it"
