"""Disk for a new store, before it is needed."""

import os
from pathlib import Path
from typing import Final

from tailrace.durable import fsync_folder
from tailrace.protocol.limits import COORDINATOR_ROOM_BYTES

DATA_FILE: Final = "data.mdb"


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
