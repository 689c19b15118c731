"""Which offsets are the first ones of several partitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.bench.runner import first_of

STARTS = {0: 5, 1: 0, 2: 100, 3: 7}
ENDS = {0: 15, 1: 20, 2: 130, 3: 7}


@pytest.mark.parametrize(
    ("records", "sizes"),
    [
        (1, [0, 0, 1, 0]),
        (9, [3, 3, 3, 0]),
        (40, [10, 15, 15, 0]),
        (55, [10, 20, 25, 0]),
        (60, [10, 20, 30, 0]),
    ],
)
def test_the_first_of_each(records: int, sizes: list[int]) -> None:
    found = first_of(STARTS, ENDS, records)
    assert [found[number] - STARTS[number] for number in sorted(STARTS)] == sizes


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), min_size=1), st.integers(1, 200))
def test_never_more_and_all_if_there_are_less(logs: list[tuple[int, int]], records: int) -> None:
    starts = {number: start for number, (start, _) in enumerate(logs)}
    ends = {number: start + size for number, (start, size) in enumerate(logs)}
    found = first_of(starts, ends, records)
    assert all(starts[number] <= found[number] <= ends[number] for number in starts)
    read = sum(found[number] - starts[number] for number in starts)
    assert read == min(records, sum(size for _, size in logs))
