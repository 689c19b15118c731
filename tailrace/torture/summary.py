"""What runs came to, in a few words and rows. Pure."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from tailrace.protocol.text import plural

from .checker import VIOLATIONS
from .spec import Results

ALWAYS_NAMED = ("lost", "duplicated", "reordered", "unseen", "diverged")


def verdict_line(results: Results) -> str:
    """`holds: 512,345 records acknowledged, 0 lost, 0 duplicated, ...`"""
    verdict = results.verdict
    named = [name for name in VIOLATIONS if name in ALWAYS_NAMED or verdict.violations[name]]
    counts = ", ".join(f"{verdict.violations[name]:,} {name.replace('_', ' ')}" for name in named)
    what = "interrupted, so far it holds" if results.interrupted and verdict.holds else "holds"
    head = what if verdict.holds else "VIOLATED"
    unknown = f", {verdict.unknown:,} given up by their producer" if verdict.unknown else ""
    return f"{head}: {plural(verdict.acked, 'record')} acknowledged{unknown}, {verdict.read:,} read; {counts}"


def fault_rows(runs: Sequence[Results]) -> list[tuple[str, int, str, str]]:
    """Fault, how often, the median and the longest write outage after it, in seconds."""
    outages: defaultdict[str, list[float]] = defaultdict(list)
    for results in runs:
        for fault in results.timeline.faults:
            outages[fault.fault].append(fault.outage_s)
    return [
        (name, len(times), f"{median(times):.2f}", f"{max(times):.2f}")
        for name, times in sorted(outages.items())
    ]
