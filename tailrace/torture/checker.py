"""Does a history hold what the log promises? Pure: events in, a verdict out.

What must hold: each acknowledged record lies once, at the offset that was acknowledged, in every replica;
every consumer was handed all of it, without gaps and in the order in which each producer sent it; no high
watermark went back for who asked for it; nothing came that nobody sent; and no process ended by itself.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from .history import Acked, Crashed, Event, Failed, Read, Replica, Sent, Stored, Watermark

EXAMPLES_MAX: Final = 10

VIOLATIONS: Final[dict[str, str]] = {
    "lost": "acknowledged, and in no replica",
    "misplaced": "acknowledged at another offset than where it lies",
    "duplicated": "stored or read more than once",
    "reordered": "in another order than it was sent",
    "unseen": "acknowledged and stored, and not read by a consumer",
    "vanished": "read, and in no replica",
    "unasked": "stored or read, and never sent",
    "gaps": "offsets that a consumer's reading skipped or went back over",
    "diverged": "offsets at which replicas, or what was read, differ",
    "went_back": "times that a high watermark went back for who asked for it",
    "corrupt": "problems that the verification of a replica found",
    "crashed": "processes that ended by themselves",
}
"""What can be wrong, and what its count counts."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Counts. `unknown`: records whose producer gave up on them, which may be stored or not."""

    sent: int
    acked: int
    read: int
    unknown: int
    replicas: int
    violations: dict[str, int]
    examples: list[str]

    @property
    def holds(self) -> bool:
        """Is nothing wrong?"""
        return not any(self.violations.values())


class _Record(NamedTuple):
    producer: int
    sequence: int

    def __str__(self) -> str:
        return f"record {self.sequence} of producer {self.producer}"


class _Place(NamedTuple):
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"offset {self.offset} of partition {self.partition}"


class Checker:
    """Takes in a history event by event; the events of one process must come in their order."""

    def __init__(self) -> None:
        self._violations = Counter(dict.fromkeys(VIOLATIONS, 0))
        self._examples: list[str] = []
        self._sent: Counter[int] = Counter()
        self._acked: dict[_Record, _Place] = {}
        self._unknown = 0
        self._read: defaultdict[int, set[_Record]] = defaultdict(set)
        self._next_read: dict[tuple[int, int], int] = {}
        self._last_read: dict[tuple[int, int, int], int] = {}
        self._watermarks: dict[tuple[str, int], int] = {}
        self._content: dict[_Place, _Record] = {}
        """What lies where, as the first told who had it: replica or consumer."""
        self._stored: set[_Place] = set()
        self._digests: dict[_Place, int] = {}
        self._replicas: list[Replica] = []
        self._next_stored: dict[tuple[int, int], int] = {}

    def add(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case Sent():
                self._sent[event.producer] = max(self._sent[event.producer], event.first + event.count)
            case Acked():
                self._add_acked(event)
            case Failed():
                self._unknown += len(event.sequences)
            case Read():
                self._add_read(event)
            case Watermark():
                self._add_watermark(event)
            case Stored():
                self._add_stored(event)
            case Replica():
                self._replicas.append(event)
                for problem in event.problems:
                    self._violate("corrupt", f"partition {event.partition} of node {event.node}: {problem}")
            case Crashed():
                self._violate("crashed", f"{event.process} at {event.at_s:.1f} s: {event.reason}")

    def verdict(self) -> Verdict:
        """All has been taken in."""
        self._check_ends()
        self._check_content()
        self._check_acked()
        return Verdict(
            sent=self._sent.total(),
            acked=len(self._acked),
            read=max(map(len, self._read.values()), default=0),
            unknown=self._unknown,
            replicas=len(self._replicas),
            violations=dict(self._violations),
            examples=self._examples,
        )

    # ------------------------------------------------------------- one event

    def _add_acked(self, event: Acked) -> None:
        for sequence, offset in zip(event.sequences, event.offsets, strict=True):
            record, place = _Record(event.producer, sequence), _Place(event.partition, offset)
            before = self._acked.setdefault(record, place)
            if before != place:
                self._violate("duplicated", f"{record} was acknowledged at {before} and {place}")

    def _add_read(self, event: Read) -> None:
        who = f"consumer {event.consumer}"
        seen = self._read[event.consumer]
        stream = (event.consumer, event.partition)
        for offset, producer, sequence in zip(event.offsets, event.producers, event.sequences, strict=True):
            record, place = _Record(producer, sequence), _Place(event.partition, offset)
            following = self._next_read.get(stream, 0)
            if offset != following:
                where = f"{who} got offset {offset} of partition {event.partition}"
                self._violate("gaps", f"{where} at {event.at_s:.1f} s, and {following} should have followed")
            self._next_read[stream] = offset + 1
            if record in seen:
                self._violate("duplicated", f"{record} was read again by {who} at {place}")
            seen.add(record)
            self._check_order(event.consumer, event.partition, record)
            self._lies(record, place, who)

    def _check_order(self, consumer: int, partition: int, record: _Record) -> None:
        key = (consumer, partition, record.producer)
        last = self._last_read.get(key, -1)
        if record.sequence < last:
            self._violate("reordered", f"{record} was read after {last} in partition {partition}")
        self._last_read[key] = max(last, record.sequence)

    def _add_watermark(self, event: Watermark) -> None:
        key = (event.observer, event.partition)
        before = self._watermarks.get(key, 0)
        if event.offset < before:
            where = f"partition {event.partition} at {event.at_s:.2f} s"
            self._violate("went_back", f"{event.observer} saw the high watermark of {where} go back "
                          f"from {before} to {event.offset}")  # fmt: skip
        self._watermarks[key] = event.offset

    def _add_stored(self, event: Stored) -> None:
        who = f"node {event.node}"
        base = _Place(event.partition, event.offset)
        following = self._next_stored.get((event.node, event.partition), event.offset)
        if event.offset != following:
            self._violate("gaps", f"{who} has {base} where {following} should follow")
        self._next_stored[event.node, event.partition] = event.offset + len(event.sequences)
        if self._digests.setdefault(base, event.digest) != event.digest:
            self._violate("diverged", f"the batch at {base} has other bytes on {who}")
        for offset, row in enumerate(zip(event.producers, event.sequences, strict=True), event.offset):
            place = _Place(event.partition, offset)
            self._stored.add(place)
            self._lies(_Record(*row), place, who)

    def _lies(self, record: _Record, place: _Place, who: str) -> None:
        known = self._content.setdefault(place, record)
        if known != record:
            self._violate("diverged", f"{place} is {record} for {who}, {known} elsewhere")

    # --------------------------------------------------------------- the end

    def _check_ends(self) -> None:
        """All replicas of a partition hold the same offsets, up to the high watermark at least."""
        by_partition: defaultdict[int, list[Replica]] = defaultdict(list)
        for replica in self._replicas:
            by_partition[replica.partition].append(replica)
        for partition, replicas in by_partition.items():
            ends = {replica.node: replica.end for replica in replicas}
            starts = {replica.node: replica.start for replica in replicas}
            committed = max(replica.high_watermark for replica in replicas)
            if min(ends.values()) < committed or len(set(starts.values())) > 1:
                self._violate(
                    "diverged",
                    f"partition {partition}, committed to {committed}: from {starts} to {ends}",
                )

    def _check_content(self) -> None:
        """Each record lies at one place, and somebody sent it."""
        places: dict[_Record, _Place] = {}
        for place, record in self._content.items():
            if not 0 <= record.sequence < self._sent[record.producer]:
                self._violate("unasked", f"{record} lies at {place}")
            if self._replicas and place not in self._stored:
                self._violate("vanished", f"{record}, read at {place}")
                continue
            before = places.setdefault(record, place)
            if before != place:
                self._violate("duplicated", f"{record} lies at {before} and {place}")
        self._places = places

    def _check_acked(self) -> None:
        for record, place in self._acked.items():
            found = self._places.get(record)
            if found is None:
                self._violate("lost", f"{record}, acknowledged at {place}")
                continue
            if self._content.get(place) != record:
                self._violate("misplaced", f"{record}, acknowledged at {place}, lies at {found}")
            for consumer, seen in self._read.items():
                if record not in seen:
                    self._violate("unseen", f"{record} at {found}: not read by consumer {consumer}")

    def _violate(self, what: str, example: str) -> None:
        self._violations[what] += 1
        if self._violations[what] <= EXAMPLES_MAX:
            self._examples.append(f"{what}: {example}")


def check(history: Iterable[Event]) -> Verdict:
    """Check a whole history."""
    checker = Checker()
    for event in history:
        checker.add(event)
    return checker.verdict()
