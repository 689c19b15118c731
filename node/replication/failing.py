"""What to say of logs that cannot follow, as on a full disk: when it begins, at times, when it ends. Pure."""

from collections.abc import Iterable
from math import inf
from typing import Final

from tailrace.protocol.errors import ErrorCode, TailraceError
from tailrace.protocol.text import plural

from ..storage.partition_log import PartitionKey
from .copying import CopyStep

REMIND_S: Final = 60.0
"""How often it is said while it lasts."""


class _Trouble:
    """Logs that fail for the same reason, by name."""

    def __init__(self, error: TailraceError, now: float) -> None:
        self.error = error
        self.since = now
        self.told_at = -inf
        self.logs: dict[PartitionKey, str] = {}


class Failing:
    """Each step is tried again and again, and fails each time, in each log."""

    def __init__(self) -> None:
        self._troubles: dict[ErrorCode, _Trouble] = {}

    def take(self, step: CopyStep, error: TailraceError | None, now: float) -> str | None:
        """The writer is through with a step of a log that is followed; what to say of it, if anything."""
        if error is not None:
            return self._failed(step, error, now)
        if self._troubles and step.batches:  # one without any succeeds on a full disk, too
            return self._stored(step, now)
        return None

    def forget(self, keys: Iterable[PartitionKey]) -> None:
        """These are followed no more."""
        for key in keys:
            self._drop(key)

    def _failed(self, step: CopyStep, error: TailraceError, now: float) -> str | None:
        known = [trouble for trouble in self._troubles.values() if step.key in trouble.logs]
        # A step behind one that failed does not fit the log: that is no other reason.
        trouble = known[0] if known else self._troubles.setdefault(error.code, _Trouble(error, now))
        trouble.logs[step.key] = step.log.name
        if now < trouble.told_at + REMIND_S:
            return None
        trouble.told_at = now
        others = len(trouble.logs) - 1
        more = f" and {plural(others, 'other partition')}" if others else ""
        return f"following {step.log.name}{more}: {trouble.error}"

    def _stored(self, step: CopyStep, now: float) -> str | None:
        ended = self._drop(step.key)
        if ended is None:
            return None
        return f"following goes on, at last {step.log.name}, after {now - ended.since:.0f} s"

    def _drop(self, key: PartitionKey) -> _Trouble | None:
        """The trouble that ends with it."""
        ended = None
        for code, trouble in tuple(self._troubles.items()):
            trouble.logs.pop(key, None)
            if not trouble.logs:
                ended = self._troubles.pop(code)
        return ended
