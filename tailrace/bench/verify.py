"""Was every acknowledged record read once, in order, and as it was sent? Pure bookkeeping.

Each consumer checks the order of what it reads and marks it; the marks of all are compared at the end
with what the producers had acknowledged. A record is known by its producer and its sequence there.
"""

import base64
import zlib
from collections.abc import Sequence
from itertools import chain, compress
from operator import lt
from typing import Final

import msgspec

from tailrace.protocol.text import plural, were

from .contents import Contents
from .records import NO_MARKS, Marks, marks_of

EXAMPLES_MAX: Final = 10
"""So many ranges of records are told, of the others how many there are."""
SEQUENCES_MAX: Final = 1 << 33
"""A higher one is none of ours, and would take much memory to mark."""


class SequenceSet:
    """Sequences of one producer: a byte for each, so that ranges are marked and counted at C speed."""

    def __init__(self, marks: bytes = b"") -> None:
        self._marks = bytearray(marks)

    def __len__(self) -> int:
        return self._marks.count(1)

    def __contains__(self, sequence: int) -> bool:
        return sequence < len(self._marks) and self._marks[sequence] == 1

    def add_range(self, start: int, stop: int) -> list[int]:
        """Add sequences; which of them were there before."""
        self._grow(stop)
        before: list[int] = []
        if self._marks.count(1, start, stop):
            before = list(compress(range(start, stop), self._marks[start:stop]))
        self._marks[start:stop] = b"\1" * (stop - start)
        return before

    def add(self, sequence: int) -> bool:
        """Add one; was it there before?"""
        self._grow(sequence + 1)
        before = self._marks[sequence] == 1
        self._marks[sequence] = 1
        return before

    def pack(self) -> str:
        """As text, to travel."""
        return base64.b85encode(zlib.compress(self._marks, 1)).decode()

    @classmethod
    def unpack(cls, text: str) -> "SequenceSet":
        """What `pack` made."""
        return cls(zlib.decompress(base64.b85decode(text)))

    def number(self) -> int:
        """The bytes as one number, whose bits can be compared all at once."""
        return int.from_bytes(self._marks, "little")

    def _grow(self, size: int) -> None:
        if size > len(self._marks):
            self._marks.extend(bytes(max(size, 2 * len(self._marks)) - len(self._marks)))


class Seen(msgspec.Struct, kw_only=True):
    """What one consumer has read. `sequences` are packed sets by producer."""

    sequences: dict[int, str] = {}
    doubled: int = 0
    reordered: int = 0
    altered: int = 0
    foreign: int = 0
    """Records that are none of this run's."""
    examples: list[str] = []
    more: int = 0
    """Ranges that are not among the examples."""


class _Range(msgspec.Struct):
    """Records of one producer that lie one behind the other in a partition, with the same wrong with them."""

    partition: int
    producer: int
    what: str
    first: int
    last: int
    offsets: range

    def text(self) -> str:
        """`records 3 to 5 of producer 0, in partition 1 at offsets 7 to 9: read again`"""
        at = f"at {_span('offset', self.offsets[0], self.offsets[-1])}"
        records = _span("record", self.first, self.last)
        if len(self.offsets) <= self.last - self.first:  # with keys, others are in other partitions
            records = f"{len(self.offsets)} of {records}"
        return f"{records} of producer {self.producer}, in partition {self.partition} {at}: {self.what}"


class Checker:
    """One consumer's part. Records are given in the order in which they were read, and with their keys where
    what they hold is looked at, too."""

    def __init__(self, run: int, record_bytes: int, contents: Contents | None = None) -> None:
        self._run = run
        self._record_bytes = record_bytes
        self._contents = contents
        self._seen: dict[int, SequenceSet] = {}
        self._last: dict[tuple[int, int], int] = {}
        self._counts = Seen()
        self._ranges: list[_Range] = []
        """The first ones, and at the end the last."""

    def add(
        self,
        partition: int,
        values: Sequence[bytes | None],
        offsets: Sequence[int],
        keys: Sequence[bytes | None] = (),
    ) -> Marks:
        """Take in records of one partition; the headers of those that are this run's."""
        marks = marks_of(values, self._record_bytes)
        if not self._all_ours(marks):
            marks = self._ours(marks)
        if len(marks.places) < len(values):
            offsets = [offsets[place] for place in marks.places]
        self._counts.foreign += len(values) - len(marks.runs)
        producers = set(marks.producers)
        if len(producers) == 1:
            self._add(partition, producers.pop(), marks.sequences, offsets)
        else:
            for producer, sequence, offset in zip(marks.producers, marks.sequences, offsets, strict=True):
                self._add(partition, producer, (sequence,), (offset,))
        if self._contents is not None and marks.runs:
            for place in self._contents.altered(marks, values, keys):
                self._counts.altered += 1
                producer, sequence = marks.producers[place], marks.sequences[place]
                self._note(partition, producer, sequence, offsets[place], "not as it was sent")
        return marks

    def seen(self) -> Seen:
        """All of it."""
        packed = {producer: sequences.pack() for producer, sequences in self._seen.items()}
        examples = [each.text() for each in self._ranges[:EXAMPLES_MAX]]
        return msgspec.structs.replace(self._counts, sequences=packed, examples=examples)

    def _all_ours(self, marks: Marks) -> bool:
        return set(marks.runs) == {self._run} and max(marks.sequences) < SEQUENCES_MAX

    def _ours(self, marks: Marks) -> Marks:
        rows = zip(*marks, strict=True)
        ours = [row for row in rows if row[1] == self._run and row[3] < SEQUENCES_MAX]
        return Marks(*zip(*ours, strict=True)) if ours else NO_MARKS

    def _add(self, partition: int, producer: int, sequences: Sequence[int], offsets: Sequence[int]) -> None:
        seen = self._seen.setdefault(producer, SequenceSet())
        last = self._last.get((partition, producer), -1)
        first, stop = sequences[0], sequences[-1] + 1
        if all(map(lt, chain((last,), sequences), sequences)):
            self._last[partition, producer] = sequences[-1]
            whole = stop - first == len(sequences)
            again = (
                seen.add_range(first, stop) if whole else list(compress(sequences, map(seen.add, sequences)))
            )
            self._counts.doubled += len(again)
            if again:
                offset_of = dict(zip(sequences, offsets, strict=True))
                for sequence in again:
                    what = "read in another partition, too"
                    self._note(partition, producer, sequence, offset_of[sequence], what)
            return
        for sequence, offset in zip(sequences, offsets, strict=True):
            last = self._last.get((partition, producer), -1)
            if seen.add(sequence):
                self._counts.doubled += 1
                self._note(partition, producer, sequence, offset, "read again")
            elif sequence < last:
                self._counts.reordered += 1
                self._note(partition, producer, sequence, offset, f"read after {last}")
            self._last[partition, producer] = max(last, sequence)

    def _note(self, partition: int, producer: int, sequence: int, offset: int, what: str) -> None:
        last = self._ranges[-1] if self._ranges else None
        if last is not None and (partition, producer, what, offset) == (
            last.partition, last.producer, last.what, last.offsets.stop
        ):  # fmt: skip
            last.first, last.last = min(last.first, sequence), max(last.last, sequence)
            last.offsets = range(last.offsets.start, offset + 1)
            return
        if len(self._ranges) > EXAMPLES_MAX:
            self._ranges.pop()
        self._counts.more += len(self._ranges) == EXAMPLES_MAX
        self._ranges.append(_Range(partition, producer, what, sequence, sequence, range(offset, offset + 1)))


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it, in records. `unasked` were read though no producer had sent them.

    `unacked` were read though they were not acknowledged, such as those that failed with "perhaps stored":
    that is no violation.
    """

    acked: int
    read: int
    lost: int
    doubled: int
    reordered: int
    unasked: int
    unacked: int
    altered: int
    foreign: int
    examples: list[str]
    more: int = 0
    """Ranges that are not among the examples."""
    deleted: int = 0
    """Records that retention has deleted since the beginning: of those that are lost, some may be."""

    @property
    def holds(self) -> bool:
        """Was every acknowledged record read once, in order, and as it was sent?"""
        return not (self.lost or self.doubled or self.reordered or self.unasked or self.altered)

    def text(self) -> str:
        """For people."""
        others = f"; {were(self.foreign, 'record')} read that this test did not write" if self.foreign else ""
        if self.holds:
            more = f" ({plural(self.unacked, 'more record')} without)" if self.unacked else ""
            return (
                f"verified: each of {plural(self.acked, 'record')} with an acknowledgement{more} was read "
                f"once and in order{others}"
            )
        counts = (
            f"{self.lost:,} lost, {self.doubled:,} read more than once, {self.reordered:,} out of order, "
            f"{self.unasked:,} that nobody sent, {self.altered:,} not as they were sent"
        )
        head = f"VERIFICATION FAILED: of {plural(self.acked, 'acknowledged record')} {counts}{others}"
        rest = [f"and {plural(self.more, 'more range')} of records"] if self.more else []
        if self.lost and self.deleted:
            gone = f"retention has deleted {plural(self.deleted, 'record')} since the beginning"
            rest.append(f"{gone}: what was not read may be among them, and not lost")
        return "\n".join([head, *(f"  {each}" for each in [*self.examples, *rest])])


def judge(sent: Sequence[int], acked: Sequence[SequenceSet], consumers: Sequence[Seen]) -> Verdict:
    """Compare what each producer sent, how many and which were acknowledged, with what was read."""
    lost = unasked = unacked = read = 0
    doubled = sum(each.doubled for each in consumers)
    examples: list[str] = []
    ranges = sum(len(each.examples) + each.more for each in consumers)
    known = set(range(len(sent)))
    for producer in sorted(known.union(*(each.sequences for each in consumers))):
        merged = 0
        for each in consumers:
            if producer in each.sequences:
                number = SequenceSet.unpack(each.sequences[producer]).number()
                twice = merged & number
                doubled += twice.bit_count()
                ranges += _ranges(twice)
                examples += _examples(twice, producer, "read by two consumers")
                merged |= number
        read += merged.bit_count()
        count, wanted = (sent[producer], acked[producer].number()) if producer in known else (0, 0)
        missing, beyond = wanted & ~merged, merged >> (8 * count)
        examples += _examples(missing, producer, "acknowledged, and never read")
        examples += _examples(beyond << (8 * count), producer, "read, and never sent")
        ranges += _ranges(missing) + _ranges(beyond)
        lost += missing.bit_count()
        unasked += beyond.bit_count()
        unacked += (merged & ~wanted).bit_count() - beyond.bit_count()
    examples = [*examples, *chain.from_iterable(each.examples for each in consumers)][:EXAMPLES_MAX]
    return Verdict(
        acked=sum(map(len, acked)),
        read=read,
        lost=lost,
        doubled=doubled,
        reordered=sum(each.reordered for each in consumers),
        unasked=unasked,
        unacked=unacked,
        altered=sum(each.altered for each in consumers),
        foreign=sum(each.foreign for each in consumers),
        examples=examples,
        more=ranges - len(examples),
    )


def _examples(number: int, producer: int, what: str) -> list[str]:
    """The first few ranges whose bits are set."""
    marks = number.to_bytes((number.bit_length() + 7) // 8 + 1, "little")  # the last is 0
    found: list[str] = []
    start = marks.find(1)
    while start >= 0 and len(found) < EXAMPLES_MAX:
        stop = marks.index(0, start)
        found.append(f"{_span('record', start, stop - 1)} of producer {producer}: {what}")
        start = marks.find(1, stop)
    return found


def _ranges(number: int) -> int:
    """How many there are: each begins with a bit whose neighbour is not set."""
    return (number & ~(number << 8)).bit_count()


def _span(noun: str, first: int, last: int) -> str:
    return f"{noun} {first}" if first == last else f"{noun}s {first} to {last}"
