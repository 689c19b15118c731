"""A test's report: one HTML page that needs nothing else. Pure."""

from collections.abc import Sequence
from html import escape
from typing import Final

from tailrace.protocol.limits import MIB
from tailrace.protocol.text import plural, were

from .document import facts, settings
from .page import page_of, short_number, table_of
from .plot import Axis, Series, chart, linear, logarithmic, percentiles
from .results import Moment, Results, Timing

_NO_SETTINGS: Final = ("mode", "run")


def html_of(results: Results) -> str:
    """The whole page."""
    told = facts(results)
    where = (
        f"Tailrace {told['tailrace']}, Python {told['python']}, pyzmq {told['pyzmq']}, lmdb {told['lmdb']}; "
        f"{told['platform']}, {plural(told['cpus'], 'CPU')} ({told['cpu'] or 'unknown'}); {told['at']}"
    )
    title = f"tailrace bench {results.spec.mode}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="facts">{escape(where)}</p>',
        f"<pre>{escape(results.line())}</pre>",
        *_remarks(results),
        *(f'<div class="wide">{each}</div>' for each in _charts(results)),
        "<h2>Processes</h2>",
        _processes(results),
        "<h2>Settings</h2>",
        _settings(results),
    ]
    return page_of(title, parts)


def _remarks(results: Results) -> list[str]:
    """What the latencies are, what makes the figures mean less than they seem to, and what was verified."""
    remarks = []
    if results.explanation:
        remarks.append(f'<p class="facts">{escape(results.explanation)}</p>')
    if results.interrupted:
        remarks.append(f'<p class="bad">Interrupted: these are the figures up to then{results.doubt}.</p>')
    if results.problem:
        remarks.append(f'<p class="bad">{escape(results.problem)}{results.doubt}.</p>')
    failed = sum(client.failed for client in results.clients)
    if failed:
        remarks.append(
            f'<p class="bad">{were(failed, "record")} not acknowledged. {escape(results.error)}</p>'
        )
    missing = filter(None, (results.shortfall, results.unread))
    remarks += [f'<p class="bad">{escape(each)}.</p>' for each in missing]
    if results.warm_up:
        remarks.append(f'<p class="facts">{escape(results.warm_up)}</p>')
    verdict = results.verification
    if verdict is not None:
        kind = "good" if verdict.holds else "bad"
        text = "<br>".join(map(escape, verdict.text().splitlines()))
        remarks.append(f'<p class="{kind}">{text}</p>')
    return remarks


def _charts(results: Results) -> list[str]:
    moments = results.timeline
    charts = []
    across = linear("seconds since the start", results.seconds, short_number, exact=True)
    sides = (
        (results.answered, [(moment.at_s, moment.sent_per_s) for moment in moments], results.acked),
        ("read", [(moment.at_s, moment.read_per_s) for moment in moments], results.read),
    )
    rates = [Series(name, points) for name, points, count in sides if count]
    if rates:
        most = max(rate for each in rates for _, rate in each.points)
        charts.append(chart("Throughput", across, linear("records/s", most, short_number), rates))
    if results.timing is not None:
        charts.append(_percentile_chart(results))
        charts += _latency_over_time(moments, across)
    return charts


def _latency_over_time(moments: Sequence[Moment], across: Axis) -> list[str]:
    low = [(moment.at_s, moment.p50_ms) for moment in moments if moment.p50_ms is not None]
    high = [(moment.at_s, moment.p99_ms) for moment in moments if moment.p99_ms is not None]
    if not low:
        return []
    up = logarithmic("milliseconds", min(low, key=_second)[1], max(high, key=_second)[1], short_number)
    title = "Latency over time, percentiles of about a second"
    return [chart(title, across, up, [Series("50th", low), Series("99th", high)])]


def _second(point: tuple[float, float]) -> float:
    return point[1]


def _percentile_chart(results: Results) -> str:
    kinds = ((f"until {results.answered}", results.ack), ("until read", results.end_to_end))
    timings = [(name, timing) for name, timing in kinds if timing is not None]
    top = max(100 - 100 / max(2, timing.latency.count) for _, timing in timings)
    series = [Series(name, _curve(timing)) for name, timing in timings]
    values = [value for each in series for _, value in each.points]
    up = logarithmic("milliseconds", min(values), max(values), short_number)
    title = "Latency by percentile" + (f" ({series[0].name})" if len(series) == 1 else "")
    return chart(title, percentiles("percentile", top), up, series)


def _curve(timing: Timing) -> list[tuple[float, float]]:
    """Up to the percentile that one record more or less decides; there the longest latency."""
    last = 100 - 100 / max(2, timing.latency.count)
    points = [each for each in timing.curve if each[0] < last]
    return [*points, (last, timing.latency.max_ms)]


def _processes(results: Results) -> str:
    headers = ["process", "records", "records/s", "MB/s", "p50 ms", "p99 ms", "CPU s", "RssAnon MiB"]
    rows = []
    for client in results.clients:
        latency = client.latency
        rows.append(
            [
                client.name,
                f"{client.records:,}",
                f"{client.records_per_s:,.0f}",
                f"{client.mb_per_s:.2f}",
                "-" if latency is None else f"{latency.p50_ms:.2f}",
                "-" if latency is None else f"{latency.p99_ms:.2f}",
                f"{client.cpu_s:.2f}",
                _mib(client.rss_anon_max),
            ]
        )
    for server in results.servers:
        cpu = "unknown" if server.cpu_s is None else f"{server.cpu_s:.2f}"
        rows.append([server.name, *["-"] * 5, cpu, _mib(server.rss_anon_max)])
    return table_of(headers, rows)


def _settings(results: Results) -> str:
    told = settings(results.spec).items()
    rows = [[name, "-" if value is None else str(value)] for name, value in told if name not in _NO_SETTINGS]
    return table_of(["setting", "value"], rows)


def _mib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / MIB:.1f}"
