"""Folders and small files that survive a power loss, and a lock that does not survive its process.

A file's name is content of the folder around it, and a new folder's name of its parent: each is lost
in a power loss until that folder is synced, however well the file itself was. See fsync(2).
"""

import contextlib
import fcntl
import os
from itertools import takewhile
from pathlib import Path
from typing import Final

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
PARENT_MODE: Final = 0o777
"""Less the umask, as for any folder."""

_READER_TABLE_BYTES: Final = 8192
"""Of the 126 readers that LMDB has room for by itself; one that is larger than asked for is used as it is."""
_HOLDER_BYTES_MAX: Final = 256
_NOT_OPEN: Final = -1


def make_folder(path: Path, mode: int = FOLDER_MODE) -> None:
    """Make a folder and every parent that is missing, all names durable on return. Raises OSError.

    Parents get `PARENT_MODE`. A folder that is there is left as it is.

    Invariant: a folder's name is durable before anything is made in it. So of the folders that are
    there only the innermost can have a name that is not: its maker was killed, or is not done yet.
    """
    path = path.absolute()
    if path.is_dir():
        return
    missing = list(takewhile(lambda folder: not folder.exists(), path.parents))
    innermost = path.parents[len(missing)]
    # We made nothing in a folder that we may not list (a shared /home, say).
    with contextlib.suppress(PermissionError):
        fsync_folder(innermost.parent)
    for folder in reversed(missing):
        _make(folder, PARENT_MODE)
    _make(path, mode)


def _make(folder: Path, mode: int) -> None:
    folder.mkdir(mode, exist_ok=True)
    fsync_folder(folder.parent)


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file: after a power loss it is there whole, or as it was before. Raises OSError.

    The draft beside it is called `<name>.new`; one that an earlier process left is overwritten.
    """
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)
    fsync_folder(path.parent)


def make_reader_table(folder: Path) -> None:
    """Take the disk for the reader table of an environment that LMDB is to make in a folder. Raises OSError.

    LMDB writes that through a mapping: without room on the disk the process would end by SIGBUS. Where an
    environment is already, nothing is done: who closes the `lock.mdb` of an open one drops LMDB's locks.
    """
    if (folder / "data.mdb").exists():
        return
    descriptor = os.open(folder / "lock.mdb", os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        os.posix_fallocate(descriptor, 0, _READER_TABLE_BYTES)
    finally:
        os.close(descriptor)


class LockHeldError(Exception):
    """Someone else has the lock; `holder` is what they wrote about themselves, "" if nothing."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"held by {holder or 'another process'}")
        self.holder: Final = holder


class LockFile:
    """An advisory lock (flock) on a file that is nothing else, held from construction to `release`.

    The file says who holds it: `holder`, at most 256 bytes of it, or this process's id. It is never
    removed, since a lock on a removed file would exclude nobody. A process that dies in any way
    loses the lock at once. A forked child closes its copy, so that it does not keep what its parent held.
    Raises LockHeldError if it is held, in this process or another, and OSError.
    """

    def __init__(self, path: Path, holder: str = "") -> None:
        text = (holder or str(os.getpid())).encode()[: _HOLDER_BYTES_MAX - 1]
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Padded over what an earlier holder wrote: truncating costs file systems milliseconds.
            os.pwrite(self._descriptor, text.ljust(_HOLDER_BYTES_MAX - 1) + b"\n", 0)
        except BlockingIOError:
            found = os.pread(self._descriptor, _HOLDER_BYTES_MAX, 0)
            self.release()
            raise LockHeldError(found.decode(errors="replace").strip()) from None
        except BaseException:
            self.release()
            raise
        _held.add(self)

    def release(self) -> None:
        """Let the next one have it. Harmless when done twice."""
        if self._descriptor != _NOT_OPEN:
            os.close(self._descriptor)
            self._descriptor = _NOT_OPEN
        _held.discard(self)


_held: set[LockFile] = set()


def _release_inherited() -> None:
    """Runs in a forked child. Closing a copy of a descriptor leaves the parent's lock alone."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_inherited)
