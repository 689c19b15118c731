"""What a load test has found out. Pure: from samples to figures."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import msgspec

from tailrace.protocol.limits import MIB
from tailrace.protocol.text import plural, were

from .histogram import CURVE, Histogram, Latencies
from .lines import Done, Sample
from .servers import ServerUsage
from .spec import Role, Spec
from .verify import Verdict

MOMENTS_MAX: Final = 240
"""Points of a plot over time."""
MOMENT_S_MIN: Final = 0.5
FIGURES_S_MIN: Final = 1e-9


class Stretch(NamedTuple):
    """Latencies that a client told at one moment: those since the moment before, packed."""

    at_ns: int
    packed: str


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """All that one client has said, from the moment on when it was started."""

    name: str
    role: Role
    pid: int
    samples: list[Sample]
    latencies: list[Stretch]
    done: Done | None


class ClientFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One client. Records are acknowledged or read; sizes in bytes, times in seconds unless they say `ms`."""

    name: str
    pid: int
    records: int
    failed: int
    seconds: float
    records_per_s: float
    mb_per_s: float
    cpu_s: float
    rss_anon_max: int | None
    latency: Latencies | None


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time that ends `at_s` seconds after the start."""

    at_s: float
    sent_per_s: float
    read_per_s: float
    p50_ms: float | None
    p99_ms: float | None


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of one kind; `curve` has (percentile, milliseconds)."""

    latency: Latencies
    curve: list[tuple[float, float]]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole test. MB are 2**20 bytes of values, as kafka-producer-perf-test counts them.

    `ack`: from when a record was to be sent to its acknowledgement; `end_to_end`: to the consumer's hands.
    """

    spec: Spec
    interrupted: bool
    problem: str
    """Why it ended before it was done, if not for the user; the figures are those up to then."""
    seconds: float
    sent: int
    """Of a producer that did not come to its end, those that it told to be acknowledged."""
    unsent: int
    """Records that were due in the time, and that no producer came to send: they are in no latency."""
    acked: int
    read: int
    records_per_s: float
    mb_per_s: float
    ack: Timing | None
    end_to_end: Timing | None
    clients: list[ClientFigures]
    servers: list[ServerUsage]
    timeline: list[Moment]
    error: str
    """Why the first record failed that was not acknowledged."""
    verification: Verdict | None = None

    @property
    def timing(self) -> Timing | None:
        """The one to report first."""
        return self.end_to_end or self.ack

    @property
    def records(self) -> int:
        """What the rate is of: records that came to their end."""
        return self.acked if self.spec.mode == "produce" else self.read

    @property
    def doubt(self) -> str:
        """To be said of a test that has ended early."""
        return "; nothing is verified" if self.spec.verify and self.verification is None else ""

    @property
    def shortfall(self) -> str:
        """What the latencies leave out; empty if that is nothing."""
        if not self.unsent:
            return ""
        return (
            f"due, and not sent: {plural(self.unsent, 'record')}, in no latency; "
            f"{self.spec.rate:,.0f} a second were too many"
        )

    @property
    def unread(self) -> str:
        """What consumers that read at once have missed or read too much, and what that may mean; empty if it
        is nothing. What failed may be stored all the same, and read."""
        at_once, whole = self.spec.mode in ("e2e", "latency"), not (self.interrupted or self.problem)
        missing, failed = self.acked - self.read, sum(client.failed for client in self.clients)
        if not (at_once and whole) or -failed <= missing <= 0:
            return ""
        if missing < 0:
            others = f"others write to {self.spec.topic}, and what is lost does not show"
            why = "some are there twice" if self.spec.marked else others
            return f"read beyond what was {self.answered}: {plural(-missing, 'record')}; {why}"
        why = "lost, which acks=0 allows" if self.spec.acks == "0" else "removed before (retention), or lost"
        return f"{were(missing, 'record')} not read: {why}"

    @property
    def warm_up(self) -> str:
        """What else was written to a topic that stays; empty if that is nothing."""
        count = self.spec.warm_up_records
        if not (self.spec.existing and count):
            return ""
        return (
            f"{plural(count, 'empty record')} more went to {self.spec.topic}, which no figure counts: one of "
            "each producer to each partition, to open connections before the start"
        )

    @property
    def answered(self) -> str:
        """What is known of the records that count as sent: with acks=0 only that they went out."""
        return "handed to the connection" if self.spec.acks == "0" else "acknowledged"

    @property
    def explanation(self) -> str:
        """From when to when the latencies are, and whether pauses of the senders count; empty without any."""
        if self.timing is None:
            return ""
        until = f"it was {self.answered}" if self.end_to_end is None else "a consumer had it"
        begin = "a record was sent" if self.spec.rate is None else "a record was due (open loop)"
        return f"latency: from when {begin} until {until}"

    def line(self) -> str:
        """To compare with what kafka-producer-perf-test prints at its end."""
        what = {"produce": "sent", "consume": "read"}.get(self.spec.mode, "sent and read")
        rates = f"{self.records_per_s:.6f} records/sec ({self.mb_per_s:.2f} MB/sec)"
        text = f"{self.records} records {what}, {rates}"
        if self.timing is None:
            return f"{text}."
        of = self.timing.latency
        return (
            f"{text}, {of.avg_ms:.2f} ms avg latency, {of.max_ms:.2f} ms max latency, "
            f"{of.p50_ms:.2f} ms 50th, {of.p95_ms:.2f} ms 95th, {of.p99_ms:.2f} ms 99th, "
            f"{of.p999_ms:.2f} ms 99.9th."
        )


def results_of(
    spec: Spec,
    heard: Sequence[Heard],
    start_ns: int,
    servers: list[ServerUsage],
    *,
    interrupted: bool,
    problem: str = "",
    verification: Verdict | None = None,
) -> Results:
    """Figures of what clients said. Times are in nanoseconds of one clock."""
    producers = [each for each in heard if each.role == "producer"]
    consumers = [each for each in heard if each.role == "consumer"]
    reading = spec.mode != "produce"
    counted = consumers if reading else producers
    records = sum(map(_records, counted))
    seconds = max((_seconds(spec, each, start_ns) for each in counted), default=FIGURES_S_MIN)
    ack, end_to_end = _timing(producers), _timing(consumers)
    sent = sum(_records(each) if each.done is None else each.done.sent for each in producers)
    return Results(
        spec=spec,
        interrupted=interrupted,
        problem=problem,
        seconds=seconds,
        sent=sent,
        unsent=0 if interrupted or problem else max(0, _due(spec) - sent),
        acked=sum(map(_records, producers)),
        read=sum(map(_records, consumers)),
        records_per_s=records / seconds,
        mb_per_s=sum(_value_bytes(spec, each) for each in counted) / seconds / MIB,
        ack=ack,
        end_to_end=end_to_end,
        clients=[_figures(spec, each, start_ns) for each in heard],
        servers=servers,
        timeline=_timeline(producers, consumers, start_ns, _end_s(heard, start_ns, seconds)),
        error=next((each.done.error for each in producers if each.done is not None and each.done.error), ""),
        verification=verification,
    )


def _due(spec: Spec) -> int:
    """How many records a rate makes due before the time is over; 0 if all are sent however long it takes."""
    if spec.rate is None or spec.duration_s is None:
        return 0
    due = int(spec.rate * spec.duration_s)
    return due if spec.records is None else min(due, spec.records)


def _records(heard: Heard) -> int:
    return heard.samples[-1].records if heard.samples else 0


def _value_bytes(spec: Spec, heard: Heard) -> int:
    if not spec.only_reads:
        return _records(heard) * spec.record_bytes
    return heard.samples[-1].value_bytes if heard.samples else 0


def _seconds(spec: Spec, heard: Heard, start_ns: int) -> float:
    """From the start to its last record; or for as long as it was to read, since nothing may have come."""
    seconds = _last_s(heard, start_ns)
    if spec.mode == "consume" and spec.duration_s is not None and heard.samples:
        seconds = max(seconds, min((heard.samples[-1].at_ns - start_ns) / 1e9, spec.duration_s))
    return seconds


def _last_s(heard: Heard, start_ns: int) -> float:
    """When its last record came, in seconds from the start."""
    last_ns = heard.samples[-1].at_ns if heard.samples else 0
    if heard.done is not None:
        last_ns = heard.done.last_ns
    return max(FIGURES_S_MIN, (last_ns - start_ns) / 1e9)


def _end_s(heard: Sequence[Heard], start_ns: int, seconds: float) -> float:
    """When the last record of any came, or later: acknowledgements may come after the last is read."""
    return max(seconds, *(_last_s(each, start_ns) for each in heard), FIGURES_S_MIN)


def _figures(spec: Spec, heard: Heard, start_ns: int) -> ClientFigures:
    records, seconds = _records(heard), _seconds(spec, heard, start_ns)
    timing = _timing([heard])
    memory = [sample.rss_anon for sample in heard.samples if sample.rss_anon is not None]
    return ClientFigures(
        name=heard.name,
        pid=heard.pid,
        records=records,
        failed=0 if heard.done is None else heard.done.failed,
        seconds=seconds,
        records_per_s=records / seconds,
        mb_per_s=_value_bytes(spec, heard) / seconds / MIB,
        cpu_s=heard.samples[-1].cpu_s if heard.samples else 0.0,
        rss_anon_max=max(memory, default=None),
        latency=None if timing is None else timing.latency,
    )


def _timing(heard: Sequence[Heard]) -> Timing | None:
    histogram = Histogram()
    for each in heard:
        for stretch in each.latencies:
            histogram.add(stretch.packed)
    latency = histogram.latencies()
    if latency is None:
        return None
    return Timing(latency=latency, curve=list(zip(CURVE, histogram.at(CURVE), strict=True)))


def _timeline(
    producers: Sequence[Heard], consumers: Sequence[Heard], start_ns: int, seconds: float
) -> list[Moment]:
    """Rates between evenly spaced moments, interpolated between the samples of each client."""
    width_s = max(MOMENT_S_MIN, seconds / MOMENTS_MAX)
    edges = list(accumulate([0.0] + [width_s] * int(seconds / width_s)))
    if seconds - edges[-1] > width_s / 10 or len(edges) == 1:
        edges.append(seconds)
    else:  # a little that is left belongs to the last
        edges[-1] = seconds
    sent, read = _counts(producers, start_ns, edges), _counts(consumers, start_ns, edges)
    timed = consumers if any(each.latencies for each in consumers) else producers
    latencies = _latencies_over_time(timed, start_ns, edges)
    moments = []
    for place, (before, after) in enumerate(pairwise(edges)):
        p50, p99 = latencies[place]
        moments.append(
            Moment(
                at_s=round(after, 3),
                sent_per_s=(sent[place + 1] - sent[place]) / (after - before),
                read_per_s=(read[place + 1] - read[place]) / (after - before),
                p50_ms=p50,
                p99_ms=p99,
            )
        )
    return moments


def _counts(heard: Sequence[Heard], start_ns: int, edges: Sequence[float]) -> list[float]:
    """How many records all of them had at each moment."""
    totals = [0.0] * len(edges)
    for each in heard:
        times = [0.0] + [max(0.0, (sample.at_ns - start_ns) / 1e9) for sample in each.samples]
        counts = [0] + [sample.records for sample in each.samples]
        if each.done is not None:  # what came last came then, not when it was told, or told again
            last_s = _last_s(each, start_ns)
            times = [min(time_s, last_s) for time_s in times]
        for place, edge in enumerate(edges):
            after = bisect_right(times, edge)
            totals[place] += counts[after - 1]
            if after < len(times):
                part = (edge - times[after - 1]) / (times[after] - times[after - 1])
                totals[place] += part * (counts[after] - counts[after - 1])
    return totals


def _latencies_over_time(
    heard: Sequence[Heard], start_ns: int, edges: Sequence[float]
) -> list[tuple[float | None, float | None]]:
    """50th and 99th percentile of what was told in each stretch."""
    packed: list[list[str]] = [[] for _ in edges]
    for each in heard:
        for stretch in each.latencies:
            place = bisect_left(edges, (stretch.at_ns - start_ns) / 1e9)
            packed[min(max(place, 1), len(edges) - 1)].append(stretch.packed)
    found: list[tuple[float | None, float | None]] = []
    for texts in packed[1:]:
        if not texts:
            found.append((None, None))
            continue
        histogram = Histogram()
        for text in texts:
            histogram.add(text)
        p50, p99 = histogram.at((50.0, 99.0))
        found.append((p50, p99))
    return found
