"""Who waits for a flush is told of one that does not move, and of no other."""

from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from tailrace.producer.flushing import flush


class Scripted:
    """An engine, an accumulator and a notice: each wait takes no time, and leaves so many batches."""

    delivery_timeout_s = 120.0

    def __init__(self, sealed: int, left: Iterator[int]) -> None:
        self.looks = 0
        self.told: tuple[str, float] | None = None
        self._sealed = sealed
        self._left = left

    def seal(self) -> tuple[int, int]:
        return 7, self._sealed

    def wait_resolved(self, generation: int, until: float) -> int:
        assert generation == 7
        assert until <= monotonic() + 1.0
        return next(self._left)

    def notice(self, what: str, timeout_s: float, _obstacle: Any) -> "Scripted":
        self.told = what, timeout_s
        return self

    def look(self) -> None:
        self.looks += 1


@pytest.mark.parametrize(("left", "looks"), [([2, 1, 0], 0), ([3, 3, 0], 2), ([2, 2, 0], 1), ([0], 0)])
def test_only_a_flush_that_stands_still_is_told(left: list[int], looks: int) -> None:
    script: Any = Scripted(3, iter(left))
    assert flush(script, script, None) == 0
    assert script.looks == looks
    assert script.told == ("3 batches to be stored", 120.0)


def test_it_ends_when_its_time_is_over() -> None:
    script: Any = Scripted(3, iter([3]))
    assert flush(script, script, 0.0) == 3
    assert script.looks == 0


def test_nothing_is_waited_for_when_there_is_nothing() -> None:
    script: Any = Scripted(0, iter([]))
    assert flush(script, script, None) == 0
