"""Which sealed batches have no answer yet, and what failed, for those who flush."""

from collections.abc import Iterable
from typing import NamedTuple

from tailrace.protocol.errors import TailraceError

from .batch import Batch


class Failures(NamedTuple):
    """Records that were not stored, and the error of the first of them."""

    records: int
    first: TailraceError | None


class Ledger:
    """Counts batches by generation: each flush ends one, and waits for it and those before. Not locked."""

    def __init__(self) -> None:
        self._unresolved: dict[int, int] = {}
        self._failures = Failures(0, None)

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
            records, first = self._failures
            self._failures = Failures(records + batch.count, first or error)

    def unresolved(self, generation: int) -> int:
        """How many batches of this generation and those before have no answer."""
        return sum(count for entered, count in self._unresolved.items() if entered <= generation)

    def take_failures(self) -> Failures:
        """What failed since the last call."""
        failures, self._failures = self._failures, Failures(0, None)
        return failures

    def forget(self) -> None:
        """Nobody will resolve anything any more."""
        self._unresolved.clear()
