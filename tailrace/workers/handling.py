"""One item through the handler: attempts, pauses, dead letters."""

import logging
import os
import traceback
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from tailrace.client.retry import Backoff
from tailrace.protocol.errors import (
    BatchTooLargeError,
    InvalidArgumentError,
    SerializationError,
    WorkerFailedError,
)
from tailrace.protocol.text import told

from .board import Board
from .items import Item
from .letters import Letters
from .progress import Counters
from .spec import Spec

CRASHES_MAX: Final = 3
"""So many workers may die with a record in hand before it is not handed to a handler any more."""
RETRY_BACKOFF_S_MAX: Final = 30.0
TRACE_FRAMES_MAX: Final = 8
LOGGED_KINDS_MAX: Final = 20
_NO_RECORD: Final = (BatchTooLargeError, InvalidArgumentError, SerializationError)
"""What a producer says of something that cannot be a record."""
_log = logging.getLogger(__name__)


class StoppedError(Exception):
    """The worker is to stop, and the item in hand is not done."""


class HandlerFailedError(Exception):
    """The handler raised, in a transaction, which must be taken back before the next attempt."""

    def __init__(self, item: Item, reason: str) -> None:
        super().__init__(reason)
        self.item = item
        self.reason = reason


class Attempts(NamedTuple):
    """How often an item has failed, and how the last time."""

    offset: int
    failed: int
    reason: str


class Handling:
    """`pause(seconds)` waits between attempts; False if the worker is to stop."""

    def __init__(
        self,
        spec: Spec,
        board: Board,
        worker: int,
        *,
        letters: Letters,
        counters: Counters,
        pause: Callable[[float], bool],
    ) -> None:
        self._spec = spec
        self._board = board
        self._worker = worker
        self._letters = letters
        self._counters = counters
        self._pause = pause
        self._random = Random()
        self._logged: set[str] = set()
        self._pid = os.getpid()

    def work(self, item: Item) -> None:
        """Through the handler, with its retries; then it is done, as a result or as a dead letter.

        Raises WorkerFailedError if it is neither, StoppedError if there was no time.
        """
        backoff = self.backoff()
        failed = 0
        while True:
            try:
                self.attempt(item, (), again=failed > 0)
                break
            except HandlerFailedError as failure:
                failed += 1
                if failed > self._spec.retries:
                    self.give_up(item, failure.reason)
                    break
                self.wait(backoff)
        self._counters.records += item.records

    def attempt(self, item: Item, state: tuple[Any, ...], *, again: bool) -> None:
        """Once through the handler. `state` is what it gets besides.

        Raises HandlerFailedError, also for a result that cannot be a record; TailraceError if one that
        can be could not be sent, which is not the handler's fault.
        """
        if item.rejected and not again:
            self._bury_rejected(item)
        if item.place in self._board.poisoned():
            self.give_up(item, f"{CRASHES_MAX} workers died while they had it in hand")
            return
        if item.given is not None:
            self._board.take(self._worker, item.partition.topic.encode(), *item.place[1:])
            try:
                result = self._spec.handler(item.given, *state)
            except BaseException as error:
                raise self._failed(item, error) from error
            finally:
                if os.getpid() != self._pid:  # the handler has forked, and its child came back from it
                    os._exit(0)
                self._board.put_down(self._worker)
            try:
                self._letters.send_results(result, item.key)
            except _NO_RECORD as error:
                raise self._failed(item, error) from error

    def _failed(self, item: Item, error: BaseException) -> HandlerFailedError:
        self._counters.errors += 1
        reason = _told(error)
        self._log_first(item, type(error).__name__, reason)
        return HandlerFailedError(item, reason)

    def _log_first(self, item: Item, kind: str, reason: str) -> None:
        """Each kind of error once, so that somebody who looks sees what goes wrong."""
        if kind not in self._logged and len(self._logged) < LOGGED_KINDS_MAX:
            self._logged.add(kind)
            _log.warning("%s: %s; more of this kind are counted only", item.place, reason)

    def give_up(self, item: Item, reason: str) -> None:
        """The item is a dead letter from now on. Raises WorkerFailedError if there is no topic for those."""
        if self._spec.dead_letter_topic is None:
            raise WorkerFailedError(
                f"{item.place}: {reason}. Nothing is committed past it: mend the handler, or give a "
                "dead_letter_topic"
            )
        rejected = {one.record.offset for one in item.rejected}  # these have letters of their own
        dead = [(record, reason) for record in item.originals() if record.offset not in rejected]
        self._letters.bury(dead)
        self._counters.dead_letters += len(dead)

    def backoff(self) -> Backoff:
        """The pauses between attempts."""
        first_s = self._spec.retry_backoff_ms / 1000
        return Backoff(self._random, first_s=first_s, longest_s=max(first_s, RETRY_BACKOFF_S_MAX))

    def wait(self, backoff: Backoff) -> None:
        """Before the next attempt. Raises StoppedError."""
        if not self._pause(backoff.pause()):
            raise StoppedError
        self._counters.retries += 1

    def _bury_rejected(self, item: Item) -> None:
        if self._spec.dead_letter_topic is None:
            raise WorkerFailedError(
                f"{item.rejected[0].reason}. Nothing is committed past it: give a dead_letter_topic"
            )
        self._letters.bury([(rejected.record, rejected.reason) for rejected in item.rejected])
        self._counters.dead_letters += len(item.rejected)


def _told(error: BaseException) -> str:
    """The error, and where in the handler it came up."""
    frames = traceback.extract_tb(error.__traceback__)[1:][-TRACE_FRAMES_MAX:]
    where = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__}: {told(error)}" + (f" ({where})" if where else "")
