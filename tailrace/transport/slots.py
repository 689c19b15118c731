"""Which parts of an arena are free. Pure.

The lowest part that is large enough is given away, so that an arena's lower end is used again and again,
and stays in the processor's caches, while its upper end is never touched unless it is needed.
"""

from bisect import bisect_left


class Slots:
    """The bytes from `start` up to `end`, given away in parts. Callers round sizes to their alignment."""

    def __init__(self, start: int, end: int) -> None:
        self._starts = [start]
        self._ends = [end]
        """The free parts, ascending; no two of them touch."""

    def take(self, size: int) -> int | None:
        """The start of `size` bytes that were free; None if there are not so many in a row."""
        starts, ends = self._starts, self._ends
        for at, (start, end) in enumerate(zip(starts, ends, strict=True)):
            if end - start > size:
                starts[at] = start + size
                return start
            if end - start == size:
                del starts[at], ends[at]
                return start
        return None

    def give(self, start: int, size: int) -> None:
        """These bytes, which `take` gave away, are free again."""
        starts, ends, end = self._starts, self._ends, start + size
        at = bisect_left(starts, start)
        joins_before = at > 0 and ends[at - 1] == start
        joins_after = at < len(starts) and starts[at] == end
        assert at == 0 or ends[at - 1] <= start
        assert at == len(starts) or end <= starts[at]
        if joins_before and joins_after:
            ends[at - 1] = ends[at]
            del starts[at], ends[at]
        elif joins_before:
            ends[at - 1] = end
        elif joins_after:
            starts[at] = start
        else:
            starts.insert(at, start)
            ends.insert(at, end)
