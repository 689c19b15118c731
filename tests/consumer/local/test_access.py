"""What an error of LMDB is called."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest

from tailrace.consumer.local.access import opening, working
from tailrace.protocol.errors import DataFolderError, StorageFaultError, StorageFullError
from tailrace.protocol.limits import GIB


@pytest.mark.parametrize(
    ("code", "free", "kind"),
    [
        (errno.EIO, 4096, StorageFullError),
        (errno.EIO, GIB, StorageFaultError),
        (errno.EACCES, 4096, StorageFaultError),
        (0, 4096, StorageFaultError),
    ],
)
def test_a_write_that_fell_short_is_a_full_disk(
    code: int, free: int, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1))
    error = lmdb.Error("commit")
    error.code = code  # type: ignore[misc]
    with pytest.raises(kind), working("the store", tmp_path):
        raise error


@pytest.mark.parametrize(
    ("code", "said"),
    [(errno.ENOMEM, "the store cannot be opened: "), (0, "the store is damaged or not one of")],
)
def test_a_store_that_the_system_refuses_is_not_called_damaged(code: int, said: str) -> None:
    error = lmdb.Error("open")
    error.code = code  # type: ignore[misc]
    with pytest.raises(DataFolderError, match=said), opening("the store"):
        raise error


def test_a_read_does_not_ask_the_disk() -> None:
    error = lmdb.Error("get")
    error.code = errno.EIO  # type: ignore[misc]
    with pytest.raises(StorageFaultError), working("the store"):
        raise error
