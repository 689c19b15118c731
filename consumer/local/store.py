"""Offsets and state in a folder that a pool of consumers on one machine may share: one store a partition.

    folder             := partition_folder*
    partition_folder   := "<topic id, hex>-<partition>"/     see `partition`

A topic that was deleted and created again has another id, and so other folders: the offsets of the
old one are never applied to it.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from tailrace.durable import fsync_folder, make_folder
from tailrace.protocol.record import TopicPartition

from ..stored_offset import StoredOffset
from .access import folder_access
from .beside import beside
from .buffered import BufferedKeys
from .partition import PartitionStore
from .transaction import LocalTransaction


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
            with folder_access(self._folder):
                make_folder(self._folder)
            self._folder_synced = False
            folder = self._folder / f"{topic_id.hex()}-{name.partition}"
            self._partitions[key] = PartitionStore(folder, name, topic_id, self._owner)
        return self._partitions[key].read()

    def read(self, key: tuple[bytes, int]) -> StoredOffset | None:
        """What is stored of a partition that is held."""
        return self._partitions[key].read()

    def write(self, offsets: Mapping[tuple[bytes, int], StoredOffset]) -> None:
        """Store offsets of partitions (topic id, number) that are held; all are durable on return.

        The first offsets of partitions come before all others, which may tell that there are so many.
        """
        self._sync_folder()
        for key in offsets:
            self._partitions[key].abandon()
        new = {key for key in offsets if self._partitions[key].is_new}
        for keys in (new, offsets.keys() - new):
            beside(lambda key: self._partitions[key].write(offsets[key]), keys)

    def transaction(
        self, key: tuple[bytes, int], offset: Callable[[], StoredOffset]
    ) -> AbstractContextManager[LocalTransaction]:
        """Change keys of the application; they are stored with the offset, which is asked for at the end."""
        self._sync_folder()
        return self._partitions[key].transaction(offset)

    def buffered(self, key: tuple[bytes, int]) -> BufferedKeys:
        """The same keys, with changes that a `transaction` is to make."""
        return self._partitions[key].buffered()

    def release(self, key: tuple[bytes, int]) -> None:
        """Let another consumer hold the partition. Harmless if it is not held."""
        partition = self._partitions.pop(key, None)
        if partition is not None:
            partition.close()

    def close(self) -> None:
        """Release everything."""
        for key in list(self._partitions):
            self.release(key)

    def _sync_folder(self) -> None:
        """Once for all partitions that were taken since the last write."""
        if not self._folder_synced:
            with folder_access(self._folder):
                fsync_folder(self._folder)
            self._folder_synced = True
