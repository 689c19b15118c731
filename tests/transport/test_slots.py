"""What is taken is nobody else's, what is given back is there again, and nothing is lost between."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tailrace.transport.slots import Slots

ROOM = 100


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40))))
def test_parts_never_overlap_and_all_come_back(steps: list[tuple[bool, int]]) -> None:
    slots = Slots(10, 10 + ROOM)
    taken: dict[int, int] = {}
    for take, number in steps:
        if take:
            start = slots.take(number)
            if start is not None:
                taken[start] = number
        elif taken:
            start = sorted(taken)[number % len(taken)]
            slots.give(start, taken.pop(start))
        places = sorted((start, start + size) for start, size in taken.items())
        assert all(end <= after for (_, end), (after, _) in pairwise(places))
        assert all(start >= 10 and end <= 10 + ROOM for start, end in places)
        assert sum(slots._ends) - sum(slots._starts) == ROOM - sum(taken.values())
    for start, size in taken.items():
        slots.give(start, size)
    assert slots.take(ROOM) == 10, "what is free is in one piece again"
    assert slots.take(1) is None


def test_the_lowest_part_that_is_large_enough() -> None:
    slots = Slots(0, 100)
    assert [slots.take(size) for size in (10, 20, 30)] == [0, 10, 30]
    slots.give(0, 10)
    assert slots.take(15) == 60
    assert slots.take(10) == 0
    assert slots.take(26) is None
