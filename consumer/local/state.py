"""A look at what local transactions have stored, without being a consumer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from tailrace.protocol.errors import DataFolderError, InvalidArgumentError
from tailrace.protocol.limits import OFFSET_STORE_MAP_BYTES
from tailrace.protocol.record import TopicPartition

from .access import DATABASES_MAX, STATE, STORE, folder_access, opening, working
from .partition import IDENTITY, read_identity


class LocalEntry(NamedTuple):
    """One key of the application's, and the partition whose records it was made from."""

    partition: TopicPartition
    key: bytes
    value: bytes


def read_local_state(folder: str | Path) -> Iterator[LocalEntry]:
    """All keys that local transactions have stored under an `offset_store`, partition by partition.

    Each partition is read as it is at one moment, also while a consumer of another process writes to it.
    Topics that were deleted are there as long as their folders are. Raises DataFolderError, also for
    a partition that is open in this very process: its transactions can be asked then.
    """
    if not isinstance(folder, str | Path) or not str(folder):
        raise InvalidArgumentError(f"{folder!r:.100} is no folder: give the path of an offset_store")
    root = Path(folder)
    with folder_access(root):
        places = sorted(path.parent for path in root.glob("*/data.mdb"))
        if not places and not root.is_dir():
            raise DataFolderError(f"offset_store folder {root}: there is none")
    return (entry for place in places for entry in _entries(place))


def _entries(folder: Path) -> Iterator[LocalEntry]:
    what = f"the offset store in {folder}"
    with opening(what):
        environment = _open(folder, what)
    with environment, working(what), environment.begin() as transaction:
        store, state = (_database(environment, transaction, name) for name in (STORE, STATE))
        if store is None or state is None:
            return
        identity = read_identity(transaction.get(IDENTITY, b"", db=store), what)
        partition = TopicPartition(identity.topic, identity.partition)
        for key, value in transaction.cursor(db=state):
            yield LocalEntry(partition, key, value)


def _open(folder: Path, what: str) -> lmdb.Environment:
    try:
        return lmdb.open(
            str(folder),
            map_size=OFFSET_STORE_MAP_BYTES,
            max_dbs=DATABASES_MAX,
            readonly=True,
            readahead=False,
        )
    except lmdb.Error as error:
        if "already open in this process" in str(error):
            raise DataFolderError(
                f"{what} is open in this process: its consumer's transactions read it"
            ) from None
        raise


def _database(environment: lmdb.Environment, transaction: lmdb.Transaction, name: bytes) -> Any:
    """None if nothing was ever written to it."""
    try:
        return environment.open_db(name, txn=transaction, create=False)
    except lmdb.NotFoundError:
        return None
