"""Disk for a new store, before it is needed; and what tells that there is none."""

import errno
import os
from pathlib import Path
from typing import Final

import lmdb

from tailrace.cut_short import cut_short
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


def refuse_cut_short(folder: Path) -> None:
    """Before LMDB opens a store: what lies behind the end would end the process. Raises DataFolderError."""
    if (reason := cut_short(folder / DATA_FILE)) is not None:
        raise damaged(folder, reason)


def damaged(folder: Path, what: object) -> DataFolderError:
    """What to say of a store that was one of ours, perhaps."""
    return DataFolderError(
        f"{folder} is damaged, or no store of a coordinator's: {what}. Put the coordinator's whole folder "
        "back as it was when the coordinator ran last"
    )


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
