"""Runs a load test: topic, clients, phases, and what is heard of them."""

import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from tailrace.client.admin import Admin
from tailrace.protocol.errors import (
    DeliveryFailedError,
    InvalidArgumentError,
    LeaderNotAvailableError,
    TailraceError,
    TimedOutError,
    WorkerFailedError,
)
from tailrace.protocol.limits import GIB
from tailrace.protocol.record import TopicPartition
from tailrace.protocol.text import plural

from .crew import Client, Crew
from .histogram import Histogram
from .lines import Until
from .results import Results, results_of
from .servers import Servers
from .spec import Spec, Task, check_shares
from .verify import SequenceSet, Verdict, judge

Phase: TypeAlias = Literal["connecting", "filling", "measuring", "verifying"]
RETENTION_BYTES: Final = 4 * GIB
"""What its own topic keeps when nothing is verified, so that a long test does not fill the disk."""
UNACKED_WAIT_S: Final = 1.0
"""With acks=0, who reads is done when nothing more has been stored for so long."""
_UNACKED_LOOK_S: Final = 0.1
_CALL_MS: Final = 1_000
RATE_LOOKS: Final = 4
"""Clients tell four times a second how far they are, not just before a look: a rate is of so many looks."""


class Progress(NamedTuple):
    """How far it is; `seconds` since the start of the phase, rates of about the last second."""

    phase: Phase
    seconds: float
    sent: int
    read: int
    sent_per_s: float
    read_per_s: float
    p99_ms: float | None
    """In about the last second."""
    interrupted: bool = False
    """It ends as soon as it can."""


Report: TypeAlias = Callable[[Progress], None]


def named(spec: Spec) -> Spec:
    """With a number of its own, and a name for its topic if that is to be made."""
    topic = spec.topic if spec.existing else f"bench-{random.getrandbits(40):010x}"
    return msgspec.structs.replace(spec, run=random.getrandbits(32), topic=topic)


def prepare(admin: Admin, spec: Spec) -> Spec:
    """With a topic: a new one of its own, or the one that is named, which must be there.

    Raises InvalidArgumentError if that has too few partitions, and like `Admin.describe_topics` and
    `create_topic`.
    """
    if spec.existing:
        found = admin.describe_topic(spec.topic)
        replicas = found.replication_factor
        spec = msgspec.structs.replace(spec, partitions=len(found.partitions), replication_factor=replicas)
        check_shares(spec)
        return spec
    config: dict[str, str | int] = {}
    if not spec.verify and spec.mode != "consume":
        config["retention_bytes"] = RETENTION_BYTES // spec.partitions
    admin.create_topic(spec.topic, spec.partitions, spec.replication_factor, config=config)
    return spec


def first_of(starts: Mapping[int, int], ends: Mapping[int, int], records: int) -> dict[int, int]:
    """Where the first so many offsets end, of each partition about as many. Pure."""
    found, left = {}, records
    smallest_first = sorted(starts, key=lambda number: ends[number] - starts[number])
    for place, number in enumerate(smallest_first):
        count = min(ends[number] - starts[number], left // (len(smallest_first) - place))
        found[number] = starts[number] + count
        left -= count
    return found


class Runner:
    """One test, on a topic that is there. `servers` are the cluster's processes by name.

    `own`: nobody starts one of them again that ends. `begin` is called when signals are heard by the test:
    from then on there may be something to lose.
    """

    def __init__(
        self,
        spec: Spec,
        admin: Admin,
        servers: Mapping[str, int | None],
        report: Report,
        *,
        own: bool = False,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._spec = spec
        self._admin = admin
        self._servers = Servers(servers)
        self._own = own
        self._on_begin = begin
        self._report = report
        self._crew = Crew(self._tick)
        self._phase: Phase = "connecting"
        self._begun_at = time.monotonic()
        self._looks: deque[tuple[float, int, int]] = deque(maxlen=RATE_LOOKS)
        """When, and how many were sent and read then."""
        self._start_ns = 0
        self._measured: list[Client] = []
        self._progressed = (0, 0.0)
        self._problem = ""
        self._verdict: Verdict | None = None

    def run(self) -> Results:
        """Until it is over, or SIGINT, SIGTERM or an error ends it early: then with what there is.

        After a first signal what is to be verified is still read, and verified; a second one ends that, too.

        Raises, before anything was measured, WorkerFailedError when a client or a node of its own dies,
        DeliveryFailedError when what is to be read could not be written, KeyboardInterrupt when it was told
        to end, InvalidArgumentError if there is nothing to read, and like `Admin.list_offsets`.
        """
        phases = {"produce": self._produce, "consume": self._consume}
        with self._crew:
            self._on_begin()
            try:
                phases.get(self._spec.mode, self._both)()
                self._servers.end()
                if self._spec.verify and not self._crew.stopping:
                    self._verify()
            except KeyboardInterrupt:
                if not self._start_ns:
                    if self._problem and not self._crew.interrupted:
                        raise WorkerFailedError(self._problem) from None
                    raise
            except TailraceError as error:
                if not self._start_ns:
                    raise
                self._end_with(error)
        return results_of(
            self._spec,
            [client.heard for client in self._measured],
            self._start_ns,
            self._servers.used,
            interrupted=self._crew.interrupted,
            problem=self._problem,
            verification=self._verdict,
        )

    # ------------------------------------------------------------------ phases

    def _produce(self) -> None:
        producers = self._add_producers()
        starts = self._ends()
        self._start("measuring", producers)
        self._crew.wait(producers)
        self._servers.end()
        if self._spec.verify and not self._crew.stopping:
            consumers = self._add_consumers(starts, measure=False)
            self._begin("verifying")
            self._crew.start()
            self._read_to_the_end(consumers)

    def _consume(self) -> None:
        starts, ends = self._found() if self._spec.only_reads else self._filled()
        consumers = self._add_consumers(starts, measure=False, repeat=self._spec.duration_s is not None)
        self._tell_ends(consumers, ends)
        self._start("measuring", consumers)
        self._await_readers(consumers)

    def _found(self) -> tuple[dict[int, int], dict[int, int]]:
        """Where what the topic holds begins, and where what is to be read of it ends."""
        starts, ends = self._offsets(Admin.EARLIEST), self._ends()
        if starts == ends:
            raise InvalidArgumentError(
                f"topic {self._spec.topic!r} holds no records: there is nothing to read"
            )
        return starts, ends if self._spec.records is None else first_of(starts, ends, self._spec.records)

    def _filled(self) -> tuple[dict[int, int], dict[int, int]]:
        """Where what was written to be read begins and ends."""
        producers = self._add_producers(measure=False)
        starts = self._settled_ends()
        self._begin("filling")
        self._crew.start()
        self._crew.wait(producers)
        if self._crew.stopping:
            raise KeyboardInterrupt
        _check_filled(producers)
        return starts, self._settled_ends()

    def _both(self) -> None:
        producers = self._add_producers()
        consumers = self._add_consumers(self._settled_ends())
        self._start("measuring", [*producers, *consumers])
        self._crew.wait(producers)
        if self._crew.interrupted and not self._crew.stopping:
            self._begin("verifying")
        self._read_to_the_end(consumers)

    def _read_to_the_end(self, consumers: list[Client]) -> None:
        """Have consumers read what is stored by now, or all of it that comes."""
        if not self._crew.stopping:
            self._tell_ends(consumers, self._settled_ends())
        self._await_readers(consumers)

    def _tell_ends(self, consumers: list[Client], ends: Mapping[int, int]) -> None:
        for client in consumers:
            client.tell(Until({number: ends[number] for number in client.task.starts}))

    def _await_readers(self, consumers: list[Client]) -> None:
        self._progressed = (-1, time.monotonic())
        self._crew.wait(consumers, lambda: self._end_if_stalled(consumers))

    def _end_if_stalled(self, consumers: list[Client]) -> None:
        """What has been read is told all the same: it says what is missing."""
        now, (before, since) = time.monotonic(), self._progressed
        read = sum(client.records for client in consumers)
        if read != before:
            self._progressed = read, now
        elif now - since > self._spec.timeout_s and not (self._problem or self._crew.stopping):
            waited = f"{self._spec.timeout_s:g} s"
            self._problem = f"nothing more came to the consumers for {waited}, after {read:,} records"
            self._crew.stop()

    def _end_with(self, error: TailraceError) -> None:
        """What was measured is told all the same."""
        self._servers.end()
        self._problem = str(error)
        self._crew.stop()
        self._crew.wait(self._crew.clients)

    def _verify(self) -> None:
        """Compare what was acknowledged with what was read."""
        clients = self._crew.clients
        told = [client.done for client in clients if client.done is not None]
        if len(told) < len(clients):  # interrupted just now
            return
        producers = [client.done for client in clients if client.task.role == "producer" and client.done]
        self._verdict = judge(
            [done.sent for done in producers],
            [SequenceSet.unpack(done.acked) for done in producers],
            [done.seen for done in told if done.seen is not None],
        )
        if self._verdict.lost:
            self._verdict = msgspec.structs.replace(self._verdict, deleted=self._deleted())

    def _deleted(self) -> int:
        """How many records are not there any more of those that were to be read."""
        starts = {number: at for client in self._crew.clients for number, at in client.task.starts.items()}
        return sum(max(0, at - starts[number]) for number, at in self._offsets(Admin.EARLIEST).items())

    # ----------------------------------------------------------------- clients

    def _add_producers(self, *, measure: bool = True) -> list[Client]:
        spec = self._spec
        if spec.mode == "consume":  # what is only there to be read is written as fast as it can be
            spec = msgspec.structs.replace(spec, duration_s=None)
        tasks = [
            Task(spec=spec, role="producer", index=index, measure=measure) for index in range(spec.producers)
        ]
        return self._crew.add(tasks, spec.timeout_s)

    def _add_consumers(
        self, starts: Mapping[int, int], *, measure: bool = True, repeat: bool = False
    ) -> list[Client]:
        """The partitions go round."""
        spec = self._spec
        tasks = [
            Task(
                spec=spec,
                role="consumer",
                index=index,
                measure=measure,
                repeat=repeat,
                starts={number: starts[number] for number in range(index, spec.partitions, spec.consumers)},
            )
            for index in range(spec.consumers)
        ]
        return self._crew.add(tasks, spec.timeout_s)

    def _start(self, phase: Phase, measured: list[Client]) -> None:
        self._measured = measured
        if self._spec.verify:
            self._crew.first = [client for client in measured if client.task.role == "producer"]
        self._begin(phase)
        self._servers.begin()
        self._start_ns = self._crew.start()

    # ----------------------------------------------------------------- offsets

    def _ends(self) -> dict[int, int]:
        """Where each partition ends now."""
        return self._offsets(Admin.LATEST)

    def _offsets(self, which: int) -> dict[int, int]:
        """Of each partition. Asked for in short calls, so that signals are heard between them."""
        wanted = {TopicPartition(self._spec.topic, number): which for number in range(self._spec.partitions)}
        deadline = time.monotonic() + self._spec.timeout_s
        while True:
            try:
                found = self._admin.list_offsets(wanted, timeout_ms=_CALL_MS)
                return {place.partition: 0 if at is None else at.offset for place, at in found.items()}
            except (LeaderNotAvailableError, TimedOutError):
                if time.monotonic() >= deadline:
                    raise
            self._crew.pause(0)
            if self._crew.stopping:
                raise KeyboardInterrupt

    def _settled_ends(self) -> dict[int, int]:
        """Where they end when all that was sent is stored."""
        ends, same_since = self._ends(), time.monotonic()
        while self._spec.acks == "0" and time.monotonic() - same_since < UNACKED_WAIT_S:
            self._crew.pause(_UNACKED_LOOK_S)
            now = self._ends()
            if now != ends:
                ends, same_since = now, time.monotonic()
            if self._crew.stopping:
                break
        return ends

    # ---------------------------------------------------------------- progress

    def _begin(self, phase: Phase) -> None:
        self._phase = phase
        self._begun_at = time.monotonic()
        self._looks.clear()
        self._looks.append((self._begun_at, *self._totals()))

    def _totals(self) -> tuple[int, int]:
        clients = self._crew.clients
        sent = sum(client.records for client in clients if client.task.role == "producer")
        return sent, sum(client.records for client in clients if client.task.role == "consumer")

    def _tick(self) -> None:
        self._servers.look()
        if self._own and self._servers.gone and not (self._problem or self._crew.stopping):
            self._problem = f"{self._servers.gone[0]} has ended, and nobody starts it again"
            self._crew.stop()
        now, (sent, read) = time.monotonic(), self._totals()
        before, sent_before, read_before = self._looks[0]
        passed_s = max(1e-9, now - before)
        self._looks.append((now, sent, read))
        self._report(
            Progress(
                self._phase,
                now - self._begun_at,
                sent,
                read,
                (sent - sent_before) / passed_s,
                (read - read_before) / passed_s,
                self._recent_p99(),
                self._crew.interrupted,
            )
        )

    def _recent_p99(self) -> float | None:
        """Of what each client told last."""
        histogram = Histogram()
        for client in self._measured:
            if client.latencies:
                histogram.add(client.latencies[-1].packed)
        return histogram.at((99.0,))[0] if histogram.count else None


def _check_filled(producers: list[Client]) -> None:
    told = [client.done for client in producers if client.done is not None]
    failed, sent = sum(done.failed for done in told), sum(done.sent for done in told)
    if failed:
        why = next((f": {done.error}" for done in told if done.error), "")
        raise DeliveryFailedError(
            f"nothing was measured: of {plural(sent, 'record')} to be read {failed:,} were not acknowledged"
            f"{why}"
        )
