"""A lack of space, told to the operator: once when it makes the node refuse batches, once when it is over.

Where others fill the disk and empty it, that may change many times a second: it is told every TOLD_EVERY_MS.
"""

import logging
from collections.abc import Sequence
from math import inf
from typing import Final

from tailrace.protocol.errors import StorageFullError, TailraceError

from .storage.environment import Storage
from .storage.log_plan import Append, Replicated
from .storage.space import stored_bytes

TOLD_EVERY_MS: Final = 10_000
logger = logging.getLogger(__name__)


class Shortage:
    """Belongs to the writer thread; any may look at `needed_bytes`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.needed_bytes = 0
        """The largest batch that was refused since it began; 0: nothing is refused."""
        self._told = False
        """Does the operator know of it?"""
        self._told_at_ms = -inf
        self._foreseen = False
        """Was there no room by our own count? If there was, the disk holds less than it has told."""

    def note(self, appends: Sequence[Append | Replicated], results: Sequence[object], now_ms: int) -> None:
        """What became of a group. It is over when a batch is stored that is as large as those refused."""
        if not self.needed_bytes and StorageFullError not in map(type, results):
            return  # as nearly always
        refused, stored = 0, 0
        for append, result in zip(appends, results, strict=True):
            if isinstance(result, StorageFullError):
                refused = max(refused, len(append.batch))
            elif not isinstance(result, TailraceError):  # as one behind a batch that was refused has
                stored = max(stored, len(append.batch))
        if refused:
            self._refused(refused, now_ms)
        elif stored >= self.needed_bytes:
            self._over()
        else:
            self.look(now_ms)

    def look(self, now_ms: int) -> None:
        """Has something made room? Twice what was lacking, lest it be told again at once."""
        if self.needed_bytes and self._foreseen:
            wanted = 2 * stored_bytes(self.needed_bytes)
            if self._storage.room_bytes(now_ms) >= min(wanted, self._storage.space.capacity_max):
                self._over()

    def _refused(self, size: int, now_ms: int) -> None:
        self.needed_bytes = max(self.needed_bytes, size)
        room = self._storage.room_bytes(now_ms)
        self._foreseen = room < stored_bytes(self.needed_bytes)
        if not self._told and not 0 <= now_ms - self._told_at_ms < TOLD_EVERY_MS:
            self._told, self._told_at_ms = True, now_ms
            logger.warning(
                "the node refuses writes: there is no space for a batch of %d bytes (%d bytes are in use). "
                "Retention, deleting topics, a larger quota or more free disk make room; reads go on",
                size,
                self._storage.used_bytes,
            )

    def _over(self) -> None:
        self.needed_bytes = 0
        if self._told:
            self._told = False
            logger.warning("the node takes writes again: there is space")
