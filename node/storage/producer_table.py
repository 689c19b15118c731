"""The producer rows of all partitions: stored in LMDB, the recently used ones in memory."""

from typing import TYPE_CHECKING, Final

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
CHECK_INTERVAL_MS: Final = 3_600_000
CHECK_SLICE_ROWS: Final = 256
"""Rows looked at in one slice."""


class ProducerTable:
    """Belongs to the writer thread. Holds what was committed, nothing else."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._cache: dict[tuple[int, int], ProducerRow] = {}

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

    def put(self, transaction: "Transaction[bytes]", log: PartitionLog, rows: dict[int, ProducerRow]) -> None:
        """Store rows; `committed` takes them over once the transaction is through."""
        table = self._tables.producers
        for producer_id, row in rows.items():
            transaction.put(schema.producer_key(log.partition_id, producer_id), row.pack(), db=table)

    def committed(self, log: PartitionLog, rows: dict[int, ProducerRow]) -> None:
        """These rows are stored."""
        for producer_id, row in rows.items():
            self._remember((log.partition_id, producer_id), row)

    def forget(self, partition_id: int, producer_ids: list[int]) -> None:
        """These rows are gone."""
        for producer_id in producer_ids:
            self._cache.pop((partition_id, producer_id), None)

    def expire_slice(self, log: PartitionLog, now_ms: int) -> bool:
        """Look for rows past `EXPIRY_MS`, some at a time, once an interval. True while more is left."""
        if log.producers_checked_up_to == 0 and now_ms - log.producers_checked_ms < CHECK_INTERVAL_MS:
            return False
        expired, following = self._find_expired(log, now_ms - EXPIRY_MS)
        if expired:
            with self._tables.environment.begin(write=True) as transaction:
                for producer_id in expired:
                    transaction.delete(
                        schema.producer_key(log.partition_id, producer_id), db=self._tables.producers
                    )
            self.forget(log.partition_id, expired)
        log.producers_checked_up_to = following
        if following == 0:
            log.producers_checked_ms = now_ms
        return following != 0

    def _find_expired(self, log: PartitionLog, before_ms: int) -> tuple[list[int], int]:
        expired: list[int] = []
        start = schema.producer_key(log.partition_id, log.producers_checked_up_to)
        with self._tables.environment.begin(db=self._tables.producers) as transaction:
            cursor = transaction.cursor()
            positioned = cursor.set_range(start)
            for _ in range(CHECK_SLICE_ROWS):
                if not positioned:
                    return expired, 0
                partition_id, producer_id = schema.read_pair_key(cursor.key())
                if partition_id != log.partition_id:
                    return expired, 0
                if schema.read_producer_row(cursor.value()).last_timestamp < before_ms:
                    expired.append(producer_id)
                positioned = cursor.next()
        return expired, producer_id + 1

    def _remember(self, key: tuple[int, int], row: ProducerRow) -> None:
        cache = self._cache
        cache.pop(key, None)
        cache[key] = row
        if len(cache) > CACHED_ROWS_MAX:
            del cache[next(iter(cache))]
