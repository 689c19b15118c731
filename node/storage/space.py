"""How much may be stored: pages, quota, free disk and the reserve. Sizes in bytes."""

import os
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tailrace.protocol.errors import InvalidConfigError
from tailrace.protocol.limits import MIB

if TYPE_CHECKING:
    from lmdb import Transaction
    from lmdb import _Database as Database

PAGE_BYTES: Final = 4096
PAGE_HEADER_BYTES: Final = 16
NODE_BYTES: Final = 8 + 8 + 2
"""An entry of a leaf besides its value: LMDB's node header, the key, the slot that points to it."""
INLINE_BYTES_MAX: Final = 2038 - 16
"""A longer value goes to pages of its own."""

QUOTA_BYTES_MIN: Final = 4 * MIB
RESERVE_SHARE: Final = 8
"""The reserve is at most this part of the quota and of the disk, so that a small one is of use."""
FRAGMENTATION_SHARE: Final = 5
"""This part of the file is left to fragmentation: a batch needs adjacent pages, and batches of mixed
sizes that come and go leave the file at up to 1.2 times the live data."""

MEASURED_MS: Final = 20
"""The disk is looked at once in this time: the two system calls take as long as all else of a small commit.
What other processes write to it meanwhile, the reserve holds."""


def stored_bytes(size: int) -> int:
    """What a batch takes in the file, rounded up."""
    if size > INLINE_BYTES_MAX:
        return overflow_pages(size) * PAGE_BYTES + 2 * NODE_BYTES
    fitting = (PAGE_BYTES - PAGE_HEADER_BYTES) // (size + NODE_BYTES + 1)
    return PAGE_BYTES // fitting + 1


def overflow_pages(size: int) -> int:
    """Pages that hold nothing but this value."""
    return 0 if size <= INLINE_BYTES_MAX else (PAGE_HEADER_BYTES - 1 + size) // PAGE_BYTES + 1


def live_pages(transaction: "Transaction[Any]", database: "Database") -> int:
    """Pages of one database, as LMDB counts them."""
    stat = transaction.stat(database)
    return stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]


class Space:
    """The room for live data in one environment's file, on its disk."""

    def __init__(self, data_file: Path, quota_bytes: int, reserve_bytes: int) -> None:
        """Raises InvalidConfigError for a quota that holds nothing."""
        if quota_bytes < QUOTA_BYTES_MIN:
            raise InvalidConfigError(f"quota_bytes is {quota_bytes}, at least {QUOTA_BYTES_MIN} are needed")
        if reserve_bytes < 0:
            raise InvalidConfigError(f"reserve_bytes is {reserve_bytes}")
        self._data_file = os.fspath(data_file)
        self._folder = os.fspath(data_file.parent)
        disk = os.statvfs(self._folder)
        share = min(quota_bytes, disk.f_blocks * disk.f_frsize) // RESERVE_SHARE
        self.quota_bytes: Final = quota_bytes
        self.reserve_bytes: Final = min(reserve_bytes, share)
        self.capacity_max: Final = self._capacity_of(quota_bytes)
        """Live bytes that fit on an empty disk."""
        self._capacity = 0
        self._measured_ms: float = -inf

    def disk_free(self) -> int:
        """Bytes that this process may still allocate on the disk."""
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def capacity(self, now_ms: int) -> int:
        """Live bytes that may be stored: the file may grow to the quota, or as the disk allows.

        `now_ms`: by which what was found MEASURED_MS ago is too old. Growing by itself does not change it.
        """
        if not 0 <= now_ms - self._measured_ms < MEASURED_MS:
            on_disk = os.stat(self._data_file).st_blocks * 512  # noqa: PTH116 (half the time of Path.stat)
            file_bytes = min(self.quota_bytes, on_disk + self.disk_free())
            self._capacity = self._capacity_of(file_bytes)
            self._measured_ms = now_ms
        return self._capacity

    def _capacity_of(self, file_bytes: int) -> int:
        return max(0, file_bytes - max(self.reserve_bytes, file_bytes // FRAGMENTATION_SHARE))
