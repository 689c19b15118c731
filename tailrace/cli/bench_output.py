"""What `tailrace bench` shows: a line that moves while it runs, tables at the end."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from tailrace.protocol.text import were

from .output import print_table, say
from .units import human_bytes

if TYPE_CHECKING:
    from tailrace.bench.results import ClientFigures, Results
    from tailrace.bench.runner import Progress, Report
    from tailrace.bench.servers import ServerUsage

PLAIN_EVERY_S: Final = 5.0
"""How often a line is said where nobody watches a terminal."""
UNKNOWN: Final = "unknown"


@contextmanager
def reporting() -> "Iterator[Report]":
    """One line on stderr that is replaced on a terminal; one every few seconds elsewhere."""
    if sys.stderr.isatty():
        # The cursor stays at its start, where what a client has to say begins then.
        yield lambda progress: say(f"\033[K{_fitting(progress_line(progress))}\r", newline=False)
        say("\r\033[K", newline=False)
        return
    said: list[tuple[str, float]] = [("", 0.0)]

    def tell(progress: "Progress") -> None:
        phase, at = said[-1]
        if progress.phase != phase or progress.seconds >= at + PLAIN_EVERY_S:
            said[:] = [(progress.phase, progress.seconds)]
            say(progress_line(progress))

    yield tell


def _fitting(line: str) -> str:
    """As much of it as the terminal shows in one line; it may have another width by now."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        columns = 0
    return line[: columns - 1] if columns else line


def progress_line(progress: "Progress") -> str:
    """`measuring 3.2 s: sent 1,234,567 (412,000/s), read 1,200,000 (410,000/s), p99 3.1 ms`"""
    parts = []
    for what, count, rate in (
        ("sent", progress.sent, progress.sent_per_s),
        ("read", progress.read, progress.read_per_s),
    ):
        if count:
            parts.append(f"{what} {count:,} ({rate:,.0f}/s)")
    if progress.p99_ms is not None:
        parts.append(f"p99 {progress.p99_ms:.2f} ms")
    hint = "; ending, Ctrl-C ends it at once" if progress.interrupted else ""
    return f"{progress.phase} {progress.seconds:.1f} s: {', '.join(parts) or 'nothing yet'}{hint}"


def print_results(results: "Results") -> None:
    """The line to compare, what its latencies are, a row for each process, the verification."""
    click.echo(results.line())
    if results.explanation:
        click.echo(results.explanation)
    click.echo()
    headers = ["process", "records", "records/s", "MB/s", "p50 ms", "p99 ms", "CPU s", "RssAnon"]
    rows = [*map(_client_row, results.clients), *map(_server_row, results.servers)]
    columns = [_right(column) for column in list(zip(headers, *rows, strict=True))[1:]]
    names = [headers[0], *(row[0] for row in rows)]
    head, *lines = zip(names, *columns, strict=True)
    print_table(head, lines)
    failed = sum(client.failed for client in results.clients)
    if failed:
        why = f": {results.error}" if results.error else ""
        click.echo(f"\n{were(failed, 'record')} not acknowledged{why}")
    if results.shortfall:
        click.echo(f"\n{results.shortfall}")
    if results.unread:
        click.echo(f"\n{results.unread}")
    if results.warm_up:
        click.echo(f"\n{results.warm_up}")
    if results.verification is not None and results.verification.holds:
        click.echo(f"\n{results.verification.text()}")


def _right(cells: Sequence[str]) -> list[str]:
    width = max(map(len, cells))
    return [cell.rjust(width) for cell in cells]


def _client_row(client: "ClientFigures") -> list[str]:
    p50, p99 = ("-", "-")
    if client.latency is not None:
        p50, p99 = f"{client.latency.p50_ms:.2f}", f"{client.latency.p99_ms:.2f}"
    return [
        client.name,
        f"{client.records:,}",
        f"{client.records_per_s:,.0f}",
        f"{client.mb_per_s:.2f}",
        p50,
        p99,
        f"{client.cpu_s:.2f}",
        UNKNOWN if client.rss_anon_max is None else human_bytes(client.rss_anon_max),
    ]


def _server_row(server: "ServerUsage") -> list[str]:
    return [
        server.name,
        *["-"] * 5,
        UNKNOWN if server.cpu_s is None else f"{server.cpu_s:.2f}",
        UNKNOWN if server.rss_anon_max is None else human_bytes(server.rss_anon_max),
    ]
