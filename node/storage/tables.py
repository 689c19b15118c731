"""Opens the LMDB environment and its tables."""

import os
import secrets
import struct
import uuid
from typing import TYPE_CHECKING, Any, Final, Literal

import lmdb

from tailrace.durable import FILE_MODE, make_reader_table
from tailrace.protocol.errors import DataFolderError, InvalidConfigError
from tailrace.protocol.limits import OPENINGS_KEPT_MAX, PARTITIONS_PER_NODE_MAX

from . import schema
from .faults import storage_error
from .folder import DATA, DataFolder, damaged, refuse_newer
from .space import Space, live_pages

if TYPE_CHECKING:
    from lmdb import Environment, Transaction
    from lmdb import _Database as Database

Flush = Literal["commit", "relaxed"]

DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.NotFoundError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
    struct.error,
    UnicodeDecodeError,
)
"""What is raised where the tables are not what we wrote."""

NAMED_DATABASES_MAX: Final = PARTITIONS_PER_NODE_MAX + len(schema.TABLES)
MEASURE_EVERY: Final = 16
"""Group commits between two counts of the tables' pages (2 us a table)."""
SPARE_TRANSACTIONS: Final = 4
"""Read transactions that LMDB keeps for reuse: one a thread that reads."""


class Tables:
    """The environment and the handles of the tables that all partitions share."""

    def __init__(self, folder: DataFolder, space: Space, flush: Flush, ephemeral: bool) -> None:
        """Open or make them. Raises DataFolderError, StorageFullError, StorageFaultError."""
        self._unmeasured = 0
        self.folder: Final = folder
        self.space: Final = space
        self.ephemeral: Final = ephemeral
        folder.clear_void_data()
        if ephemeral:
            folder.begin_ephemeral()
        self.environment: Final = _open(folder, space.quota_bytes, flush, ephemeral)
        try:
            self.storage_id, self.clean, self.openings = self._start()
            folder.complete()
            if not ephemeral:
                folder.end_ephemeral()
        except DAMAGE as error:
            self.environment.close()
            raise damaged(folder.path, f"a table cannot be read ({error})") from error
        except lmdb.Error as error:
            self.environment.close()
            raise storage_error(error, f"opening {folder.path}", space.disk_free()) from error
        except BaseException:
            self.environment.close()
            raise

    def _start(self) -> tuple[str, bool, tuple[int, ...]]:
        with self.environment.begin(write=True) as transaction:
            if transaction.stat()["entries"] == 0:
                self._open_tables(transaction, create=True)
                self._make(transaction)
            else:
                self._refuse_foreign(transaction)
                self._open_tables(transaction, create=False)
            storage_id = transaction.get(schema.NODE_STORAGE_ID, db=self.node)
            if storage_id is None:
                raise damaged(self.folder.path, "the storage id is missing")
            clean = self.number(transaction, schema.NODE_CLEAN) == 1
            self.controller_epoch = self.number(transaction, schema.NODE_CONTROLLER_EPOCH)
            self.put_number(transaction, schema.NODE_CLEAN, 0)
            before = schema.read_numbers(transaction.get(schema.NODE_OPENINGS, b"", db=self.node))
            openings = (*before[1 - OPENINGS_KEPT_MAX :], secrets.randbits(63))
            transaction.put(schema.NODE_OPENINGS, schema.pack_numbers(openings), db=self.node)
            self.measure(transaction)
        return storage_id.decode("ascii"), clean, openings

    def _refuse_foreign(self, transaction: "Transaction[bytes]") -> None:
        if transaction.get(schema.NODE) is None:
            raise DataFolderError(
                f"data folder {self.folder.path}: {DATA} is not Tailrace's; choose another folder"
            )
        self.node = self.environment.open_db(schema.NODE, txn=transaction, create=False)
        refuse_newer(self.folder.path, self.number(transaction, schema.NODE_FORMAT_VERSION))

    def _open_tables(self, transaction: "Transaction[bytes]", create: bool) -> None:
        def table(name: bytes) -> "Database":
            return self.environment.open_db(name, txn=transaction, create=create)

        self.partitions = table(schema.PARTITIONS)
        self.time_index = table(schema.TIME_INDEX)
        self.epochs = table(schema.EPOCHS)
        self.producers = table(schema.PRODUCERS)
        self.aborted_transactions = table(schema.ABORTED_TRANSACTIONS)
        self.node = table(schema.NODE)

    def _make(self, transaction: "Transaction[bytes]") -> None:
        transaction.put(schema.NODE_STORAGE_ID, str(uuid.uuid4()).encode(), db=self.node)
        self.put_number(transaction, schema.NODE_FORMAT_VERSION, schema.FORMAT_VERSION)
        self.put_number(transaction, schema.NODE_CLEAN, 1)

    def log_database(self, transaction: "Transaction[bytes]", partition_id: int, create: bool) -> "Database":
        """The handle of one partition's log."""
        return self.environment.open_db(
            schema.log_name(partition_id), txn=transaction, create=create, integerkey=True
        )

    def number(self, transaction: "Transaction[bytes]", name: bytes) -> int:
        """A number of the node table, 0 if it was never put."""
        value = transaction.get(name, db=self.node)
        return 0 if value is None else schema.read_number(value)

    def put_number(self, transaction: "Transaction[bytes]", name: bytes, number: int) -> None:
        """Set a number of the node table."""
        transaction.put(name, schema.pack_number(number), db=self.node)

    def record_controller_epoch(self, controller_epoch: int) -> None:
        """Store the highest controller epoch seen."""
        with self.environment.begin(write=True) as transaction:
            self.put_number(transaction, schema.NODE_CONTROLLER_EPOCH, controller_epoch)
        self.controller_epoch = controller_epoch

    def measure_sometimes(self, transaction: "Transaction[Any]") -> None:
        """As `measure`, in one of `MEASURE_EVERY` transactions: for those that add little to the tables."""
        self._unmeasured += 1
        if self._unmeasured >= MEASURE_EVERY:
            self.measure(transaction)

    def measure(self, transaction: "Transaction[Any]") -> None:
        """Count the pages of everything but the logs and LMDB's list of free pages.

        Asked at the end of each transaction; if it fails after that, the next one counts again.
        """
        stat = transaction.stat()
        root = stat["branch_pages"] + stat["leaf_pages"]
        shared = (
            self.partitions,
            self.time_index,
            self.epochs,
            self.producers,
            self.aborted_transactions,
            self.node,
        )
        self._unmeasured = 0
        self.pages = root + sum(live_pages(transaction, table) for table in shared)

    def mark_clean(self) -> None:
        """Store, with all that is not synced yet, that the stop is clean: nothing is written after it."""
        with self.environment.begin(write=True) as transaction:
            self.put_number(transaction, schema.NODE_CLEAN, 1)
        self.environment.sync(True)

    def close(self, clean: bool) -> None:
        """`clean`: it is marked so. The folder is the caller's to close."""
        self.environment.close()
        if clean and self.ephemeral:
            self.folder.end_ephemeral()


def _open(folder: DataFolder, map_bytes: int, flush: Flush, ephemeral: bool) -> "Environment":
    try:
        folder.refuse_cut_short()
        make_reader_table(folder.path)
        return lmdb.open(
            os.fspath(folder.path),
            map_size=map_bytes,
            max_dbs=NAMED_DATABASES_MAX,
            mode=FILE_MODE,
            readahead=True,
            sync=not ephemeral,
            metasync=flush == "commit",
            max_spare_txns=SPARE_TRANSACTIONS,
            lib_version=0,
        )
    except lmdb.MemoryError as error:
        raise InvalidConfigError(f"a quota of {map_bytes} bytes cannot be mapped: {error}") from error
    except DAMAGE as error:
        what = str(error).removeprefix(f"{folder.path}: ")
        raise damaged(folder.path, f"{DATA} cannot be opened ({what})") from error
    except lmdb.Error as error:
        what = str(error).removeprefix(f"{folder.path}: ")
        raise DataFolderError(f"data folder {folder.path}: {what}") from error
