"""What records hold: values and keys as they were sent are told from all others."""

from collections.abc import Sequence

import pytest

from tailrace.bench.contents import Contents
from tailrace.bench.records import HEADER_BYTES, Values, keys_of
from tailrace.bench.verify import Checker, SequenceSet, judge

RUN = 7
SIZE = HEADER_BYTES + 6
DIFFERENT = 8


def sent(first: int, count: int, *, producer: int = 0) -> list[bytes]:
    """As a producer makes them, which goes in steps of at most DIFFERENT."""
    values = Values(record_bytes=SIZE, count=DIFFERENT, run=RUN, producer=producer, marked=True)
    made: list[bytes] = []
    while len(made) < count:
        made += values.next(min(DIFFERENT, count - len(made)), first + len(made), 5)
    return made


def altered(
    values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None, *, distinct: int = 0
) -> list[str]:
    """What is told of records that lie in partition 3 from offset 100 on."""
    checker = Checker(RUN, SIZE, Contents(SIZE, DIFFERENT, distinct))
    checker.add(3, values, range(100, 100 + len(values)), keys or [None] * len(values))
    seen = checker.seen()
    assert bool(seen.altered) == bool(seen.examples)
    return seen.examples


@pytest.mark.parametrize(("first", "count"), [(0, 8), (16, 3), (21, 50), (5, 1)])
@pytest.mark.parametrize("producer", [0, 2])
def test_what_was_sent(first: int, count: int, producer: int) -> None:
    values = sent(first, count, producer=producer)
    assert altered(values) == []
    assert altered(values[::3]) == []
    assert altered([b"other", *values[::2], None]) == []


def test_producers_hold_different_values() -> None:
    one, two = sent(0, 20), sent(0, 20, producer=1)
    assert altered([*one[:5], *two[:9], *one[5:], *two[9:]]) == []
    assert one[3][HEADER_BYTES:] != two[3][HEADER_BYTES:]


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("place", [HEADER_BYTES, SIZE - 1])
def test_a_byte_that_is_another(step: int, place: int) -> None:
    values = sent(0, 30)[::step]
    wrong = bytearray(values[10])
    wrong[place] ^= 1
    values[10] = bytes(wrong)
    assert altered(values) == [
        f"record {10 * step} of producer 0, in partition 3 at offset 110: not as it was sent"
    ]


def test_fillers_that_are_those_of_others() -> None:
    """Such as a producer that mixes up what it sends."""
    values = sent(40, 6)
    heads, tails = [value[:HEADER_BYTES] for value in values], [value[HEADER_BYTES:] for value in values]
    mixed = [head + tail for head, tail in zip(heads, [*tails[1:], tails[0]], strict=True)]
    assert altered([b"other", *mixed]) == [
        "records 40 to 45 of producer 0, in partition 3 at offsets 101 to 106: not as it was sent"
    ]


def test_keys() -> None:
    values = sent(0, 30)
    keys = list(keys_of(30, 7) or ())
    assert altered(values, keys, distinct=7) == []
    assert altered(values[4::3], keys[4::3], distinct=7) == []
    said = "not as it was sent"
    where = "of producer 0, in partition 3 at"
    assert altered(values, [*keys[:9], b"key-9", None, *keys[11:]], distinct=7) == [
        f"records 9 to 10 {where} offsets 109 to 110: {said}"
    ]
    assert altered(values, [*[None] * 29, b"key-1"]) == [f"record 29 {where} offset 129: {said}"]
    assert altered([b"other", *values], [None, *keys[:29], None], distinct=7) == [
        f"record 29 {where} offset 130: {said}"
    ]


def test_it_is_no_verification_that_holds() -> None:
    values = sent(0, 3)
    checker = Checker(RUN, SIZE, Contents(SIZE, DIFFERENT, 0))
    checker.add(0, [*values[:2], values[2][:-1] + b"?"], range(3), [None] * 3)
    acked = SequenceSet()
    acked.add_range(0, 3)
    verdict = judge([3], [acked], [checker.seen()])
    assert (verdict.holds, verdict.altered, verdict.lost) == (False, 1, 0)
    assert "0 that nobody sent, 1 not as they were sent" in verdict.text()
