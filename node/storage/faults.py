"""Tells a full disk from a broken one."""

import errno
from typing import Final

import lmdb

from tailrace.protocol.errors import StorageFaultError, StorageFullError
from tailrace.protocol.limits import MIB

FULL_DISK_FREE_BYTES_MAX: Final = 1 * MIB
"""LMDB reports a short write as EIO. With no more than this free, it was the disk that is full."""


def storage_error(error: lmdb.Error, doing: str, disk_free: int) -> StorageFullError | StorageFaultError:
    """What an LMDB error of a write transaction means.

    A full map or disk passes by itself; everything else means that what the disk holds is not
    known any more (a failed fsync must never be retried), and the storage is given up.
    """
    if isinstance(error, (lmdb.MapFullError, lmdb.TxnFullError)):
        return StorageFullError(
            f"{doing}: the quota is full, or its free space is in pieces that are too small"
        )
    code = getattr(error, "code", 0)  # py-lmdb's own complaints carry none
    if code in (errno.ENOSPC, errno.EDQUOT) or isinstance(error, lmdb.DiskError):
        return StorageFullError(f"{doing}: the disk is full")
    if code == errno.EIO and disk_free <= FULL_DISK_FREE_BYTES_MAX:
        return StorageFullError(f"{doing}: the disk is full, {disk_free} bytes are free")
    return StorageFaultError(f"{doing}: {error}")
