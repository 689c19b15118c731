"""Results made of what clients might have said."""

from collections.abc import Callable
from typing import Any

import pytest

from tailrace.bench.histogram import Histogram
from tailrace.bench.lines import Done, Sample
from tailrace.bench.results import Heard, Results, results_of
from tailrace.bench.servers import ServerUsage
from tailrace.bench.spec import Spec

START_NS = 1_000_000_000


def packed(ms: float, count: int = 1) -> str:
    histogram = Histogram()
    histogram.record(round(ms * 1e6), count)
    return histogram.take()


def heard(role: Any, index: int, counts: list[int], *, ms: float | None = None, **done: Any) -> Heard:
    """A client that told `counts` one second after the other, the last record just then."""
    samples = [
        Sample(
            at_ns=START_NS + second * 1_000_000_000,
            records=count,
            latencies="" if ms is None else packed(ms, count - before),
            cpu_s=second / 10,
            rss_anon=second * 1024 * 1024,
        )
        for second, (before, count) in enumerate(zip([0, *counts], counts, strict=False), 1)
    ]
    last_ns = samples[-1].at_ns if samples else 0
    told = Done(sent=counts[-1] if counts else 0, last_ns=last_ns)
    return Heard(
        name=f"{role} {index}", role=role, pid=10 + index, samples=samples,
        done=done.get("done", told),
    )  # fmt: skip


@pytest.fixture
def make_results() -> Callable[..., Results]:
    def make(clients: list[Heard], *, mode: Any = "produce", **more: Any) -> Results:
        servers = [ServerUsage(name="node 1", pid=None, cpu_s=None, rss_anon_max=None)]
        spec = Spec(mode=mode, record_bytes=1024, topic="<b>t</b>", records=more.pop("records", None))
        return results_of(
            spec, clients, START_NS, servers, interrupted=more.pop("interrupted", False), **more
        )

    return make
