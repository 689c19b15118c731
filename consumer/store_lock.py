"""Who holds a partition's local offsets: an advisory lock (flock) on a file that is nothing else.

The file is never removed: a lock on a removed file would exclude nobody. A process that dies in any
way loses the lock at once. A forked child closes its copy, so that it does not keep what its parent held.
"""

import fcntl
import os
import weakref
from pathlib import Path
from typing import Final

from tailrace.protocol.errors import DataFolderError

_OWNER_BYTES_MAX: Final = 256
_NOT_OPEN: Final = -1


class StoreLock:
    """Held from construction to `release()`.

    `owner` is one line about the holder, shown to whoever comes second. Raises DataFolderError if
    another consumer holds the lock, in this process or another, or if the file can't be written.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self._path = path
        self._fd = _NOT_OPEN
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Padded over what an earlier holder wrote: truncating costs file systems milliseconds.
            os.pwrite(self._fd, owner.encode()[:_OWNER_BYTES_MAX].ljust(_OWNER_BYTES_MAX), 0)
        except BlockingIOError:
            holder = os.pread(self._fd, _OWNER_BYTES_MAX, 0).decode(errors="replace").strip()
            holder = holder or "another consumer"
            self.release()
            raise DataFolderError(f"held by {holder}") from None
        except OSError as error:
            self.release()
            raise DataFolderError(f"{path}: {(error.strerror or str(error)).lower()}") from error
        _held.add(self)

    def release(self) -> None:
        """Let the next one have it. Harmless when done twice."""
        if self._fd != _NOT_OPEN:
            os.close(self._fd)
            self._fd = _NOT_OPEN
        _held.discard(self)


_held: weakref.WeakSet[StoreLock] = weakref.WeakSet()


def _release_inherited() -> None:
    """Runs in a forked child. Closing a copy of a descriptor leaves the parent's lock alone."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_inherited)
