"""What a client under test does: as its task says, on the schedule's time, whatever its producer answers."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import pytest

from tailrace.bench import consuming, producing
from tailrace.bench.consuming import Consuming
from tailrace.bench.counts import LatencyCounts
from tailrace.bench.lines import Done
from tailrace.bench.producing import Producing
from tailrace.bench.records import HEADER_BYTES, Values, marks_of
from tailrace.bench.spec import Role, Spec, Task, completed
from tailrace.bench.verify import SequenceSet
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.record import Record, TopicPartition

S = 1_000_000_000
MS = 1_000_000
START_NS = 5 * S


class Clock:
    """In place of `time`: goes on while somebody sleeps, and by `pause_ns` at the end of the first sleep."""

    def __init__(self, pause_ns: int = 0) -> None:
        self.ns = START_NS
        self.pause_ns = pause_ns

    def monotonic_ns(self) -> int:
        return self.ns

    def monotonic(self) -> float:
        return self.ns / 1e9

    def time_ns(self) -> int:
        return self.ns

    def sleep_until(self, due_ns: int) -> None:
        self.ns = max(self.ns, due_ns) + self.pause_ns
        self.pause_ns = 0


class Answered:
    """An answer to everything that was sent with it."""

    def __init__(self, error: TailraceError | None) -> None:
        self.error = error
        self.outcome = self

    def result(self, _timeout: float) -> None:
        return None

    def when_done(self, told: Callable[[Any], None]) -> None:
        told(self)

    def add_callback(self, told: Callable[[Any], None]) -> None:
        if self.error is None:
            told(None)

    def add_errback(self, told: Callable[[Any], None]) -> None:
        if self.error is not None:
            told(self.error)


class StandInProducer:
    """Answers at once; `errors`: those to the calls by their number, from 0 on."""

    def __init__(self, errors: dict[int, TailraceError], **options: Any) -> None:
        self.options = options
        self.calls: list[tuple[Sequence[bytes], Sequence[bytes] | None]] = []
        """Values and keys of each."""
        self.bulk: set[bool] = set()
        self._errors = errors

    def partitions_for(self, _topic: str) -> set[int]:
        return {0}

    def send(
        self, _topic: str, value: bytes, key: bytes | None = None, partition: int | None = None
    ) -> Answered:
        if partition is not None:  # so that connections are there
            return Answered(None)
        return self._take([value], None if key is None else [key], bulk=False)

    def send_many(
        self, _topic: str, values: Sequence[bytes], keys: Sequence[bytes] | None = None
    ) -> Answered:
        return self._take(values, keys, bulk=True)

    def flush(self, _timeout: float) -> None:
        return None

    def close(self, timeout: float) -> None:
        assert timeout == 0

    def _take(self, values: Sequence[bytes], keys: Sequence[bytes] | None, *, bulk: bool) -> Answered:
        self.calls.append((list(values), keys))
        self.bulk.add(bulk)
        return Answered(self._errors.get(len(self.calls) - 1))


class StandInConsumer:
    """Has four records of partition 0 for whoever asks first, by `batches` or by `poll`."""

    def __init__(self, values: list[bytes], **options: Any) -> None:
        self.options = options
        self.asked: list[str] = []
        self._values = values

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def assign(self, _places: list[TopicPartition]) -> None:
        return None

    pause = resume = seek = lambda *_: None

    def position(self, _place: TopicPartition) -> int:
        return 0

    def batches(self, timeout_ms: int) -> list[Any]:
        self.asked.append("batches")
        stamps = [timeout_ms] * len(self._values)
        return [
            SimpleNamespace(
                partition=0, offsets=range(len(self._values)), timestamps=stamps, values=self._values
            )
        ]

    def poll(self, timeout_ms: int, max_records: int | None = None) -> dict[TopicPartition, list[Any]]:
        if max_records is not None:  # has the connections made
            return {}
        self.asked.append("poll")
        place = TopicPartition("t", 0)
        return {
            place: [
                Record("t", 0, offset, timeout_ms, None, value, ())
                for offset, value in enumerate(self._values)
            ]
        }


class Run:
    """One client that has done its task; `client` is what it was given to work with, `kind` its class."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        role: Role,
        clock: Clock,
        given: Any,
        *,
        index: int = 0,
        **spec: Any,
    ) -> None:
        module: Any = producing if role == "producer" else consuming
        stand_in: Any = StandInProducer if role == "producer" else StandInConsumer
        names = (
            ("WatchedProducer", "RemoteProducer") if role == "producer" else ("Consumer", "RemoteConsumer")
        )
        for name in names:
            monkeypatch.setattr(
                module, name, lambda name=name, **options: self._make(stand_in, name, options)
            )
        monkeypatch.setattr(module, "time", clock)
        self._given = given
        self.spec = completed(Spec(topic="t", **spec))
        self.latencies = LatencyCounts()
        inbox: Any = SimpleNamespace(
            stopping=False, until={0: 4}, sleep_until=clock.sleep_until, wait_for_start=lambda: START_NS
        )
        voice: Any = SimpleNamespace(
            latencies=self.latencies, say=lambda _: None, begin=lambda _: None, sample=lambda *_, **__: None
        )
        task = Task(spec=self.spec, role=role, index=index, starts={0: 0})
        self.done: Done = (Producing if role == "producer" else Consuming)(task, inbox, voice).run()

    def _make(self, stand_in: Any, kind: str, options: dict[str, Any]) -> Any:
        self.kind = kind
        self.client = stand_in(self._given, **options)
        return self.client


@pytest.fixture
def produce(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    def run(clock: Clock | None = None, errors: dict[int, TailraceError] | None = None, **spec: Any) -> Run:
        return Run(monkeypatch, "producer", clock or Clock(), errors or {}, **spec)

    return run


@pytest.fixture
def consume(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    def run(values: list[bytes], **spec: Any) -> Run:
        return Run(monkeypatch, "consumer", Clock(), values, **spec)

    return run


def test_the_producer_is_as_the_task_says(produce: Callable[..., Run]) -> None:
    options = {"acks": "1", "batch_bytes": 1_000, "compression": "lz4", "linger_ms": 7.0, "timeout_s": 9.0}
    run = produce(mode="produce", records=5, **options)
    assert run.client.options == {
        "bootstrap_servers": "", "acks": 1, "batch_size": 1_000, "compression_type": "lz4", "linger_ms": 7.0,
        "max_block_ms": 9_000,
    }  # fmt: skip
    assert run.kind == "WatchedProducer"
    assert produce(mode="produce", records=5, local=False).kind == "RemoteProducer"


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("mode", ["produce", "e2e"])
def test_values_are_as_large_as_the_task_says(
    produce: Callable[..., Run], mode: str, one_by_one: bool
) -> None:
    """With marks in them or without."""
    run = produce(mode=mode, rate=10.0, records=70, record_bytes=37, one_by_one=one_by_one)
    values = [value for values, _ in run.client.calls for value in values]
    assert list(map(len, values)) == [37] * 70


@pytest.mark.parametrize("mode", ["produce", "latency"])
def test_it_ends_when_the_time_is_over(produce: Callable[..., Run], mode: str) -> None:
    clock = Clock()
    run = produce(clock, mode=mode, rate=10.0, duration_s=3.0)
    assert (run.done.sent, run.done.failed) == (30, 0)
    assert clock.ns == run.done.last_ns == START_NS + 2_900 * MS, "when the last of them was due"


@pytest.mark.parametrize("how", [{"mode": "latency"}, {"mode": "e2e"}, {"mode": "e2e", "one_by_one": True}])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_producers_share_a_rate_and_take_turns(
    produce: Callable[..., Run], how: dict[str, Any], index: int
) -> None:
    """30 a second of three producers: what they send is due as the records of one would be."""
    run = produce(index=index, producers=3, rate=30.0, duration_s=2.05, **how)
    stamps = [stamp for values, _ in run.client.calls for stamp in marks_of(values, 100).stamps]
    assert stamps == [pytest.approx(START_NS + place * S / 30, abs=10) for place in range(index, 62, 3)]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_keys_go_round(produce: Callable[..., Run], one_by_one: bool) -> None:
    run = produce(mode="produce", records=200, keys=3, one_by_one=one_by_one)
    assert run.client.bulk == {not one_by_one}
    keys = [key for _, keys in run.client.calls for key in keys]
    assert keys == [b"key-%d" % (place % 3) for place in range(200)]
    assert all(
        keys is None for _, keys in produce(mode="produce", records=5, one_by_one=one_by_one).client.calls
    )


@pytest.mark.parametrize("how", [{"mode": "latency"}, {"mode": "e2e"}, {"mode": "e2e", "one_by_one": True}])
def test_a_pause_counts_for_all_that_was_due_in_it(produce: Callable[..., Run], how: dict[str, Any]) -> None:
    """Who sends late has them wait for longer, not for less. Consumers count from the same time."""
    run = produce(Clock(pause_ns=450 * MS), rate=10.0, records=8, **how)
    found = dict.fromkeys((1, 50_000, 150_000, 250_000, 350_000, 450_000), 1) | {1: 3}
    assert sorted(run.latencies.take().items()) == [
        (pytest.approx(us, rel=1e-3), n) for us, n in found.items()
    ]
    stamps = [stamp for values, _ in run.client.calls for stamp in marks_of(values, 100).stamps]
    assert stamps == [START_NS + place * 100 * MS for place in range(8)]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_what_failed_is_not_acknowledged(produce: Callable[..., Run], one_by_one: bool) -> None:
    options: dict[str, Any] = {
        "mode": "e2e",
        "rate": 10.0,
        "records": 6,
        "verify": True,
        "one_by_one": one_by_one,
    }
    run = produce(errors={2: TailraceError("no room"), 4: TailraceError("later")}, **options)
    assert (run.done.sent, run.done.failed, run.done.error) == (6, 2, "no room")
    acked = SequenceSet.unpack(run.done.acked)
    assert [sequence in acked for sequence in range(6)] == [True, True, False, True, False, True]
    assert sum(run.latencies.take().values()) == 4


def marked(stamp: int) -> list[bytes]:
    values = Values(record_bytes=HEADER_BYTES, count=4, run=0, producer=0, marked=True)
    return list(values.next(4, 0, stamp))


@pytest.mark.parametrize("poll", [False, True])
def test_the_consumer_is_as_the_task_says(consume: Callable[..., Run], poll: bool) -> None:
    """And counts from when a record was due."""
    options: dict[str, Any] = {"mode": "latency", "record_bytes": HEADER_BYTES, "poll": poll}
    run = consume(marked(START_NS - 20 * MS), **options)
    assert run.client.asked == ["poll" if poll else "batches"]
    assert run.kind == "Consumer"
    assert run.client.options["auto_offset_reset"] == "earliest"
    ((us, count),) = run.latencies.take().items()
    assert count == 4
    assert us == pytest.approx(20_000, rel=0.001)
    assert consume(marked(0), local=False, **options).kind == "RemoteConsumer"
