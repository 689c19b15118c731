"""Groups and their offsets in an LMDB environment of their own, beside the cluster state's.

| sub-database | key | value (msgpack) |
|---|---|---|
| meta | `format` | integer |
| groups | group id | GroupRow, with the kind of group as its tag |
| members | group id + NUL + member id | MemberRow |
| offsets | group id + NUL + topic id + partition, 4 bytes big endian | CommittedOffset |

A group or member id holds no NUL. A commit is one transaction with fsync. The folder is the
coordinator's, whose lock covers it.
"""

import struct
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import lmdb
import msgspec

from tailrace.durable import FILE_MODE, make_folder, make_reader_table
from tailrace.protocol.errors import DataFolderError, StorageFaultError
from tailrace.protocol.group_messages import CommittedOffset
from tailrace.protocol.limits import GROUP_STORE_MAP_BYTES

from ..groups.changes import (
    GroupChange,
    GroupChanged,
    GroupRemoved,
    GroupRow,
    MemberChanged,
    MemberRemoved,
    MemberRow,
    OffsetDropped,
    OffsetStored,
)
from ..groups.state import GroupsState
from .room import DATA_FILE, damaged, make_room, refuse_cut_short, refuse_full

FORMAT: Final = 1
_META: Final = b"meta"
_GROUPS: Final = b"groups"
_MEMBERS: Final = b"members"
_OFFSETS: Final = b"offsets"
_FORMAT_KEY: Final = b"format"
_NUL: Final = b"\0"
_U32: Final = struct.Struct(">I")
_encode: Final = msgspec.msgpack.Encoder().encode
_DAMAGE: Final = (lmdb.Error, msgspec.MsgspecError, KeyError, ValueError, AssertionError)


class LmdbGroupStore:
    """A `GroupStore`: keeps groups across restarts. Belongs to one thread of one coordinator.

    Raises DataFolderError when the folder's format is newer, or it is damaged or cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            make_folder(folder)
            refuse_cut_short(folder)
            make_reader_table(folder)
            self._environment = lmdb.open(
                str(folder),
                map_size=GROUP_STORE_MAP_BYTES,
                max_dbs=4,
                max_readers=4,
                mode=FILE_MODE,
                meminit=False,
            )
        except (lmdb.Error, OSError) as error:
            refuse_full(folder, error)
            raise damaged(folder, error) from None
        try:
            self._open()
        except (lmdb.Error, OSError) as error:
            self._environment.close()
            refuse_full(folder, error)
            raise damaged(folder, error) from None
        except BaseException:
            self._environment.close()
            raise

    def load(self) -> GroupsState:
        """The groups after the last commit. Raises DataFolderError when the rows are damaged."""
        state = GroupsState()
        try:
            with self._environment.begin() as transaction:
                group_row = msgspec.msgpack.Decoder(GroupRow).decode
                for key, value in transaction.cursor(self._groups):
                    state.apply(GroupChanged(bytes(key).decode(), group_row(value)))
                member_row = msgspec.msgpack.Decoder(MemberRow).decode
                for key, value in transaction.cursor(self._members):
                    state.apply(MemberChanged(_group_of(bytes(key)), member_row(value)))
                offset = msgspec.msgpack.Decoder(CommittedOffset).decode
                for key, value in transaction.cursor(self._offsets):
                    state.apply(OffsetStored(_group_of(bytes(key)), offset(value)))
        except _DAMAGE as error:
            raise damaged(self._folder, repr(error)) from None
        return state

    def commit(self, changes: Sequence[GroupChange]) -> None:
        """Make changes durable, all or none.

        Raises StorageFaultError; then it is unknown whether they are stored, and the coordinator must stop.
        """
        try:
            with self._environment.begin(write=True) as transaction:
                put = transaction.put
                for change in changes:
                    if isinstance(change, OffsetStored):
                        stored = change.offset
                        key = _offset_key(change.group_id, stored.topic_id, stored.partition)
                        put(key, _encode(stored), db=self._offsets)
                    else:
                        self._make(transaction, change)
        except lmdb.Error as error:
            raise StorageFaultError(
                f"the store of groups in {self._folder} failed: {error}; what was asked last may or may not "
                "be stored. Free space or replace the disk, then start the coordinator again"
            ) from error

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()

    def _open(self) -> None:
        new = self._environment.stat()["entries"] == 0
        if not new:
            self._check_format()
        # One transaction: a folder whose making was interrupted is new, or whole.
        with self._environment.begin(write=True) as transaction:
            open_db = partial(self._environment.open_db, txn=transaction, create=new)
            self._meta, self._groups = open_db(_META), open_db(_GROUPS)
            self._members, self._offsets = open_db(_MEMBERS), open_db(_OFFSETS)
            if new:
                transaction.put(_FORMAT_KEY, _encode(FORMAT), db=self._meta)
        if new:
            make_room(self._folder / DATA_FILE)

    def _check_format(self) -> None:
        try:
            meta = self._environment.open_db(_META, create=False)
            with self._environment.begin() as transaction:
                found = msgspec.msgpack.decode(transaction.get(_FORMAT_KEY, db=meta) or b"", type=int)
        except _DAMAGE as error:
            raise damaged(self._folder, repr(error)) from None
        if found > FORMAT:
            raise DataFolderError(
                f"{self._folder} has format {found}, this version reads up to {FORMAT}: use a newer Tailrace"
            )

    def _make(self, transaction: lmdb.Transaction, change: GroupChange) -> None:
        match change:
            case GroupChanged(group_id, group_row):
                transaction.put(group_id.encode(), _encode(group_row), db=self._groups)
            case MemberChanged(group_id, row):
                transaction.put(_member_key(group_id, row.member_id), _encode(row), db=self._members)
            case MemberRemoved(group_id, member_id):
                transaction.delete(_member_key(group_id, member_id), db=self._members)
            case OffsetDropped(group_id, topic_id, partition):
                transaction.delete(_offset_key(group_id, topic_id, partition), db=self._offsets)
            case GroupRemoved(group_id):
                transaction.delete(group_id.encode(), db=self._groups)
                for table in (self._members, self._offsets):
                    prefix = group_id.encode() + _NUL
                    cursor = transaction.cursor(table)
                    found = cursor.set_range(prefix)
                    while found and bytes(cursor.key()).startswith(prefix):
                        found = cursor.delete()
            case _:
                raise AssertionError(change)


def _member_key(group_id: str, member_id: str) -> bytes:
    return group_id.encode() + _NUL + member_id.encode()


def _offset_key(group_id: str, topic_id: bytes, partition: int) -> bytes:
    return group_id.encode() + _NUL + topic_id + _U32.pack(partition)


def _group_of(key: bytes) -> str:
    return key[: key.index(_NUL)].decode()
