"""The producer rows of all partitions: stored in LMDB, the recently used ones in memory."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from . import schema
from .partition_log import PartitionLog
from .schema import ProducerRow
from .tables import Tables

if TYPE_CHECKING:
    from lmdb import Transaction

CACHED_ROWS_MAX: Final = 8_192
"""About 1 KB each when the window is full."""

EXPIRY_MS: Final = 7 * 24 * 3_600_000
"""A producer id that has not written to a partition for so long is forgotten there."""
CHECK_INTERVAL_MS: Final = 60_000
CHECK_SLICE_ROWS: Final = 256
"""Rows looked at in one slice."""

_FIRST_KEY: Final = schema.producer_key(0, 0)


class ProducerTable:
    """Belongs to the writer thread. Holds what was committed, nothing else."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._cache: dict[tuple[int, int], ProducerRow] = {}
        self._checked_ms = 0
        self._check_from = _FIRST_KEY

    def lookup(self, log: PartitionLog, producer_id: int) -> ProducerRow | None:
        """The committed row, or None if the partition does not know this producer id."""
        key = (log.partition_id, producer_id)
        row = self._cache.get(key)
        if row is None:
            with self._tables.environment.begin(db=self._tables.producers) as transaction:
                value = transaction.get(schema.producer_key(*key))
            if value is None:
                return None
            row = schema.read_producer_row(value)
            self._remember(key, row)
        return row

    def put(self, transaction: "Transaction[Any]", log: PartitionLog, rows: dict[int, ProducerRow]) -> None:
        """Store rows; `committed` takes them over once the transaction is through."""
        table = self._tables.producers
        for producer_id, row in rows.items():
            transaction.put(schema.producer_key(log.partition_id, producer_id), row.pack(), db=table)

    def committed(self, log: PartitionLog, rows: dict[int, ProducerRow]) -> None:
        """These rows are stored."""
        for producer_id, row in rows.items():
            self._remember((log.partition_id, producer_id), row)

    def delete(self, transaction: "Transaction[Any]", log: PartitionLog, producer_ids: Iterable[int]) -> None:
        """Delete rows; `forget` follows once the transaction is through."""
        for producer_id in producer_ids:
            transaction.delete(schema.producer_key(log.partition_id, producer_id), db=self._tables.producers)

    def forget(self, log: PartitionLog, producer_ids: Iterable[int] | None = None) -> None:
        """These rows are deleted; None: maybe any of the partition's."""
        if producer_ids is None:
            producer_ids = [
                producer for partition_id, producer in self._cache if partition_id == log.partition_id
            ]
        for producer_id in producer_ids:
            self._cache.pop((log.partition_id, producer_id), None)

    def may_expire(self, now_ms: int) -> bool:
        """Is it time for `expire_slice`? Cheap."""
        return abs(now_ms - self._checked_ms) >= CHECK_INTERVAL_MS

    def expire_slice(self, now_ms: int) -> bool:
        """Forget ids past `EXPIRY_MS` among the next `CHECK_SLICE_ROWS`.

        Returns whether rows were deleted, in a transaction of their own.
        """
        self._checked_ms = now_ms
        expired = self._find_expired(now_ms - EXPIRY_MS)
        if not expired:
            return False
        with self._tables.environment.begin(write=True) as transaction:
            for key in expired:
                transaction.delete(schema.producer_key(*key), db=self._tables.producers)
        for key in expired:
            self._cache.pop(key, None)
        return True

    def _find_expired(self, before_ms: int) -> list[tuple[int, int]]:
        expired: list[tuple[int, int]] = []
        with self._tables.environment.begin(db=self._tables.producers) as transaction:
            cursor = transaction.cursor()
            positioned = cursor.set_range(self._check_from)
            for _ in range(CHECK_SLICE_ROWS):
                if not positioned:
                    break
                if schema.read_producer_row(cursor.value()).last_timestamp < before_ms:
                    expired.append(schema.read_pair_key(cursor.key()))
                positioned = cursor.next()
            self._check_from = cursor.key() if positioned else _FIRST_KEY
        return expired

    def _remember(self, key: tuple[int, int], row: ProducerRow) -> None:
        cache = self._cache
        cache.pop(key, None)
        cache[key] = row
        if len(cache) > CACHED_ROWS_MAX:
            del cache[next(iter(cache))]
