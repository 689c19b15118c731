"""The data folder of one node: who may open it, and what must be on disk when.

format      text: `tailrace-storage <format version>`; written last when a folder is made
lock        held with flock while a process has the folder open; names its pid
data.mdb    LMDB's data
lock.mdb    LMDB's reader table; nothing but LMDB may ever open it (closing it drops LMDB's locks)
ballast     space to give up when the disk is full
ephemeral   there while a process runs without syncing; if it is still there, the data is void
clusters    text: the clusters that the node has been in, and their coordinators (`node/belonging.py`)
"""

import re
from pathlib import Path
from typing import Final

from tailrace.cut_short import cut_short
from tailrace.durable import FOLDER_MODE, LockFile, LockHeldError, fsync_folder, make_folder, write_durably
from tailrace.protocol.errors import DataFolderError

from .schema import FORMAT_VERSION

FORMAT: Final = "format"
LOCK: Final = "lock"
DATA: Final = "data.mdb"
LMDB_LOCK: Final = "lock.mdb"
BALLAST: Final = "ballast"
EPHEMERAL: Final = "ephemeral"
CLUSTERS: Final = "clusters"
OUR_FILES: Final = frozenset({FORMAT, LOCK, DATA, LMDB_LOCK, BALLAST, EPHEMERAL, CLUSTERS})

EMPTY_DATA_BYTES_MAX: Final = 2 * 4096
"""LMDB's two meta pages: a data file that is not longer holds nothing."""

_FORMAT_LINE: Final = re.compile(r"tailrace-storage (\d{1,9})\n")


class DataFolder:
    """A folder that this process alone has open, until `close`."""

    def __init__(self, path: Path) -> None:
        """Make the folder if it is not there, and lock it.

        Raises DataFolderError if it is in use, of a newer format, or holds something else.
        """
        self.path: Final = path
        try:
            make_folder(path)
            _refuse_foreign(path)
            self._lock = LockFile(path / LOCK)
        except LockHeldError as error:
            raise DataFolderError(
                f"data folder {path} is in use by process {error.holder or '?'}; stop it first,"
                " or choose another folder"
            ) from None
        except OSError as error:
            raise DataFolderError(f"data folder {path}: {error}") from error
        try:
            self.check_format()
        except BaseException:
            self.close()
            raise

    def file(self, name: str) -> Path:
        """The path of one of our files."""
        return self.path / name

    def check_format(self) -> None:
        """Raises DataFolderError if a newer version wrote the folder."""
        try:
            text = self.file(FORMAT).read_text("ascii")
        except FileNotFoundError:
            return
        except UnicodeDecodeError:
            text = ""
        match = _FORMAT_LINE.fullmatch(text)
        if match is None:
            raise DataFolderError(f"{self.file(FORMAT)} is not a format file of Tailrace")
        refuse_newer(self.path, int(match[1]))

    def complete(self) -> None:
        """The environment has been made and committed to: make the folder last through a power loss."""
        fsync_folder(self.path)
        fsync_folder(self.path.parent)
        if not self.file(FORMAT).exists():
            write_durably(self.file(FORMAT), f"tailrace-storage {FORMAT_VERSION}\n".encode())

    def begin_ephemeral(self) -> None:
        """From here on the data may not survive a stop that is not clean."""
        write_durably(self.file(EPHEMERAL), b"")

    def end_ephemeral(self) -> None:
        """The data is synced."""
        self.file(EPHEMERAL).unlink(missing_ok=True)
        fsync_folder(self.path)

    def refuse_cut_short(self) -> None:
        """Before LMDB opens it. Raises DataFolderError."""
        if (reason := cut_short(self.file(DATA))) is not None:
            raise damaged(self.path, reason)

    def refuse_without_data(self) -> None:
        """Raises DataFolderError if there is none, of a node that was complete."""
        if self._without_data():
            raise DataFolderError(
                f"{self.file(DATA)} is missing or empty; put it back as it was last, or remove the folder: "
                "the node then starts with nothing, and copies what other nodes have"
            )

    def _without_data(self) -> bool:
        data = self.file(DATA)
        return not data.exists() or data.stat().st_size <= EMPTY_DATA_BYTES_MAX

    def clear_void_data(self) -> None:
        """Before LMDB opens: drop what holds nothing, or came from an ephemeral node that was killed.

        Raises DataFolderError if data is missing that was there.
        """
        if self.file(EPHEMERAL).exists():
            void = True
        else:
            void = self._without_data()
            if void and self.file(FORMAT).exists():
                self.refuse_without_data()
        if void:
            for name in (DATA, LMDB_LOCK):
                self.file(name).unlink(missing_ok=True)
            fsync_folder(self.path)

    def close(self) -> None:
        """Give the folder back."""
        self._lock.release()


def damaged(path: Path, what: str) -> DataFolderError:
    """What to say of a folder that was one of ours."""
    return DataFolderError(
        f"data folder {path} is damaged: {what}. Where other nodes have replicas of all that it holds, move"
        " it away, and the node copies them again; else put a copy of it back"
    )


def refuse_newer(path: Path, version: int) -> None:
    """Raises DataFolderError for a format that this version does not know."""
    if version != FORMAT_VERSION:
        raise DataFolderError(
            f"data folder {path} has format {version}, this version of Tailrace reads {FORMAT_VERSION};"
            " start it with the version that wrote it, or choose another folder"
        )


def _refuse_foreign(path: Path) -> None:
    names = {entry.name.removesuffix(".new") for entry in path.iterdir()}
    foreign = sorted(names - OUR_FILES - {"lost+found"})
    if foreign and FORMAT not in names:
        raise DataFolderError(
            f"data folder {path} holds other files ({', '.join(foreign[:3])}); choose an empty or new folder"
        )
    if path.stat().st_mode & 0o077:
        path.chmod(FOLDER_MODE)
