"""Small disks: one file system in memory for each node's data, which can be filled and freed."""

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

from tailrace.protocol.limits import MIB

from .isolation import run

DISK_BYTES: Final = 2_048 * MIB
"""What the longest run writes fits in; only what is written takes memory."""
_FILLER: Final = "filler"


class Disk:
    """A node's folder on a file system of its own. In namespaces of our own it needs no clean-up."""

    def __init__(self, folder: Path, data: Path) -> None:
        """`data` is where the node looks for its folder; nothing but its own files may lie in there."""
        folder.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(folder))
        inner = folder / "data"
        inner.mkdir(mode=0o700)
        data.mkdir(parents=True, mode=0o700)
        run("mount", "--bind", str(inner), str(data))
        self._filler = folder / _FILLER

    def fill(self) -> None:
        """Leave not a byte."""
        with self._filler.open("wb") as filler:
            step = DISK_BYTES
            while step >= os.sysconf("SC_PAGE_SIZE"):
                try:
                    os.posix_fallocate(filler.fileno(), os.fstat(filler.fileno()).st_size, step)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 2

    def free(self) -> None:
        """Give everything back."""
        with contextlib.suppress(FileNotFoundError):
            self._filler.unlink()
