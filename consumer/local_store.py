"""Offsets kept on the consumer's own machine, in a folder that a pool of consumers may share.

    folder             := partition_folder*
    partition_folder   := "<topic id, hex>-<partition>"/   0700
        data.mdb, lock.mdb   LMDB                          0600
        held.lock            flock by the consumer that holds the partition; text: who
    database "tailrace"
        "identity"     := msgpack map {format, topic, topic_id, partition, host}
        "offset"       := msgpack array [offset, leader epoch, partition count, metadata of the application]

One environment a partition, so that its holder can commit keys of the application and the offset in
one transaction, whoever holds the other partitions. A topic that was deleted and created again has
another id, and so other folders: the offsets of the old one are never applied to the new one.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from tailrace.durable import FILE_MODE, FOLDER_MODE, LockFile, LockHeldError, fsync_folder, make_folder
from tailrace.protocol.cluster import TopicId
from tailrace.protocol.errors import DataFolderError, StorageFaultError, StorageFullError
from tailrace.protocol.limits import OFFSET_STORE_MAP_BYTES
from tailrace.protocol.record import TopicPartition

FORMAT: Final = 1
_DATABASE: Final = b"tailrace"
_DATABASES_MAX: Final = 8
_IDENTITY: Final = b"identity"
_OFFSET: Final = b"offset"
_MACHINE_ID: Final = Path("/etc/machine-id")


class StoredOffset(msgspec.Struct, frozen=True, array_like=True):
    """Where to go on reading.

    `leader_epoch` is that of the record before `offset`, -1 if unknown. `partition_count` is how many
    partitions the topic had then: those with higher numbers have come since, and were read by nobody.
    """

    offset: int
    leader_epoch: int = -1
    partition_count: int = 0
    metadata: str = ""


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
    DataFolderError (held by another consumer, of a newer format, damaged, not writable) and
    StorageFullError.
    """

    def __init__(self, folder: Path, name: TopicPartition, topic_id: bytes, owner: str) -> None:
        self._what = f"the offset store of {name.topic}-{name.partition} in {folder}"
        self._folder = folder
        self._identity = Identity(FORMAT, name.topic, topic_id, name.partition, _host())
        with _access(folder):
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
            with self._explained_opening():
                self._environment = _open(folder)
                opened.callback(self._environment.close)
                self._database = self._find_database()
            opened.pop_all()

    def read(self) -> StoredOffset | None:
        """The offset that was written last, None if there is none. Raises StorageFaultError."""
        if self._database is None:
            return None
        with self._explained(), self._environment.begin(db=self._database) as transaction:
            stored = transaction.get(_OFFSET)
        return None if stored is None else msgspec.msgpack.decode(stored, type=StoredOffset)

    def write(self, offset: StoredOffset) -> None:
        """Durable on return (fdatasync), if the folder around is. Raises StorageFullError, StorageFaultError.

        Whose offsets these are is written with the first one: a new partition costs one sync more.
        """
        with self._explained():
            with self._environment.begin(write=True) as transaction:
                database = self._database or self._environment.open_db(_DATABASE, txn=transaction)
                if self._database is None:
                    transaction.put(_IDENTITY, msgspec.msgpack.encode(self._identity), db=database)
                transaction.put(_OFFSET, msgspec.msgpack.encode(offset), db=database)
            if self._database is None:
                # LMDB syncs the file's content, not the folder that it is in.
                with _access(self._folder):
                    fsync_folder(self._folder)
                self._database = database

    def close(self) -> None:
        """Close the environment, then give up the lock."""
        self._environment.close()
        self._lock.release()

    def _find_database(self) -> Any:
        """Ours, if something was ever written, and after a look at whose it is."""
        try:
            database = self._environment.open_db(_DATABASE, create=False)
        except lmdb.NotFoundError:
            return None
        with self._environment.begin(db=database) as transaction:
            found = transaction.get(_IDENTITY)
        if found is None:
            return None
        self._check(found)
        return database

    def _check(self, encoded: bytes) -> None:
        try:
            version = msgspec.msgpack.decode(encoded, type=_Format).format
            if version != FORMAT:
                raise DataFolderError(
                    f"{self._what} has format {version}, this Tailrace knows {FORMAT}: "
                    "use the version that wrote it"
                )
            identity = msgspec.msgpack.decode(encoded, type=Identity)
        except msgspec.MsgspecError as error:
            raise DataFolderError(f"{self._what} is damaged: {error}") from error
        ours = self._identity
        if (identity.topic_id, identity.partition) != (ours.topic_id, ours.partition):
            raise DataFolderError(
                f"{self._what} belongs to {identity.topic}-{identity.partition}, "
                f"topic id {identity.topic_id.hex()}: it was moved or renamed"
            )

    @contextmanager
    def _explained_opening(self) -> Iterator[None]:
        try:
            yield
        except lmdb.DiskError as error:
            raise StorageFullError(f"{self._what} has no space: {error}") from error
        except lmdb.Error as error:
            raise DataFolderError(f"{self._what} is damaged or not one of ours: {error}") from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.DiskError, lmdb.MapFullError) as error:
            raise StorageFullError(f"{self._what} has no space left: {error}") from error
        except (lmdb.Error, msgspec.MsgspecError) as error:
            raise StorageFaultError(f"{self._what} failed: {error}") from error


class LocalStore:
    """The partitions of one folder that one consumer holds. Belongs to the consumer's thread.

    `owner` names the consumer to whoever finds a partition held.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder = folder.absolute()
        self._owner = f"process {os.getpid()} ({owner})"
        self._partitions: dict[tuple[bytes, int], PartitionStore] = {}
        self._folder_synced = False
        """Are the partitions' folders that are there durably there?"""

    def hold(self, name: TopicPartition, topic_id: bytes) -> StoredOffset | None:
        """Lock a partition and return its stored offset.

        Raises DataFolderError, StorageFullError, StorageFaultError.
        """
        key = (topic_id, name.partition)
        if key not in self._partitions:
            with _access(self._folder):
                make_folder(self._folder)
            self._folder_synced = False
            folder = self._folder / f"{topic_id.hex()}-{name.partition}"
            self._partitions[key] = PartitionStore(folder, name, topic_id, self._owner)
        return self._partitions[key].read()

    def write(self, key: tuple[bytes, int], offset: StoredOffset) -> None:
        """Store the offset of a partition (topic id, number) that is held; durable on return."""
        if not self._folder_synced:
            # Once for all partitions that were taken since the last write.
            with _access(self._folder):
                fsync_folder(self._folder)
            self._folder_synced = True
        self._partitions[key].write(offset)

    def release(self, key: tuple[bytes, int]) -> None:
        """Let another consumer hold the partition. Harmless if it is not held."""
        partition = self._partitions.pop(key, None)
        if partition is not None:
            partition.close()

    def close(self) -> None:
        """Release everything."""
        for key in list(self._partitions):
            self.release(key)


def _open(folder: Path) -> lmdb.Environment:
    return lmdb.open(
        str(folder), map_size=OFFSET_STORE_MAP_BYTES, max_dbs=_DATABASES_MAX, mode=FILE_MODE, readahead=False
    )


def _lock(path: Path, owner: str) -> LockFile:
    try:
        return LockFile(path, owner)
    except LockHeldError as error:
        raise DataFolderError(f"held by {error.holder or 'another consumer'}") from None
    except OSError as error:
        raise DataFolderError(f"{path}: {(error.strerror or str(error)).lower()}") from error


@contextmanager
def _access(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataFolderError(
            f"offset_store folder {folder}: {(error.strerror or str(error)).lower()}"
        ) from error


@cache
def _host() -> str:
    """What names this machine over reboots; its name where there is no machine id."""
    try:
        return _MACHINE_ID.read_text().strip() or platform.node()
    except OSError:
        return platform.node()
