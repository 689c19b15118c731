"""A file that takes space while there is enough, and is given up when deleting needs room."""

import os
from math import inf
from typing import Final

from tailrace.durable import FILE_MODE
from tailrace.protocol.limits import BALLAST_BYTES

from .folder import BALLAST, DataFolder
from .space import Space

RESERVE_SHARE: Final = 4
"""The ballast is at most this part of the reserve."""
LOOK_EVERY_S: Final = 5.0
"""Where there is none, how often to look whether the disk has room for it."""


class Ballast:
    """Belongs to the writer thread."""

    def __init__(self, folder: DataFolder, space: Space) -> None:
        self._path = folder.file(BALLAST)
        self._space = space
        self._bytes = min(BALLAST_BYTES, space.reserve_bytes // RESERVE_SHARE)
        self.there = self._path.exists()
        self.look_at = inf if self.there or self._bytes == 0 else -inf
        """When to look whether it can be made (monotonic seconds)."""

    def restore(self, now: float) -> None:
        """If it is time to look: make the file if the disk has room for it beside the reserve."""
        if now < self.look_at:
            return
        self.look_at = now + LOOK_EVERY_S
        if self._space.disk_free() < self._space.reserve_bytes + self._bytes:
            return
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
            try:
                os.posix_fallocate(handle, 0, self._bytes)
            finally:
                os.close(handle)
            self.there, self.look_at = True, inf
        except OSError:  # somebody else was faster to take the room: another time
            self._path.unlink(missing_ok=True)

    def drop(self) -> bool:
        """Give the space back to the disk; False if there was none to give."""
        dropped = self.there
        self._path.unlink(missing_ok=True)
        if dropped:
            self.there, self.look_at = False, -inf
        return dropped
