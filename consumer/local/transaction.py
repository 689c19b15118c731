"""The application's own keys of one partition, as a transaction sees and changes them."""

from collections.abc import Iterator
from typing import Any, Protocol

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.limits import LOCAL_STATE_KEY_BYTES_MAX, LOCAL_STATE_VALUE_BYTES_MAX

from .access import working


class Keys(Protocol):
    """Where the keys are, for LocalTransaction, which checks what it is given."""

    def get(self, key: bytes, default: bytes | None) -> bytes | None:
        """The value of a key, with the changes so far."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key."""

    def delete(self, key: bytes) -> bool:
        """Remove a key; was it there?"""

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Those that begin with a prefix, in order."""


class LocalTransaction:
    """What `Consumer.local_transaction` gives: keys and values are bytes, in the order of the keys.

    A transaction sees its own changes; they are there for others when its block is left. It belongs to
    the thread that began it. Methods raise StorageFullError and StorageFaultError: then leave the block by
    that error; InvalidArgumentError for keys and values that do not fit, and after the end.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._over = False

    def get(self, key: bytes, default: bytes | None = None) -> bytes | None:
        """The value of a key, `default` if there is none."""
        self._check(key)
        return self._keys.get(key, default)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key of 1 to LOCAL_STATE_KEY_BYTES_MAX bytes to a value."""
        self._check(key)
        if not isinstance(value, bytes) or len(value) > LOCAL_STATE_VALUE_BYTES_MAX:
            raise InvalidArgumentError(
                f"the value of {key!r:.60} is {type(value).__name__} {value!r:.60}; it must be bytes, up to "
                f"{LOCAL_STATE_VALUE_BYTES_MAX} of them"
            )
        self._keys.put(key, value)

    def delete(self, key: bytes) -> bool:
        """Remove a key; False if there is none."""
        self._check(key)
        return self._keys.delete(key)

    def items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The keys that begin with `prefix`, with their values, in order. Not to be changed meanwhile."""
        if not isinstance(prefix, bytes):
            raise InvalidArgumentError(f"a prefix is bytes, not {prefix!r:.60}")
        self._check_open()
        for item in self._keys.items(prefix):
            yield item
            self._check_open()

    def end(self) -> None:
        """Nothing more is asked for: committed, or taken back."""
        self._over = True

    def _check(self, key: object) -> None:
        self._check_open()
        if not isinstance(key, bytes) or not 1 <= len(key) <= LOCAL_STATE_KEY_BYTES_MAX:
            raise InvalidArgumentError(f"{key!r:.60} is no key: it is 1 to {LOCAL_STATE_KEY_BYTES_MAX} bytes")

    def _check_open(self) -> None:
        if self._over:
            raise InvalidArgumentError("this local transaction is over: use it within its block only")


class StoredKeys:
    """Keys that are changed at once, in an LMDB transaction."""

    def __init__(self, transaction: Any, database: Any, what: str) -> None:
        self._transaction = transaction
        self._database = database
        self._what = what

    def get(self, key: bytes, default: bytes | None) -> bytes | None:
        """The value of a key."""
        with working(self._what):
            value: bytes | None = self._transaction.get(key, default, db=self._database)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Set it."""
        with working(self._what):
            self._transaction.put(key, value, db=self._database)

    def delete(self, key: bytes) -> bool:
        """Was it there?"""
        with working(self._what):
            return bool(self._transaction.delete(key, db=self._database))

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """In order."""
        with working(self._what), self._transaction.cursor(db=self._database) as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value
