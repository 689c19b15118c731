"""Results made of what clients might have said."""

from collections.abc import Callable
from typing import Any

import pytest

from tailrace.bench.histogram import Histogram
from tailrace.bench.lines import Done, Sample
from tailrace.bench.results import Heard, Results, Stretch, results_of
from tailrace.bench.servers import ServerUsage
from tailrace.bench.spec import Spec

START_NS = 1_000_000_000


def packed(ms: float, count: int = 1) -> str:
    return Histogram({round(ms * 1e3): count}).pack()


def heard(role: Any, index: int, counts: list[int], *, ms: float | None = None, **done: Any) -> Heard:
    """A client that told `counts` one second after the other, the last record just then."""
    samples = [
        Sample(
            at_ns=START_NS + second * 1_000_000_000,
            records=count,
            cpu_s=second / 10,
            rss_anon=second * 1024 * 1024,
        )
        for second, count in enumerate(counts, 1)
    ]
    befores = zip(samples, [0, *counts], strict=False)
    latencies = [
        Stretch(sample.at_ns, packed(ms, sample.records - before))
        for sample, before in befores
        if ms and sample.records > before
    ]
    last_ns = samples[-1].at_ns if samples else 0
    told = Done(sent=counts[-1] if counts else 0, last_ns=last_ns)
    return Heard(
        name=f"{role} {index}", role=role, pid=10 + index, samples=samples, latencies=latencies,
        done=done.get("done", told),
    )  # fmt: skip


@pytest.fixture
def make_results() -> Callable[..., Results]:
    def make(clients: list[Heard], *, mode: Any = "produce", **more: Any) -> Results:
        servers = [ServerUsage(name="node 1", pid=None, cpu_s=None, rss_anon_max=None)]
        options = {name: more.pop(name) for name in ("records", "rate", "duration_s", "acks") if name in more}
        spec = Spec(mode=mode, record_bytes=1024, topic="<b>t</b>", **options)
        return results_of(
            spec, clients, START_NS, servers, interrupted=more.pop("interrupted", False), **more
        )

    return make
