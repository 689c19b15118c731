"""Small disks: one file system in memory for each node's data, which can be full and have room again."""

import os
import subprocess
from pathlib import Path
from typing import Final

from tailrace.protocol.limits import MIB

from .isolation import run

DISK_BYTES: Final = 4_096 * MIB
"""What the longest run writes fits in; only what is written takes memory."""
_TRIES: Final = 20


class Disk:
    """A node's folder on a file system of its own. In namespaces of our own it needs no clean-up."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, mode=0o700)
        self._data = data
        run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(data))

    def fill(self) -> None:
        """It is not larger than what is on it: not a byte is left."""
        for number in range(_TRIES):
            status = os.statvfs(self._data)
            used = (status.f_blocks - status.f_bfree + number) * status.f_frsize  # it may grow meanwhile
            try:
                self._resize(used)
            except subprocess.CalledProcessError:
                if number == _TRIES - 1:
                    raise
            else:
                return

    def free(self) -> None:
        """It has room again."""
        self._resize(DISK_BYTES)

    def _resize(self, size: int) -> None:
        run("mount", "-o", f"remount,size={size}", str(self._data))
