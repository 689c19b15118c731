"""When the requests that wait have waited enough. Pure."""

import heapq
from collections.abc import Iterator, Mapping
from math import inf
from typing import Final, Protocol

_STALE_MIN: Final = 64
"""So many entries may be superfluous, however few wait."""


class _Due(Protocol):
    @property
    def deadline(self) -> float: ...


class Deadlines:
    """A heap beside the table `waiting`, which has what waits by its ticket.

    What leaves the table, or gets another deadline, leaves its entry here, and what comes again with the same
    one has two. Such entries are passed over, and dropped when they are most of the heap. Another thread may
    take out of the table; everything else is for one.
    """

    def __init__(self, waiting: Mapping[int, _Due]) -> None:
        self._waiting = waiting
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, ticket: int, deadline: float) -> None:
        """It was put into the table with this deadline, or got it there: a deadline not told never comes."""
        heapq.heappush(self._heap, (deadline, ticket))
        if len(self._heap) > 2 * len(self._waiting) + _STALE_MIN:
            self._heap = list({entry for entry in self._heap if not self._is_stale(entry)})
            heapq.heapify(self._heap)

    def due(self, now: float) -> Iterator[int]:
        """The tickets whose deadline is not after `now`, earliest first. Each is to leave the table now."""
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            if not self._is_stale(entry):
                yield entry[1]

    def next(self) -> float:
        """The earliest deadline; infinity without any."""
        while self._heap and self._is_stale(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else inf

    def _is_stale(self, entry: tuple[float, int]) -> bool:
        deadline, ticket = entry
        waiting = self._waiting.get(ticket)
        return waiting is None or waiting.deadline != deadline
