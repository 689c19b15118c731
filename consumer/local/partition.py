"""One partition's environment: its offset, and keys of the application that change together with it.

    partition_folder       0700
        data.mdb, lock.mdb   LMDB                          0600
        held.lock            flock by the consumer that holds the partition; text: who
    database "tailrace"
        "identity"     := msgpack map {format, topic, topic_id, partition, host}
        "offset"       := msgpack array [offset, leader epoch, partition count, metadata of the application]
    database "application"
        key            := value, both the application's

One environment a partition, so that its holder can commit in one transaction whoever holds the others.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from tailrace.cut_short import cut_short
from tailrace.durable import (
    FILE_MODE,
    FOLDER_MODE,
    LockFile,
    LockHeldError,
    fsync_folder,
    make_reader_table,
)
from tailrace.protocol.cluster import TopicId
from tailrace.protocol.errors import DataFolderError
from tailrace.protocol.limits import OFFSET_STORE_MAP_BYTES
from tailrace.protocol.record import TopicPartition

from ..stored_offset import StoredOffset
from .access import DATABASES_MAX, STATE, STORE, folder_access, opening, working
from .buffered import BufferedKeys
from .transaction import LocalTransaction, StoredKeys

FORMAT: Final = 1
IDENTITY: Final = b"identity"
OFFSET: Final = b"offset"
_MACHINE_ID: Final = Path("/etc/machine-id")


class Identity(msgspec.Struct, frozen=True):
    """Whose offsets these are, and on which machine the folder was made."""

    format: int
    topic: str
    topic_id: TopicId
    partition: int
    host: str


class _Format(msgspec.Struct):
    format: int


class PartitionStore:
    """The environment of one partition, locked from construction to `close()`.

    Nothing is written before the first offset. `folder` is made if its parent is there. Raises
    DataFolderError (held by another consumer, made on another machine, of a newer format, damaged, not
    writable) and StorageFullError.
    """

    def __init__(self, folder: Path, name: TopicPartition, topic_id: bytes, owner: str) -> None:
        self._what = f"the offset store of {name.topic}-{name.partition} in {folder}"
        self._folder = folder
        self._identity = Identity(FORMAT, name.topic, topic_id, name.partition, this_machine())
        self._begun: Any = None
        self._named = False
        """Is its name on disk, too? LMDB syncs the file's content, not the folder that it is in."""
        self._in_doubt = False
        """Was the first write interrupted as it was committed?"""
        with folder_access(folder):
            folder.mkdir(FOLDER_MODE, exist_ok=True)  # synced with the first offset
        try:
            self._lock = _lock(folder / "held.lock", owner)
        except DataFolderError as error:
            raise DataFolderError(
                f"{self._what} cannot be used: {error}. A partition has one consumer in a folder: "
                "close the other one, or give this one other partitions or another offset_store"
            ) from None
        with ExitStack() as opened:
            opened.callback(self._lock.release)
            with folder_access(folder):
                if (reason := cut_short(folder / "data.mdb")) is not None:
                    raise DataFolderError(
                        f"{self._what} is damaged: {reason}. Put a copy of it back, or remove it: the "
                        "partition is then read from where auto_offset_reset says"
                    )
                make_reader_table(folder)
            with opening(self._what):
                self._environment = _open(folder)
                opened.callback(self._environment.close)
                self._database = self._find_database()
            opened.pop_all()

    @property
    def is_new(self) -> bool:
        """Was no offset ever written?"""
        return self._database is None

    def read(self) -> StoredOffset | None:
        """The offset that was written last, None if there is none. Raises StorageFaultError."""
        if self._in_doubt:
            self.abandon()
            with working(self._what):
                self._database, self._in_doubt = self._find_database(), False
        if self._database is None:
            return None
        with working(self._what), self._environment.begin(db=self._database) as transaction:
            stored = transaction.get(OFFSET)
        return None if stored is None else msgspec.msgpack.decode(stored, type=StoredOffset)

    def write(self, offset: StoredOffset) -> None:
        """Durable on return (fdatasync), if the folder around is. Raises StorageFullError, StorageFaultError.

        Whose offsets these are is written with the first one: a new partition costs one sync more.
        """
        with self._change(lambda: offset):
            pass

    @contextmanager
    def transaction(self, offset: Callable[[], StoredOffset]) -> Iterator[LocalTransaction]:
        """Change keys of the application; leaving the block stores them with the offset, as `write` does.

        An exception takes everything back. Raises like `write`.
        """
        with self._change(offset) as transaction:
            with working(self._what):
                state = self._environment.open_db(STATE, txn=transaction)
            local = LocalTransaction(StoredKeys(transaction, state, self._what))
            try:
                yield local
            finally:
                local.end()

    def buffered(self) -> BufferedKeys:
        """Keys of the application, to be changed by a `transaction` later; nothing is written meanwhile."""
        return BufferedKeys(self._environment, self._what)

    def abandon(self) -> None:
        """End the transaction that is under way, or that a signal handler has interrupted anywhere.

        In the thread that began it: LMDB lets no other one end it, and the next one waits for its end.
        """
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.abort()  # nothing more happens to one that was committed

    def close(self) -> None:
        """Close the environment, then give up the lock."""
        self._environment.close()
        self._lock.release()

    @contextmanager
    def _change(self, offset: Callable[[], StoredOffset]) -> Iterator[Any]:
        """One LMDB transaction, with the offset as its last change."""
        self.abandon()
        transaction: Any = None
        try:
            with working(self._what):
                self._begun = transaction = self._environment.begin(write=True)
            yield transaction
            with working(self._what, self._folder):
                database = self._database or self._environment.open_db(STORE, txn=transaction)
                if self._database is None:
                    transaction.put(IDENTITY, msgspec.msgpack.encode(self._identity), db=database)
                transaction.put(OFFSET, msgspec.msgpack.encode(offset()), db=database)
                self._in_doubt = self._database is None
                transaction.commit()
            self._database, self._in_doubt = database, False
        finally:
            if transaction is self._begun:
                self.abandon()
        if not self._named:
            with folder_access(self._folder):
                fsync_folder(self._folder)
            self._named = True

    def _find_database(self) -> Any:
        """Ours, if something was ever written, and after a look at whose it is."""
        try:
            database = self._environment.open_db(STORE, create=False)
        except lmdb.NotFoundError:
            return None
        with self._environment.begin(db=database) as transaction:
            found = transaction.get(IDENTITY)
        if found is None:
            return None
        self._check(found)
        return database

    def _check(self, encoded: bytes) -> None:
        identity = read_identity(encoded, self._what)
        ours = self._identity
        if (identity.topic_id, identity.partition) != (ours.topic_id, ours.partition):
            raise DataFolderError(
                f"{self._what} belongs to {identity.topic}-{identity.partition}, "
                f"topic id {identity.topic_id.hex()}: it was moved or renamed"
            )
        if identity.host != ours.host:
            raise DataFolderError(
                f"{self._what} was made on another machine ({identity.host}, this is {ours.host}): the "
                "consumers that share a folder are on one machine, as its locks are; use another one here"
            )


def read_identity(encoded: bytes, what: str) -> Identity:
    """Raises DataFolderError for another format, and for what is none."""
    try:
        version = msgspec.msgpack.decode(encoded, type=_Format).format
        if version != FORMAT:
            raise DataFolderError(
                f"{what} has format {version}, this Tailrace knows {FORMAT}: use the version that wrote it"
            )
        return msgspec.msgpack.decode(encoded, type=Identity)
    except msgspec.MsgspecError as error:
        raise DataFolderError(f"{what} is damaged: {error}") from error


def _open(folder: Path) -> lmdb.Environment:
    return lmdb.open(
        str(folder), map_size=OFFSET_STORE_MAP_BYTES, max_dbs=DATABASES_MAX, mode=FILE_MODE, readahead=False
    )


def _lock(path: Path, owner: str) -> LockFile:
    try:
        return LockFile(path, owner)
    except LockHeldError as error:
        raise DataFolderError(f"held by {error.holder or 'another consumer'}") from None
    except OSError as error:
        if error.errno is None:
            raise  # a signal handler's TimeoutError
        raise DataFolderError(f"{path}: {(error.strerror or str(error)).lower()}") from error


@cache
def this_machine() -> str:
    """What names this machine over reboots; its name where there is no machine id."""
    try:
        return _MACHINE_ID.read_text().strip() or platform.node()
    except OSError:
        return platform.node()
