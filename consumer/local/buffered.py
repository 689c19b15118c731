"""Keys of the application for asyncio: read at once, changed in memory, and made in a thread at the end.

An LMDB transaction that writes belongs to a thread, and its commit waits for the disk: neither fits a loop.
The holder of a partition is the only one that writes to it, so what is read stays as it is meanwhile.
"""

from collections.abc import Iterator
from contextlib import suppress
from heapq import merge
from operator import itemgetter
from typing import Any

import lmdb

from .access import STATE, working
from .transaction import LocalTransaction, StoredKeys


class BufferedKeys:
    """The keys of an environment that nobody writes to meanwhile, and changes to them."""

    def __init__(self, environment: Any, what: str) -> None:
        self._environment = environment
        self._what = what
        self._changes: dict[bytes, bytes | None] = {}
        self._database: Any = None
        with working(what), suppress(lmdb.NotFoundError):
            # In a transaction of its own: one that only reads would not leave the database open.
            self._database = environment.open_db(STATE, create=False)

    def get(self, key: bytes, default: bytes | None) -> bytes | None:
        """As it was changed, else as it is stored."""
        if key in self._changes:
            changed = self._changes[key]
            return default if changed is None else changed
        if self._database is None:
            return default
        with working(self._what), self._environment.begin() as transaction:
            return StoredKeys(transaction, self._database, self._what).get(key, default)

    def put(self, key: bytes, value: bytes) -> None:
        """Change it."""
        self._changes[key] = value

    def delete(self, key: bytes) -> bool:
        """Change it, if it is there."""
        if self.get(key, None) is None:
            return False
        self._changes[key] = None
        return True

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """In order, with the changes."""
        changed = sorted(
            (key, value)
            for key, value in self._changes.items()
            if value is not None and key.startswith(prefix)
        )
        stored = (item for item in self._stored(prefix) if item[0] not in self._changes)
        return merge(stored, changed, key=itemgetter(0))

    def make(self, transaction: LocalTransaction) -> None:
        """Make the changes."""
        for key, value in self._changes.items():
            if value is None:
                transaction.delete(key)
            else:
                transaction.put(key, value)

    def _stored(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        if self._database is not None:
            with working(self._what), self._environment.begin() as transaction:
                yield from StoredKeys(transaction, self._database, self._what).items(prefix)
