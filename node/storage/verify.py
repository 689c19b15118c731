"""Walks a whole environment and compares everything in it with everything else.

Reads every batch, so it takes as long as reading the file does. Changes nothing. What is
compared: keys with headers, CRCs, offsets without gaps, the partitions' rows with what their
logs hold, LMDB's page counts with the batches, time index, epochs and producer windows.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tailrace.protocol.batch import BatchHeader, check_crc, parse_header
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.limits import MIB, PRODUCER_WINDOW_BATCHES

from . import schema
from .partition_log import PartitionLog, partition_name
from .producers import SEQUENCE_MASK
from .reading import misplaced
from .schema import PartitionRow, ProducerRow
from .space import live_pages, overflow_pages
from .stopped import opened_read_only

if TYPE_CHECKING:
    from lmdb import Cursor, Environment, Transaction
    from lmdb import _Database as Database

PROBLEMS_MAX: Final = 100
"""Problems that a report spells out; the others are counted."""
TELL_EVERY_BYTES: Final = 8 * MIB
"""Progress is told about as often."""

Progress = Callable[[int, int], None]
"""Is given the bytes of batches that were read, and of all, as the partitions' rows have it."""


class Report(NamedTuple):
    """What was found. `problems` is empty if all is well; sizes in bytes."""

    problems: list[str]
    problem_count: int
    partitions: int
    batches: int
    records: int
    size_bytes: int


class Verifier:
    """One walk through one snapshot."""

    def __init__(
        self,
        environment: "Environment",
        transaction: "Transaction[bytes]",
        progress: Progress = lambda done, total: None,
    ) -> None:
        self._progress = progress
        self._total = self._told = 0
        self._environment = environment
        self._transaction = transaction
        self._problems: list[str] = []
        self._problem_count = 0
        self._partitions = self._batches = self._records = self._size_bytes = 0

    def run(self) -> Report:
        """Check everything."""
        rows: dict[int, PartitionRow] = {}
        for key, value in self._entries(schema.PARTITIONS):
            rows[schema.read_partition_key(key)] = schema.read_partition_row(value)
        self._check_names(rows)
        self._total = sum(row.size_bytes for row in rows.values())
        self._progress(0, self._total)
        for partition_id, row in rows.items():
            if not row.flags & schema.PARTITION_DELETING:
                self._check_partition(partition_id, row)
        return Report(
            self._problems,
            self._problem_count,
            self._partitions,
            self._batches,
            self._records,
            self._size_bytes,
        )

    # ------------------------------------------------------------- the whole

    def _check_names(self, rows: dict[int, PartitionRow]) -> None:
        """Nothing belongs to a partition that is not there, and none is there twice, but to be deleted."""
        live = [row for row in rows.values() if not row.flags & schema.PARTITION_DELETING]
        keys = [(row.topic_id, row.partition) for row in live]
        self._expect("partitions with the same topic and number", len(keys) - len(set(keys)), 0)
        logs = {name for name, _ in self._entries(None) if name.startswith(b"log-")}
        self._expect("the logs", logs, {schema.log_name(partition_id) for partition_id in rows})
        for table in (schema.TIME_INDEX, schema.EPOCHS, schema.PRODUCERS, schema.ABORTED_TRANSACTIONS):
            orphans = {schema.read_partition_key(key) for key, _ in self._entries(table)} - rows.keys()
            self._expect(f"partition ids in {table.decode()} that do not exist", orphans, set())
        node = dict(self._entries(schema.NODE))
        self._expect("the format version", _number(node, schema.NODE_FORMAT_VERSION), schema.FORMAT_VERSION)
        self._expect("the length of the storage id", len(node.get(schema.NODE_STORAGE_ID, b"")), 36)
        next_id = _number(node, schema.NODE_NEXT_PARTITION_ID)
        self._expect("partition ids that were not given out", [key for key in rows if key >= next_id], [])

    # --------------------------------------------------------- one partition

    def _check_partition(self, partition_id: int, row: PartitionRow) -> None:
        self._partitions += 1
        where = f"partition {partition_name(row.topic_id, row.partition)}"
        index = self._time_index(partition_id)
        epochs = self._epochs(partition_id)
        starts = [start for _, start in epochs]
        below = [timestamp for timestamp, last_offset in index if last_offset < row.log_start_offset]
        self._expect(f"{where}: index entries below the log start", len(below) <= 1, True)
        rising = below[-1] if below else schema.NO_TIMESTAMP
        expected = [entry for entry in index if entry[1] < row.log_start_offset]
        database = self._database(schema.log_name(partition_id))
        next_offset, size, pages, readable = row.log_start_offset, 0, 0, True
        for last_offset, batch in _walk(self._transaction.cursor(db=database)):
            size += len(batch)
            pages += overflow_pages(len(batch))
            following, next_offset = next_offset, last_offset + 1
            header = self._check_batch(where, last_offset, batch)
            if header is None:
                readable = False
                continue
            self._expect(f"{where}: base offset", header.base_offset, following)
            begun = bisect_right(starts, header.base_offset)
            epoch = epochs[begun - 1][0] if begun else -1
            self._expect(f"{where}: leader epoch at {last_offset}", header.leader_epoch, epoch)
            if header.max_timestamp > rising:
                rising = header.max_timestamp
                expected.append((rising, last_offset))
            self._records += header.record_count
        self._expect(f"{where}: log end offset", row.log_end_offset, next_offset)
        self._expect(f"{where}: size", row.size_bytes, size)
        self._expect(f"{where}: pages", self._transaction.stat(database)["overflow_pages"], pages)
        if readable:
            self._expect(f"{where}: time index", index, expected)
            self._expect(f"{where}: max timestamp", row.max_timestamp, rising)
        in_order = row.log_start_offset <= row.high_watermark <= row.log_end_offset
        self._expect(f"{where}: the high watermark lies in the log", in_order, True)
        self._check_epochs(where, row, epochs)
        self._check_producers(where, partition_id, row, database)

    def check_memory(self, logs: Iterable[PartitionLog]) -> None:
        """What a running node believes of its logs."""
        for log in logs:
            stored = self._transaction.get(
                schema.partition_key(log.partition_id), db=self._database(schema.PARTITIONS)
            )
            row = log.row()._replace(high_watermark=log.stored_high_watermark)
            self._expect(f"partition {log.name}: the row in memory", row.pack(), stored)
            in_order = log.stored_high_watermark <= log.high_watermark <= log.log_end_offset
            self._expect(f"partition {log.name}: the high watermark in memory", in_order, True)
            epochs = self._epochs(log.partition_id)
            self._expect(f"partition {log.name}: the epochs in memory", list(log.epochs), epochs)
            pages = live_pages(self._transaction, self._database(schema.log_name(log.partition_id)))
            self._expect(f"partition {log.name}: the pages in memory", log.live_pages, pages)

    def _check_batch(self, where: str, last_offset: int, batch: bytes) -> BatchHeader | None:
        self._batches += 1
        self._size_bytes += len(batch)
        if self._size_bytes - self._told >= TELL_EVERY_BYTES:
            self._told = self._size_bytes
            self._progress(self._size_bytes, self._total)
        complaint = misplaced(last_offset, batch)
        if complaint is not None:
            self._problem(f"{where}, offset {last_offset}: {complaint}")
            return None
        try:
            header = parse_header(batch)
            check_crc(batch, header)
        except TailraceError as error:
            self._problem(f"{where}, offset {last_offset}: {error}")
            return None
        return header

    def _check_epochs(self, where: str, row: PartitionRow, epochs: list[tuple[int, int]]) -> None:
        starts = [start for _, start in epochs]
        self._expect(f"{where}: epoch starts", starts, sorted(starts))
        self._expect(f"{where}: the last epoch", row.leader_epoch, epochs[-1][0] if epochs else -1)
        past_end = [start for start in starts if start > row.log_end_offset]
        self._expect(f"{where}: epoch starts past the log end", past_end, [])

    def _check_producers(self, where: str, partition_id: int, row: PartitionRow, log: "Database") -> None:
        cursor = self._transaction.cursor(db=log)
        for key, value in self._rows(schema.PRODUCERS, partition_id):
            producer_id = schema.read_pair_key(key)[1]
            whose = f"{where}: producer {producer_id}"
            try:
                producer = schema.read_producer_row(value)
            except ValueError as error:
                self._problem(f"{whose}: {error}")
                continue
            self._check_window(whose, producer, row)
            for sequence, count, offset in schema.WINDOW_ENTRY.iter_unpack(producer.window):
                if offset < row.log_start_offset or not cursor.set_range(schema.offset_key(offset)):
                    continue
                header = parse_header(cursor.value())
                stored = (header.base_offset, header.producer_id, header.producer_epoch, header.base_sequence,
                          header.record_count)  # fmt: skip
                self._expect(
                    f"{whose}: the batch", stored, (offset, producer_id, producer.epoch, sequence, count)
                )

    def _check_window(self, whose: str, producer: ProducerRow, row: PartitionRow) -> None:
        entries = list(schema.WINDOW_ENTRY.iter_unpack(producer.window))
        self._expect(f"{whose}: window size", 1 <= len(entries) <= PRODUCER_WINDOW_BATCHES, True)
        following = [(sequence + count) & SEQUENCE_MASK for sequence, count, _ in entries]
        sequences = [sequence for sequence, _, _ in entries]
        self._expect(f"{whose}: sequences", [*sequences[1:], producer.next_sequence], following)
        ends = [-1] + [offset + count - 1 for _, count, offset in entries]
        in_order = all(offset > end for end, (_, _, offset) in zip(ends, entries, strict=False))
        self._expect(f"{whose}: offsets in order", in_order and ends[-1] < row.log_end_offset, True)

    # --------------------------------------------------------------- reading

    def _time_index(self, partition_id: int) -> list[tuple[int, int]]:
        rows = self._rows(schema.TIME_INDEX, partition_id)
        return [(schema.read_time_key(key)[1], schema.read_number(value)) for key, value in rows]

    def _epochs(self, partition_id: int) -> list[tuple[int, int]]:
        rows = self._rows(schema.EPOCHS, partition_id)
        return [(schema.read_epoch_key(key)[1], schema.read_number(value)) for key, value in rows]

    def _database(self, name: bytes) -> "Database":
        integer = name.startswith(b"log-")
        return self._environment.open_db(name, txn=self._transaction, create=False, integerkey=integer)

    def _entries(self, table: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """All of one table; None: the names of the tables."""
        database = None if table is None else self._database(table)
        return iter(self._transaction.cursor(db=database))

    def _rows(self, table: bytes, partition_id: int) -> Iterator[tuple[bytes, bytes]]:
        prefix = schema.partition_key(partition_id)
        cursor = self._transaction.cursor(db=self._database(table))
        positioned = cursor.set_range(prefix)
        while positioned and cursor.key().startswith(prefix):
            yield cursor.item()
            positioned = cursor.next()

    # -------------------------------------------------------------- problems

    def _expect(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self._problem(f"{what}: {found!s:.300}, expected {expected!s:.300}")

    def _problem(self, text: str) -> None:
        self._problem_count += 1
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(text)


def verify(environment: "Environment", logs: Iterable[PartitionLog] = ()) -> Report:
    """Check an environment that this process has open, and what it has in memory of `logs`."""
    with environment.begin() as transaction:
        verifier = Verifier(environment, transaction)
        verifier.check_memory(logs)
        return verifier.run()


def verify_folder(path: Path, progress: Progress = lambda done, total: None) -> Report:
    """Check the data folder of a node that is not running.

    Raises DataFolderError if the folder is in use, newer, not one of ours, or so damaged that it cannot be
    walked.
    """
    with opened_read_only(path) as environment, environment.begin() as transaction:
        return Verifier(environment, transaction, progress).run()


def _walk(cursor: "Cursor[bytes]") -> Iterator[tuple[int, bytes]]:
    return ((schema.read_offset_key(key), batch) for key, batch in cursor)


def _number(node: dict[bytes, bytes], name: bytes) -> int:
    return schema.read_number(node[name]) if name in node else 0
