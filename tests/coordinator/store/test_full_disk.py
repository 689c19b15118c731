"""A disk that is full when a coordinator starts: nothing is damaged, and it is not called so."""

import errno
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from tailrace.coordinator.store import group_store, lmdb_store
from tailrace.coordinator.store.group_store import LmdbGroupStore
from tailrace.coordinator.store.lmdb_store import LmdbStore
from tailrace.protocol.errors import DataFolderError


def full_map(code: int) -> lmdb.Error:
    error = lmdb.Error("mdb_txn_commit")
    error.code = code  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk quota exceeded"),
        (OSError(errno.EFBIG, "File too large"), "file too large"),
        (full_map(errno.EDQUOT), "disk quota exceeded"),
        (lmdb.DiskError("mdb_txn_commit: No space left on device"), "no space left on device"),
    ],
)
@pytest.mark.parametrize(("module", "store"), [(lmdb_store, LmdbStore), (group_store, LmdbGroupStore)])
def test_no_space_at_the_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: object,
    store: Callable[[Path], object],
    error: Exception,
    reason: str,
) -> None:
    def fail(_file: Path) -> None:
        raise error

    monkeypatch.setattr(module, "make_room", fail)
    with pytest.raises(DataFolderError, match=f"no space for .*: {reason}; free some"):
        store(tmp_path / "store")
    monkeypatch.undo()
    store(tmp_path / "store").close()  # type: ignore[attr-defined]
