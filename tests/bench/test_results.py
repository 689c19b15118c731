"""From what clients said to figures: rates, percentiles, and how they went over time."""

import json
import platform
import re
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tailrace.bench.document import json_of, settings
from tailrace.bench.lines import Done
from tailrace.bench.report import html_of
from tailrace.bench.results import Results, Stretch
from tailrace.bench.spec import Spec
from tailrace.cli.bench_output import print_results

from .conftest import START_NS, heard, packed

Make = Callable[..., Results]

KAFKA = re.compile(
    r"\d+ records sent, [\d.]+ records/sec \([\d.]+ MB/sec\), [\d.]+ ms avg latency, [\d.]+ ms max latency, "
    r"[\d.]+ ms 50th, [\d.]+ ms 95th, [\d.]+ ms 99th, [\d.]+ ms 99\.9th\."
)


def test_producers_add_up(make_results: Make) -> None:
    results = make_results([heard("producer", 0, [100, 300], ms=5), heard("producer", 1, [100], ms=20)])
    assert (results.sent, results.acked, results.read, results.seconds) == (400, 400, 0, 2.0)
    assert (results.records_per_s, results.mb_per_s) == (200, 200 / 1024)
    assert results.ack is not None
    assert results.ack.latency.count == 400
    assert results.ack.latency.avg_ms == pytest.approx((300 * 5 + 100 * 20) / 400, rel=1e-3)
    assert results.end_to_end is None
    assert KAFKA.fullmatch(results.line())
    assert results.line().startswith("400 records sent, 200.000000 records/sec (0.20 MB/sec), 8.75 ms avg")
    first, second = results.clients
    assert (first.records_per_s, first.cpu_s, first.rss_anon_max) == (150, 0.2, 2 * 1024 * 1024)
    assert (second.records_per_s, second.seconds) == (100, 1.0)


def test_percentiles_are_those_of_their_names(make_results: Make, capsys: pytest.CaptureFixture[str]) -> None:
    client = heard("producer", 0, [1_000])
    counts = {1: 500, 2: 450, 3: 40, 4: 9, 5: 1}
    stretches = [Stretch(client.samples[0].at_ns, packed(ms, count)) for ms, count in counts.items()]
    results = make_results([msgspec.structs.replace(client, latencies=stretches)])
    assert results.line().endswith(
        " ms avg latency, 5.00 ms max latency, 1.00 ms 50th, 2.00 ms 95th, 3.00 ms 99th, 4.00 ms 99.9th."
    )
    latency = json.loads(json_of(results))["ack"]["latency"]
    found = [latency[name] for name in ("p50_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms")]
    assert found == [pytest.approx(ms, rel=1e-3) for ms in counts]
    (moment,) = [moment for moment in results.timeline if moment.p50_ms]
    assert (moment.p50_ms, moment.p99_ms) == (pytest.approx(1, rel=1e-3), pytest.approx(3, rel=1e-3))
    print_results(results)
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines()[3:])
    assert re.search(r"p50 ms +p99 ms", rows["process"])
    assert re.search(r" 1\.00 +3\.00 ", rows["producer 0"])


def test_who_reads_for_a_time_counts_the_end_in_which_nothing_came(make_results: Make) -> None:
    client = heard("consumer", 0, [600, 600, 600, 600])
    client = msgspec.structs.replace(client, done=Done(sent=0, last_ns=client.samples[0].at_ns))
    for duration_s, seconds in ((3.0, 3.0), (9.0, 4.0)):  # it was ended before the second
        results = make_results([client], mode="consume", duration_s=duration_s)
        assert (results.seconds, results.records_per_s) == (seconds, 600 / seconds)


def test_over_time(make_results: Make) -> None:
    results = make_results([heard("producer", 0, [100, 100, 400], ms=5), heard("producer", 1, [50])])
    rates = [(moment.at_s, moment.sent_per_s) for moment in results.timeline]
    assert rates == [(0.5, 150), (1.0, 150), (1.5, 0), (2.0, 0), (2.5, 300), (3.0, 300)]
    p50s = [moment.p50_ms for moment in results.timeline]
    assert [p50 is None for p50 in p50s] == [True, False, True, True, True, False]


def total(results: Results) -> tuple[int, int]:
    """What was sent and read in all moments together."""
    ends = [0.0, *(moment.at_s for moment in results.timeline)]
    widths = [after - before for before, after in pairwise(ends)]
    moments = list(zip(widths, results.timeline, strict=True))
    return (
        round(sum(width * moment.sent_per_s for width, moment in moments)),
        round(sum(width * moment.read_per_s for width, moment in moments)),
    )


def test_over_time_nothing_is_missing_that_came_long_before_it_was_told(make_results: Make) -> None:
    """A consumer that read all at once, and then told several times that nothing more came."""
    for last_ms in (122, 980, 1_030):
        done = Done(last_ns=START_NS + last_ms * 1_000_000)
        client = heard("consumer", 0, [50_000, 50_000, 50_000], done=done)
        assert total(make_results([client], mode="consume")) == (0, 50_000)


def test_over_time_the_end_is_the_last_of_all(make_results: Make) -> None:
    """Acknowledgements that come after the last record is read; and a little that is left over."""
    done = Done(sent=700, last_ns=START_NS + 2_040_000_000)
    producer = heard("producer", 0, [300, 600, 700], done=done)
    results = make_results([producer, heard("consumer", 0, [700])], mode="e2e")
    assert (results.seconds, results.timeline[-1].at_s, len(results.timeline)) == (1.0, 2.04, 4)
    assert total(results) == (700, 700)


def test_what_a_producer_that_was_killed_had_sent(make_results: Make) -> None:
    results = make_results([heard("producer", 0, [10, 40], done=None), heard("producer", 1, [60])])
    assert (results.sent, results.acked) == (100, 100)


def test_a_long_test_has_few_moments(make_results: Make) -> None:
    results = make_results([heard("producer", 0, [second * 10 for second in range(1, 1_001)])])
    assert len(results.timeline) == 240
    assert all(moment.sent_per_s == pytest.approx(10) for moment in results.timeline)


def test_consumers(make_results: Make) -> None:
    results = make_results([heard("consumer", 0, [500, 1_000])], mode="consume")
    assert results.line() == "1000 records read, 500.000000 records/sec (0.49 MB/sec)."
    both = [heard("producer", 0, [1_000], ms=1), heard("consumer", 0, [500, 1_000], ms=9)]
    results = make_results(both, mode="latency")
    assert results.line().startswith("1000 records sent and read, 500.000000 records/sec (0.49 MB/sec), 9.0")
    assert results.ack is not None
    assert results.ack.latency.p50_ms == pytest.approx(1, rel=1e-2)


def test_nothing_came(make_results: Make) -> None:
    """As when it is interrupted at once."""
    results = make_results([heard("producer", 0, [], done=None)], interrupted=True)
    assert results.line().startswith("0 records sent, 0.000000 records/sec")
    assert len(results.timeline) == 1


def test_what_failed(make_results: Make) -> None:
    done = Done(sent=10, failed=4, error="no room", last_ns=2_000_000_000)
    results = make_results([heard("producer", 0, [6], done=done)])
    assert (results.error, results.clients[0].failed) == ("no room", 4)


def test_what_was_due_and_not_sent(make_results: Make) -> None:
    """Records that nobody waited for would make latencies look better than they are."""
    clients = [heard("producer", 0, [300], ms=5), heard("producer", 1, [100], ms=5)]
    results = make_results(clients, rate=1_000.0, duration_s=2.0)
    assert results.unsent == 1_600
    assert (
        results.shortfall == "due, and not sent: 1,600 records, in no latency; 1,000 a second were too many"
    )
    assert results.shortfall in html_of(results)
    assert make_results(clients, rate=1_000.0, duration_s=2.0, records=500).unsent == 100
    for options in (
        {"rate": 200.0, "duration_s": 2.0},
        {"rate": 1_000.0, "records": 500},  # all of them are sent, however long it takes
        {"duration_s": 2.0},
        {"rate": 1_000.0, "duration_s": 2.0, "interrupted": True},
    ):
        results = make_results(clients, **options)
        assert (results.unsent, results.shortfall) == (0, "")


def test_json(make_results: Make) -> None:
    results = make_results([heard("producer", 0, [100, 300], ms=5)])
    fields = json.loads(json_of(results))
    assert fields["line"] == results.line()
    assert fields["ack"]["latency"]["p99_ms"] == pytest.approx(5, rel=1e-3)
    assert fields["spec"]["record_bytes"] == 1024
    assert fields["servers"] == [{"name": "node 1", "pid": None, "cpu_s": None, "rss_anon_max": None}]
    assert fields["at"].startswith("20")
    assert (fields["python"], fields["pyzmq"]) == (platform.python_version(), version("pyzmq"))
    assert (fields["lmdb"], fields["platform"]) == (version("lmdb"), platform.platform())
    assert fields["cpus"] >= 1
    cpus = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    assert fields["cpu"] == (cpus[0] if cpus else platform.processor() or None)


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        ({"mode": "produce"}, {"consumers", "poll"}),
        ({"mode": "produce", "verify": True}, set()),
        ({"mode": "consume"}, set()),
        ({"mode": "e2e", "topic": "t", "existing": True}, set()),
        (
            {"mode": "consume", "topic": "t", "existing": True},
            {"producers", "record_bytes", "acks", "compression", "keys", "batch_bytes", "linger_ms",
             "one_by_one", "verify"},
        ),
    ],
)  # fmt: skip
def test_settings_are_those_that_say_something(options: dict[str, Any], left_out: set[str]) -> None:
    spec = Spec(**options)
    assert msgspec.to_builtins(spec).keys() - settings(spec).keys() == left_out
