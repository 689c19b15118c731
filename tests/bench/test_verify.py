"""Verification can fail: records that are lost, doubled, out of order, or come from nowhere are found."""

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.bench.records import HEADER_BYTES, Marks, Values, marks_of
from tailrace.bench.verify import EXAMPLES_MAX, SEQUENCES_MAX, Checker, Seen, SequenceSet, Verdict, judge

RUN = 7
SIZE = HEADER_BYTES + 4


def values(sequences: Sequence[int], *, producer: int = 0, run: int = RUN) -> list[bytes]:
    return [struct.pack("<qIIQ4x", 5, run, producer, sequence) for sequence in sequences]


def seen(*batches: tuple[int, Sequence[int]]) -> Seen:
    """What one consumer saw: (partition, sequences of producer 0) in this order, from offset 100 on."""
    checker = Checker(RUN, SIZE)
    ends: dict[int, int] = {}
    for partition, sequences in batches:
        start = ends.get(partition, 100)
        ends[partition] = start + len(sequences)
        checker.add(partition, values(sequences), range(start, ends[partition]))
    return checker.seen()


def add(checker: Checker, partition: int, found: Sequence[bytes | None]) -> Marks:
    return checker.add(partition, found, range(len(found)))


def acked(*ranges: tuple[int, int]) -> SequenceSet:
    found = SequenceSet()
    for start, stop in ranges:
        found.add_range(start, stop)
    return found


def counts(verdict: Verdict) -> dict[str, int]:
    names = ("lost", "doubled", "reordered", "unasked", "unacked")
    return {name: getattr(verdict, name) for name in names if getattr(verdict, name)}


def test_all_is_well() -> None:
    one = seen((0, range(10)), (1, range(10, 15)), (0, range(15, 20)))
    two = seen((2, [20, 22, 23]), (3, [21, 24]))
    verdict = judge([25], [acked((0, 25))], [one, two])
    assert verdict.holds
    assert (verdict.acked, verdict.read, counts(verdict)) == (25, 25, {})
    assert "each of 25 records" in verdict.text()


def test_lost_records() -> None:
    verdict = judge([10], [acked((0, 10))], [seen((0, [0, 1, 2, 4, 5, 6, 7, 9]))])
    assert not verdict.holds
    assert counts(verdict) == {"lost": 2}
    assert verdict.examples == [
        "record 3 of producer 0: acknowledged, and never read",
        "record 8 of producer 0: acknowledged, and never read",
    ]
    assert verdict.text().startswith("VERIFICATION FAILED: of 10 acknowledged records 2 lost, 0 read more")
    assert "  record 3 of producer 0" in verdict.text()


def test_what_nobody_read() -> None:
    verdict = judge([10, 5], [acked((0, 10)), acked((0, 5))], [])
    assert counts(verdict) == {"lost": 15}
    assert verdict.examples == [
        "records 0 to 9 of producer 0: acknowledged, and never read",
        "records 0 to 4 of producer 1: acknowledged, and never read",
    ]


def test_more_ranges_than_are_told() -> None:
    """How many there are is told."""
    verdict = judge([100], [acked((0, 100))], [seen((0, range(0, 100, 3)))])
    assert (counts(verdict), verdict.more) == ({"lost": 66}, 33 - EXAMPLES_MAX)
    assert verdict.examples[1] == "records 4 to 5 of producer 0: acknowledged, and never read"
    assert verdict.text().endswith("\n  and 23 more ranges of records")
    again = [(0, [number, number]) for number in range(30)]
    verdict = judge([30], [acked((0, 30))], [seen(*again)])
    assert (counts(verdict), verdict.more) == ({"doubled": 30}, 30 - EXAMPLES_MAX)
    assert verdict.examples[-1] == "record 9 of producer 0, in partition 0 at offset 119: read again"


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        (
            [(0, range(10)), (0, range(3, 8)), (0, [10]), (0, [9])],
            [
                "records 3 to 7 of producer 0, in partition 0 at offsets 110 to 114: read again",
                "record 9 of producer 0, in partition 0 at offset 116: read again",
            ],
        ),
        (
            [(0, [7, 8, 9, 0, 1]), (0, [2, 10]), (0, [3])],
            [
                "records 0 to 2 of producer 0, in partition 0 at offsets 103 to 105: read after 9",
                "record 3 of producer 0, in partition 0 at offset 107: read after 10",
            ],
        ),
        (
            [(0, range(6)), (1, [0, 3, 5, 8]), (1, [4, 9])],
            [
                "3 of records 0 to 5 of producer 0, in partition 1 at offsets 100 to 102: "
                "read in another partition, too",
                "record 4 of producer 0, in partition 1 at offset 104: read again",
            ],
        ),
    ],
)
def test_where_it_is(batches: list[tuple[int, Sequence[int]]], expected: list[str]) -> None:
    """What lies one behind the other in the log is told together."""
    found = seen(*batches)
    assert (found.examples, found.more) == (expected, 0)


def test_where_it_is_among_records_of_others() -> None:
    checker = Checker(RUN, SIZE)
    found = [*values([0]), b"other", *values([1], run=8), *values([1, 0]), None, *values([1])]
    checker.add(3, found, [7, 8, 9, 20, 21, 22, 40])
    assert checker.seen().examples == [
        "record 0 of producer 0, in partition 3 at offset 21: read again",
        "record 1 of producer 0, in partition 3 at offset 40: read again",
    ]


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([(0, [0, 1, 1, 2])], "record 1 of producer 0, in partition 0 at offset 102: read again"),
        ([(0, [0, 1, 2]), (0, [1])], "record 1 of producer 0, in partition 0 at offset 103: read again"),
        ([(0, [0, 1, 2]), (1, [2])], "in partition 1 at offset 100: read in another partition, too"),
        ([(1, [0, 2]), (0, [0, 1])], "record 0 of producer 0, in partition 0 at offset 100: read in another"),
    ],
)
def test_doubled_records(batches: list[tuple[int, list[int]]], expected: str) -> None:
    verdict = judge([3], [acked((0, 3))], [seen(*batches)])
    assert counts(verdict) == {"doubled": 1}
    assert expected in verdict.text()


def test_doubled_by_two_consumers() -> None:
    verdict = judge([6], [acked((0, 6))], [seen((0, range(4))), seen((1, range(2, 6)))])
    assert counts(verdict) == {"doubled": 2}
    assert "records 2 to 3 of producer 0: read by two consumers" in verdict.text()


def test_reordered_records() -> None:
    verdict = judge([5], [acked((0, 5))], [seen((0, [0, 2, 1, 3]), (0, [4]))])
    assert counts(verdict) == {"reordered": 1}
    assert "record 1 of producer 0, in partition 0 at offset 102: read after 2" in verdict.text()
    later = judge([5], [acked((0, 5))], [seen((0, [3, 4]), (0, [0, 1, 2]))])
    assert counts(later) == {"reordered": 3}


def test_records_without_an_acknowledgement() -> None:
    """They may be stored, which is no violation; what was never sent cannot be."""
    verdict = judge([6], [acked((0, 4))], [seen((0, range(6)))])
    assert (verdict.holds, counts(verdict)) == (True, {"unacked": 2})
    assert "(2 more records without)" in verdict.text()
    verdict = judge([6], [acked((0, 4))], [seen((0, range(8)))])
    assert (verdict.holds, counts(verdict)) == (False, {"unasked": 2, "unacked": 2})
    assert "records 6 to 7 of producer 0: read, and never sent" in verdict.text()


def test_producers_that_do_not_exist() -> None:
    checker = Checker(RUN, SIZE)
    add(checker, 0, values([0], producer=3))
    assert counts(judge([1], [acked((0, 1))], [checker.seen()])) == {"lost": 1, "unasked": 1}


def test_records_of_others_are_told_apart() -> None:
    checker = Checker(RUN, SIZE)
    mixed = [*values([0]), *values([1], run=8), b"", None, *values([SEQUENCES_MAX]), *values([1])]
    marks = add(checker, 0, mixed)
    assert list(marks.sequences) == [0, 1]
    assert list(add(checker, 0, [b"other"]).sequences) == []
    verdict = judge([2], [acked((0, 2))], [checker.seen()])
    assert (verdict.holds, verdict.foreign) == (True, 5)
    assert verdict.text().endswith("once and in order; 5 records were read that this test did not write")


def test_two_producers_in_one_batch() -> None:
    checker = Checker(RUN, SIZE)
    add(checker, 0, [*values([0, 1], producer=0), *values([0, 2], producer=1), *values([2], producer=0)])
    add(checker, 0, values([1], producer=1))
    verdict = judge([3, 3], [acked((0, 3)), acked((0, 3))], [checker.seen()])
    assert counts(verdict) == {"reordered": 1}


def test_what_a_producer_makes_is_read_back() -> None:
    made = Values(record_bytes=100, count=50, run=RUN, producer=3, marked=True)
    marks = marks_of(made.next(20, 1_000, 12345), 100)
    assert list(marks.sequences) == list(range(1_000, 1_020))
    assert (set(marks.producers), set(marks.runs), set(marks.stamps)) == ({3}, {RUN}, {12345})


def test_sets_travel() -> None:
    sent = acked((3, 7), (100_000, 100_001))
    assert sent.add_range(5, 9) == [5, 6]
    assert (sent.add(3), sent.add(50)) == (True, False)
    back = SequenceSet.unpack(sent.pack())
    assert (len(back), 8 in back, 9 in back, 50 in back, 100_000 in back) == (8, True, False, True, True)
    assert 10**9 not in back


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 2), st.lists(st.integers(0, 12), min_size=1, max_size=6)),
        max_size=8,
    ),
    st.sets(st.integers(0, 9)),
)
def test_counts_are_those_of_a_plain_count(reads: list[tuple[int, int, list[int]]], wanted: set[int]) -> None:
    """Consumers, partitions and sequences at random; ten records were sent."""
    checkers = [Checker(RUN, SIZE), Checker(RUN, SIZE)]
    for consumer, partition, sequences in reads:
        # A partition belongs to one consumer.
        add(checkers[consumer], partition * 2 + consumer, values(sequences))
    acknowledged = SequenceSet()
    for sequence in wanted:
        acknowledged.add(sequence)
    verdict = judge([10], [acknowledged], [checker.seen() for checker in checkers])
    every = [sequence for _, _, sequences in reads for sequence in sequences]
    assert verdict.read == len(set(every))
    assert verdict.lost == len(wanted - set(every))
    assert verdict.doubled == len(every) - len(set(every))
    assert verdict.unasked == len({sequence for sequence in every if sequence >= 10})
    assert verdict.unacked == len({sequence for sequence in every if sequence < 10} - wanted)
