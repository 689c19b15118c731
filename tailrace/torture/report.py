"""A page with what happened: throughput over time with the faults in it, and what the check found. Pure."""

from collections.abc import Sequence
from html import escape

from tailrace.bench.page import page_of, short_number, table_of
from tailrace.bench.plot import Band, Series, chart, linear

from .checker import VIOLATIONS
from .plan import KINDS
from .spec import Results
from .summary import fault_rows, verdict_line

CATCHING_UP = 3
"""So many times the pace of the producers is drawn: behind an outage they send much more at once."""
FAULT_HEADERS = ["fault", "times", "median outage s", "longest outage s"]


def html_of(runs: Sequence[Results]) -> str:
    """The whole page, with a section for each run."""
    parts = ["<h1>tailrace torture</h1>"]
    for results in runs:
        parts += _section(results)
    return page_of("tailrace torture", parts)


def _section(results: Results) -> list[str]:
    verdict = results.verdict
    kind = "good" if verdict.holds else "bad"
    parts = [
        f"<h2>Seed {results.spec.seed}: {results.timeline.seconds:.0f} s, {results.nodes} nodes, "
        f"{len(results.timeline.faults)} faults</h2>",
        f'<p class="{kind}">{escape(verdict_line(results))}</p>',
        f'<div class="wide">{_timeline(results)}</div>',
        f'<p class="facts">{_legend(results)}</p>',
        table_of(FAULT_HEADERS, [[str(cell) for cell in row] for row in fault_rows([results])]),
        "<h3>Checked</h3>",
        table_of(
            ["violation", "count", "what it counts"],
            [[name, f"{verdict.violations[name]:,}", text] for name, text in VIOLATIONS.items()],
        ),
    ]
    if verdict.examples:
        parts.append(f"<pre>{escape(chr(10).join(verdict.examples))}</pre>")
    return parts


def _timeline(results: Results) -> str:
    timeline = results.timeline
    top = _top(results)
    series = [
        Series(name, [(at, min(rate, top)) for at, rate in points])
        for name, points in (("acknowledged", timeline.acked_per_s), ("read", timeline.read_per_s))
    ]
    most = max((rate for each in series for _, rate in each.points), default=1.0)
    bands = [
        Band(
            f"{each.fault}: {', '.join(each.processes)}, {each.begin_s:.1f} to {each.end_s:.1f} s, "
            f"outage {each.outage_s:.2f} s",
            each.begin_s,
            min(each.end_s, timeline.seconds),
            KINDS.index(each.kind) if each.kind in KINDS else 0,
        )
        for each in timeline.faults
    ]
    across = linear("seconds since the start", timeline.seconds, short_number, exact=True)
    return chart("Throughput and faults", across, linear("records/s", most, short_number), series, bands)


def _top(results: Results) -> float:
    """Records a second, as far as they are drawn."""
    return CATCHING_UP * results.spec.records_per_s


def _legend(results: Results) -> str:
    kinds = [kind for kind in KINDS if kind in results.spec.kinds]
    colours = {"kill": "red", "stop": "orange", "partition": "green", "disk-full": "blue"}
    bands = ", ".join(f"{kind} ({colours[kind]})" for kind in kinds)
    return escape(f"Bands: {bands}. More than {_top(results):,.0f} records/s is drawn as that.")
