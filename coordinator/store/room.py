"""Disk for a new store, before it is needed; and what tells that there is none."""

import errno
import os
from pathlib import Path
from typing import Final

import lmdb

from tailrace.durable import fsync_folder
from tailrace.protocol.errors import DataFolderError
from tailrace.protocol.limits import COORDINATOR_ROOM_BYTES

DATA_FILE: Final = "data.mdb"
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk is full, or what this user or process may have of it."""


def refuse_full(folder: Path, error: Exception) -> None:
    """Raise DataFolderError if a store could not be opened for lack of space: nothing of it is damaged."""
    code = getattr(error, "errno", None) or getattr(error, "code", 0)  # OSError's, LMDB's
    if code in _NO_SPACE or isinstance(error, lmdb.DiskError):
        reason = os.strerror(code or errno.ENOSPC).lower()
        raise DataFolderError(f"no space for {folder}: {reason}; free some, then start it again") from error


def make_room(file: Path) -> None:
    """Give a new LMDB file its room, then sync it and the names that lead to it. Raises OSError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, COORDINATOR_ROOM_BYTES)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    for folder in (file.parent, file.parent.parent):
        fsync_folder(folder)
