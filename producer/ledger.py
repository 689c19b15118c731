"""Which sealed batches have no answer yet, and what failed, for those who flush."""

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from tailrace.protocol.errors import TailraceError

from .batch import Batch

FIRST_ERRORS_MAX: Final = 100
"""So many tellings are remembered, for those who began to wait before them."""


class Failures(NamedTuple):
    """Records that were not acknowledged, and the error of the first of them."""

    records: int
    first: TailraceError | None


class Ledger:
    """Counts batches by generation: each flush ends one, and waits for it and those before. Not locked.

    Failures are told once; but to everybody who has waited meanwhile.
    """

    def __init__(self) -> None:
        self._unresolved: dict[int, int] = {}
        self._failed = 0
        self.told = 0
        """How many of the records that failed somebody was told of. Who begins to wait takes note of it."""
        self._first: deque[tuple[int, TailraceError]] = deque(maxlen=FIRST_ERRORS_MAX)
        """The first error after each telling, and how many records had failed before."""

    def enter(self, batches: Iterable[Batch]) -> None:
        """They are sealed, and will be resolved."""
        for batch in batches:
            self._unresolved[batch.generation] = self._unresolved.get(batch.generation, 0) + 1

    def leave(self, batch: Batch, error: TailraceError | None) -> None:
        """The batch is resolved."""
        left = self._unresolved[batch.generation] - 1
        if left:
            self._unresolved[batch.generation] = left
        else:
            del self._unresolved[batch.generation]
        if error is not None:
            if self._failed == self.told:
                self._first.append((self._failed, error))
            self._failed += batch.count

    def unresolved(self, generation: int) -> int:
        """How many batches of this generation and those before have no answer."""
        return sum(count for entered, count in self._unresolved.items() if entered <= generation)

    def take_failures(self, since: int) -> Failures:
        """What failed since so many were told of: they are from now on."""
        self.told = self._failed
        if since == self._failed:
            return Failures(0, None)
        return Failures(self._failed - since, next(error for at, error in self._first if at >= since))

    def forget(self) -> None:
        """Nobody will resolve anything any more."""
        self._unresolved.clear()
