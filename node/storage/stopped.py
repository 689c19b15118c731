"""Reads the logs of a node that is not running. Changes nothing, and locks the folder only while it looks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb

from tailrace.protocol.errors import DataFolderError

from . import schema
from .folder import FORMAT, DataFolder, damaged
from .schema import PartitionRow
from .tables import DAMAGE, NAMED_DATABASES_MAX

if TYPE_CHECKING:
    from lmdb import Environment


@contextmanager
def opened_read_only(path: Path) -> "Iterator[Environment]":
    """The environment of a data folder that no process has open.

    Raises DataFolderError if the folder is in use, newer, damaged, or not one of ours.
    """
    if not (path / FORMAT).exists():
        raise DataFolderError(f"{path} is not the data folder of a node")
    folder = DataFolder(path)
    try:
        folder.refuse_without_data()
        folder.refuse_cut_short()
        environment = lmdb.open(os.fspath(path), readonly=True, max_dbs=NAMED_DATABASES_MAX)
        try:
            yield environment
        finally:
            environment.close()
    except DAMAGE as error:
        raise damaged(path, str(error).removeprefix(f"{path}: ")) from error
    except lmdb.Error as error:
        raise DataFolderError(f"data folder {path}: {error}") from error
    finally:
        folder.close()


def stored_partitions(path: Path) -> list[PartitionRow]:
    """What is stored of each partition besides its batches. Raises DataFolderError."""
    with opened_read_only(path) as environment:
        return list(_rows(environment).values())


def stored_batches(path: Path, topic_id: bytes, partition: int) -> Iterator[bytes]:
    """The batches of one log, in order; the folder is locked meanwhile. Raises DataFolderError."""
    with opened_read_only(path) as environment:
        for partition_id, row in _rows(environment).items():
            if (row.topic_id, row.partition) != (topic_id, partition):
                continue
            name = schema.log_name(partition_id)
            with environment.begin() as transaction:
                database = environment.open_db(name, txn=transaction, create=False, integerkey=True)
                for _, batch in transaction.cursor(db=database):
                    yield batch


def _rows(environment: "Environment") -> dict[int, PartitionRow]:
    """The partitions that are not being deleted."""
    with environment.begin() as transaction:
        table = environment.open_db(schema.PARTITIONS, txn=transaction, create=False)
        rows = {
            schema.read_partition_key(key): schema.read_partition_row(value)
            for key, value in transaction.cursor(db=table)
        }
    return {number: row for number, row in rows.items() if not row.flags & schema.PARTITION_DELETING}
