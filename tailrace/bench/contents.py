"""Do records hold what was sent? That follows from producer and sequence, and is compared at C speed."""

from collections.abc import Sequence
from itertools import compress, repeat
from operator import add, mod, ne, not_, or_
from typing import Any

from .records import HEADER_BYTES, Marks, fillers_of


class Contents:
    """What the values of a run hold behind their headers, and what their keys are.

    There are `different` values, and as many keys as `keys`: 0 for none.
    """

    def __init__(self, record_bytes: int, different: int, keys: int) -> None:
        self._fillers = fillers_of(record_bytes - HEADER_BYTES, different)
        self._keys = keys

    def altered(self, marks: Marks, values: Sequence[Any], keys: Sequence[bytes | None]) -> list[int]:
        """Which records are not as they were sent: places in `marks`, which are of some of `values`."""
        if len(marks.places) < len(values):
            values = [values[place] for place in marks.places]
            keys = [keys[place] for place in marks.places]
        expected, fillers = self._keys_of(marks), self._fillers_of(marks)
        # All have the size of ours: who ends as it should begins there, too.
        if keys == expected and all(map(bytes.endswith, values, fillers)):
            return []
        wrong = map(or_, map(ne, keys, expected), map(not_, map(bytes.endswith, values, fillers)))
        return list(compress(range(len(values)), wrong))

    def _fillers_of(self, marks: Marks) -> Sequence[bytes]:
        first, count, different = marks.sequences[0], len(marks.sequences), len(self._fillers)
        if marks.sequences == tuple(range(first, first + count)) and len(set(marks.producers)) == 1:
            start = (first + marks.producers[0]) % different
            return (self._fillers * (2 + count // different))[start : start + count]
        turns = map(mod, map(add, marks.sequences, marks.producers), repeat(different))
        return list(map(self._fillers.__getitem__, turns))

    def _keys_of(self, marks: Marks) -> list[bytes | None]:
        if not self._keys:
            return [None] * len(marks.sequences)
        return list(map(b"key-%d".__mod__, map(mod, marks.sequences, repeat(self._keys))))
