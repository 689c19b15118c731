"""Many records at once: cut into pieces, shared out over the partitions, poured into batches.

All of it in calls that are built in C: what Python does is per piece and per batch, not per record.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Final

from tailrace.protocol.errors import BufferFullError
from tailrace.protocol.limits import MIB

from .accumulator import Accumulator
from .batch import ADDING, RECORD_OVERHEAD_BYTES, Batch
from .columns import Records
from .delivery import Span
from .partitioner import Partitioner
from .refusals import too_large
from .topics import NOWHERE, TopicBuffers

PIECE_BYTES: Final = 4 * MIB
"""Memory that is waited for as one, unless a record needs more: what lies before goes out meanwhile."""
STICKY: Final = -1
"""In place of a partition: the topic's sticky one."""


def accept(
    accumulator: Accumulator,
    topic: TopicBuffers,
    partition: int | None,
    partitioner: Partitioner,
    columns: Records,
) -> list[Span]:
    """Put all records into batches, piece by piece; each waits for memory as one. Where they are.

    Raises like `Accumulator.append`; BatchTooLargeError before anything is accepted.
    """
    spans: list[Span] = []
    accepted = 0
    for piece in pieces(accumulator, columns):
        try:
            spans += accept_piece(accumulator, topic, partition, partitioner, piece)
        except BufferFullError as error:
            error.accepted = accepted
            raise
        accepted += piece.record_count
    return spans


def pieces(accumulator: Accumulator, columns: Records) -> Iterator[Records]:
    """The records in pieces that are accepted as one. Raises BatchTooLargeError before the first."""
    largest = columns.larger_than(accumulator.record_bytes_max)
    if largest:
        raise too_large(largest, accumulator.record_bytes_max)
    return pieces_of(columns, min(accumulator.memory_bytes // 2, PIECE_BYTES))


def accept_piece(
    accumulator: Accumulator,
    topic: TopicBuffers,
    partition: int | None,
    partitioner: Partitioner,
    piece: Records,
) -> list[Span]:
    """Put a piece into batches, after waiting for memory for all of it. Raises like `Accumulator.append`."""
    shares = shares_of(piece, partition, partitioner, topic)
    now = monotonic()
    spans: list[Span] = []
    try:
        with accumulator.lock:
            before = accumulator.credit  # of a call that this one has come into
            try:
                accumulator.reserve(topic, partition, piece.memory, now)
                accumulator.clock.read(now)
                for place, share in shares:
                    spans += pour(accumulator, topic, place, share, now)
                accumulator.check()  # a handler may have forked: nobody sends in the child
            finally:  # no call, so that no signal can keep it from being done
                accumulator.used_bytes -= accumulator.credit - before
                accumulator.credit = before
    finally:
        accumulator.give_way()
    return spans


def pieces_of(columns: Records, memory: int) -> Iterator[Records]:
    """The records in pieces of so many that each need at most `memory`, or are one record."""
    for start in range(0, columns.record_count, columns.piece_records):
        whole = [columns.cut(start, start + columns.piece_records)]
        while whole:
            piece = whole.pop()
            count = piece.record_count
            if count > 1 and piece.memory > memory:
                whole += (piece.cut(count // 2, count), piece.cut(0, count // 2))
            else:
                yield piece


def shares_of(
    piece: Records, partition: int | None, partitioner: Partitioner, topic: TopicBuffers
) -> list[tuple[int, Records]]:
    """Which of a topic's partitions get which of the records, each in their order."""
    if partition is not None:
        return [(partition, piece)]
    if partitioner.key_hash is not None and piece.keys is None:
        return [(STICKY, piece)]
    if topic.count == 1 and partitioner.key_hash is not None:
        return [(0, piece)]
    return piece.dealt(partitioner, topic.count, topic.available, topic.sticky)


def pour(  # noqa: C901
    accumulator: Accumulator, topic: TopicBuffers, partition: int, columns: Records, now: float
) -> list[Span]:
    """Fill the partition's open batch, then the next, until all records are in one.

    The lock is held, and memory for them was reserved.
    """
    spans: list[Span] = []
    ends = columns.ends()
    start, count = 0, columns.record_count
    lent: Batch | None = None  # it holds records where the application has them, until it is encoded
    try:
        # `while` with a condition would jump back outside of the `try` (tests/test_interruptible.py)
        while True:
            if start == count:
                return spans
            place = topic.sticky if partition == STICKY else partition
            batch = topic.open[place]
            if lent is not None and batch is not lent:  # a signal handler has sent meanwhile
                accumulator.finish(lent, topic)
                lent = None
                continue
            if batch is NOWHERE or batch.room == ADDING:
                batch = accumulator.open_batch(topic, place, now)
            if batch.torn:
                batch.mend()
            room, filled = batch.room, batch.taken - batch.room
            stop = _fitting(ends, start, accumulator.batch_bytes - filled)
            mixed = batch.taken > 0 and (batch.packed > 0) != columns.packed
            if mixed or (stop == start and filled):
                accumulator.finish(batch, topic)
                lent = None
                continue
            stop = max(stop, start + 1)
            size = ends[stop] - ends[start] + RECORD_OVERHEAD_BYTES * (stop - start)
            kept = stop == count or not accumulator.encoder.early
            if topic.open[place] is not batch or batch.room != room or batch.taken - room != filled:
                continue  # in calls signal handlers may send, too
            lent = None if kept else batch
            accumulator.credit -= size
            batch.taken += size
            batch.room = ADDING
            try:
                first = batch.length
                columns.cut(start, stop).pour(batch, accumulator.clock.time_ms, kept=kept)
            except BaseException:  # no call here: another signal may follow
                batch.torn, batch.tick, batch.room = True, 0.0, room
                raise
            batch.room = room
            spans.append(Span(batch.outcome, first, stop - start))
            start = stop
    except BaseException:
        if lent is not None:
            lent.own()
        raise


def _fitting(ends: Sequence[int], start: int, room: int) -> int:
    """Up to which record `room` bytes suffice, from record `start` on."""
    spent = ends[start]

    def need(stop: int) -> int:
        return ends[stop] - spent + RECORD_OVERHEAD_BYTES * (stop - start)

    if need(len(ends) - 1) <= room:
        return len(ends) - 1
    return start + bisect_right(range(start + 1, len(ends)), room, key=need)
