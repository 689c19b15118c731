"""The state in an LMDB environment of one folder: embedded, nothing to set up.

A commit is one transaction with fsync: after a kill or a power loss the store opens in the time
it takes to read it, at the last commit.
"""

import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import lmdb
import msgspec

from tailrace.durable import FILE_MODE, LockFile, LockHeldError, make_folder, make_reader_table
from tailrace.protocol.errors import DataFolderError, StorageFaultError
from tailrace.protocol.limits import COORDINATOR_MAP_BYTES
from tailrace.protocol.messages import Update

from ..private_state import PrivateChange
from ..state import State
from .room import DATA_FILE, damaged, make_room, refuse_cut_short, refuse_full
from .rows import (
    DAMAGE,
    FORMAT,
    META,
    TABLES,
    Delete,
    Operation,
    first_rows,
    format_of,
    private_operation,
    published_operations,
    state_of,
    version_row,
)

LOCK_FILE: Final = "lock"


class LmdbStore:
    """A `Store` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Open the folder, or make it.

        Raises DataFolderError when another coordinator has it, when its format is newer, or when
        it is not one of ours or cannot be used, also for lack of space.
        """
        self._folder = folder
        try:
            make_folder(folder)
            # A file of its own, since closing LMDB's by other means would drop LMDB's locks.
            self._lock = LockFile(folder / LOCK_FILE)
        except LockHeldError as error:
            raise DataFolderError(
                f"{folder} is in use by another process ({error.holder or 'unknown'}): stop it, or choose "
                "another data folder"
            ) from None
        except OSError as error:
            refuse_full(folder, error)
            raise DataFolderError(f"cannot use {folder}: {error.strerror}") from None
        try:
            self._open()
        except (lmdb.Error, msgspec.MsgspecError, OSError) as error:
            self.close()
            refuse_full(folder, error)
            raise damaged(folder, error) from None
        except BaseException:
            self.close()
            raise

    def load(self) -> State:
        """The state after the last commit. Raises DataFolderError when the rows are damaged."""
        try:
            with self._environment.begin() as transaction:
                return state_of({name: list(transaction.cursor(db)) for name, db in self._tables.items()})
        except (lmdb.Error, *DAMAGE) as error:
            raise damaged(self._folder, repr(error)) from None

    def commit(self, updates: Sequence[Update], private: Sequence[PrivateChange]) -> None:
        """Make changes durable, all or none. Raises StorageFaultError; then the coordinator must stop."""
        try:
            with self._environment.begin(write=True) as transaction:
                for update in updates:
                    for change in update.changes:
                        for operation in published_operations(change):
                            self._execute(transaction, operation)
                if updates:
                    self._execute(transaction, version_row(updates[-1].version))
                for private_change in private:
                    self._execute(transaction, private_operation(private_change))
        except lmdb.Error as error:
            raise StorageFaultError(
                f"the coordinator's store in {self._folder} failed: {error}; what was asked last may or may "
                "not be stored. Free space or replace the disk, then start it again"
            ) from error

    def close(self) -> None:
        """Close the environment, then let others have the folder."""
        if hasattr(self, "_environment"):
            self._environment.close()
        self._lock.release()

    def _open(self) -> None:
        refuse_cut_short(self._folder)
        make_reader_table(self._folder)
        self._environment = lmdb.open(
            str(self._folder),
            map_size=COORDINATOR_MAP_BYTES,
            max_dbs=len(TABLES),
            max_readers=4,
            mode=FILE_MODE,
            meminit=False,
        )
        new = self._environment.stat()["entries"] == 0
        if not new:
            self._check_format()
        # One transaction: a folder whose making was interrupted is new, or whole.
        with self._environment.begin(write=True) as transaction:
            open_db = partial(self._environment.open_db, txn=transaction, create=new)
            self._tables = {name: open_db(name.encode()) for name in TABLES}
            if new:
                for row in first_rows(uuid.uuid4().hex):
                    self._execute(transaction, row)
        if new:
            make_room(self._folder / DATA_FILE)

    def _check_format(self) -> None:
        try:
            meta = self._environment.open_db(META.encode(), create=False)
        except lmdb.Error:
            raise DataFolderError(f"{self._folder} holds an LMDB store that is no coordinator's") from None
        with self._environment.begin() as transaction:
            value = transaction.get(b"format", db=meta)
        if value is None:
            raise DataFolderError(f"{self._folder} holds an LMDB store that is no coordinator's")
        if (found := format_of(value)) > FORMAT:
            raise DataFolderError(
                f"{self._folder} has format {found}, this version reads up to {FORMAT}: use a newer Tailrace"
            )

    def _execute(self, transaction: lmdb.Transaction, operation: Operation) -> None:
        table = self._tables[operation.table]
        if not isinstance(operation, Delete):
            transaction.put(operation.key, operation.value, db=table)
            return
        cursor = transaction.cursor(table)
        found = cursor.set_range(operation.prefix)
        while found and bytes(cursor.key()).startswith(operation.prefix):
            found = cursor.delete()
