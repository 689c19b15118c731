"""The writer's half of following: steps on logs that are copied from their leaders. Writer thread."""

import logging
from collections.abc import Iterable

from tailrace.protocol.batch import parse_header
from tailrace.protocol.errors import (
    CorruptBatchError,
    NotLeaderError,
    StorageFaultError,
    StorageFullError,
    TailraceError,
)

from ..storage.environment import Storage
from ..storage.log_plan import Replicated
from .copying import CopyStep

logger = logging.getLogger(__name__)

Outcome = tuple[CopyStep, TailraceError | None]


class CopyWriter:
    """Cuts logs at once; what is to be appended goes into a group with what others append."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._deletes_later = False
        """Did deleting fail the last time, for want of room or otherwise? Then that was logged."""

    def begin(self, steps: Iterable[CopyStep], now_ms: int) -> tuple[list[Replicated], list[Outcome]]:
        """Truncate and empty logs; (what is to be appended, what each step came to, as far as that goes).

        Of a step whose batches cannot be read nothing is appended.
        """
        appends: list[Replicated] = []
        outcomes: list[Outcome] = []
        for step in steps:
            try:
                fault = self._cut(step)
                if fault is None:
                    appends += _appends(step, now_ms)
                outcomes.append((step, fault))
            except StorageFaultError:
                raise
            except TailraceError as error:
                outcomes.append((step, error))
        return appends, outcomes

    def finish(self, outcomes: Iterable[Outcome]) -> None:
        """The batches are stored: move the ends of the logs that the leader told of."""
        for step, error in outcomes:
            if error is None and step.high_watermark >= 0:
                self._storage.raise_high_watermark(
                    step.log, min(step.high_watermark, step.log.log_end_offset)
                )
            if error is None and step.log_start_offset > step.log.log_start_offset:
                self._delete(step)

    def _delete(self, step: CopyStep) -> None:
        """A slice of what the leader has deleted. If that fails, the leader tells of it again."""
        try:
            self._storage.advance_start(step.log, step.log_start_offset)
        except (StorageFullError, CorruptBatchError) as error:
            if not self._deletes_later:
                logger.warning("deleting has to wait: %s", error)
            self._deletes_later = True
        else:
            self._deletes_later = False

    def _cut(self, step: CopyStep) -> StorageFaultError | None:
        """Returns a fault of this log alone."""
        try:
            self._cut_log(step)
        except CorruptBatchError as error:
            return StorageFaultError(f"cutting {step.log.name}: {error}")
        return None

    def _cut_log(self, step: CopyStep) -> None:
        log = step.log
        if log.removed:
            raise NotLeaderError(f"{log.name} was removed")
        if step.reset_to is not None:
            while self._storage.reset(log, step.reset_to):
                pass
            logger.warning(
                "%s begins anew at offset %d, as its leader's log does: they had nothing in common",
                log.name, step.reset_to,
            )  # fmt: skip
        if step.truncate_to is not None:
            end_offset = self._storage.truncate(log, step.truncate_to)
            logger.info("%s is cut to offset %d, where it parts from its leader's", log.name, end_offset)


def finish(
    begun: Iterable[Outcome], copies: Iterable[Replicated], results: Iterable[object]
) -> list[Outcome]:
    """What each step came to, after its batches were stored or refused."""
    failed = {
        copy.log.key: result
        for copy, result in zip(copies, results, strict=True)
        if isinstance(result, TailraceError)
    }
    return [(step, error or failed.get(step.key)) for step, error in begun]


def _appends(step: CopyStep, now_ms: int) -> list[Replicated]:
    return [Replicated(step.log, memoryview(batch), parse_header(batch), now_ms) for batch in step.batches]
