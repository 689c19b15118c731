"""What a client tells while it measures."""

from typing import Any

import pytest

from tailrace.bench.inbox import Voice
from tailrace.bench.lines import SLOW_EVERY_S

START_NS = 5_000_000_000


def test_latencies_are_told_of_whole_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the first: a plot must not begin with the latency of one record."""
    voice = Voice()
    said: list[Any] = []
    monkeypatch.setattr(voice, "say", said.append)
    voice.begin(START_NS)
    step_ns = round(SLOW_EVERY_S * 1e9 / 100)
    for records in range(1, 151):
        voice.latencies.record(1_000_000)
        voice.sample(START_NS + records * step_ns, records)
    voice.sample(START_NS + 150 * step_ns, 150, last=True)
    first, rest = (each for each in said if each.latencies)
    assert sum(first.latencies.values()) == first.records >= 100
    assert sum(rest.latencies.values()) == 150 - first.records
