"""What goes wrong with a folder or its LMDB environment, in words of ours."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb
import msgspec

from tailrace.protocol.errors import DataFolderError, StorageFaultError, StorageFullError
from tailrace.protocol.limits import MIB

STORE: Final = b"tailrace"
"""The database with what is ours."""
STATE: Final = b"application"
"""The database with the application's keys."""
DATABASES_MAX: Final = 8
FULL_DISK_FREE_BYTES_MAX: Final = 1 * MIB
_OF_THE_SYSTEM: Final = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EROFS)
"""What it refuses for want of something, whatever the folder holds."""


@contextmanager
def folder_access(folder: Path) -> Iterator[None]:
    """Raise DataFolderError for what the system says."""
    try:
        yield
    except FileExistsError as error:
        raise DataFolderError(f"offset_store folder {folder}: a file is there, and no folder") from error
    except OSError as error:
        if error.errno is None:
            raise  # a signal handler's TimeoutError
        raise DataFolderError(
            f"offset_store folder {folder}: {(error.strerror or str(error)).lower()}"
        ) from error


@contextmanager
def opening(what: str) -> Iterator[None]:
    """Raise StorageFullError or DataFolderError for an environment that does not open."""
    try:
        yield
    except lmdb.DiskError as error:
        raise StorageFullError(f"{what} has no space: {error}") from error
    except lmdb.Error as error:
        if getattr(error, "code", 0) in _OF_THE_SYSTEM:
            raise DataFolderError(f"{what} cannot be opened: {error}") from error
        raise DataFolderError(f"{what} is damaged or not one of ours: {error}") from error


@contextmanager
def working(what: str, folder: Path | None = None) -> Iterator[None]:
    """Raise StorageFullError or StorageFaultError for what fails in an open environment.

    `folder`: where it is, for what writes to the disk.
    """
    try:
        yield
    except (lmdb.DiskError, lmdb.MapFullError) as error:
        raise StorageFullError(f"{what} has no space left: {error}") from error
    except (lmdb.Error, msgspec.MsgspecError) as error:
        if folder is not None and _fell_short(error, folder):
            raise StorageFullError(f"{what} has no space left: {error}") from error
        raise StorageFaultError(f"{what} failed: {error}") from error


def _fell_short(error: Exception, folder: Path) -> bool:
    """LMDB reports a short write as EIO: then the disk is full."""
    if getattr(error, "code", 0) != errno.EIO:
        return False
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize <= FULL_DISK_FREE_BYTES_MAX
