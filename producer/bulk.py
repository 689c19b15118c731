"""Many records at once: cut into pieces, shared out over the partitions, poured into batches.

All of it in calls that are built in C: what Python does is per piece and per batch, not per record.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate, repeat
from operator import mod
from time import monotonic
from typing import Any, Final, TypeVar

from tailrace.protocol.errors import BufferFullError

from .accumulator import Accumulator
from .batch import RECORD_OVERHEAD_BYTES
from .columns import Columns
from .delivery import Span
from .partitioner import Partitioner
from .topics import NOWHERE, TopicBuffers

PIECE_RECORDS: Final = 8_192
"""Records that are shared out and given memory together."""
STICKY: Final = -1
"""In place of a partition: the topic's sticky one. As an index: the last bucket."""

T = TypeVar("T")


def accept(
    accumulator: Accumulator,
    topic: TopicBuffers,
    partition: int | None,
    partitioner: Partitioner,
    columns: Columns,
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
        accepted += len(piece.sizes)
    return spans


def pieces(accumulator: Accumulator, columns: Columns) -> Iterator[Columns]:
    """The records in pieces that are accepted as one. Raises BatchTooLargeError before the first."""
    if columns.sizes:
        accumulator.check_size(max(columns.sizes))
    return pieces_of(columns, accumulator.memory_bytes // 2)


def accept_piece(
    accumulator: Accumulator,
    topic: TopicBuffers,
    partition: int | None,
    partitioner: Partitioner,
    piece: Columns,
) -> list[Span]:
    """Put a piece into batches, after waiting for memory for all of it. Raises like `Accumulator.append`."""
    shares = shares_of(piece, partition, partitioner, topic.count, topic.available)
    now = monotonic()
    spans: list[Span] = []
    with accumulator.lock:
        try:
            accumulator.reserve(topic, partition, piece.memory, now)
            accumulator.read_clock(now)
            for place, share in shares:
                spans += pour(accumulator, topic, place, share, now)
        finally:  # no call, so that no signal can keep it from being done
            accumulator.used_bytes -= accumulator.credit
            accumulator.credit = 0
    return spans


def pieces_of(columns: Columns, memory: int) -> Iterator[Columns]:
    """The records in pieces of at most PIECE_RECORDS that each need at most `memory`, or are one record."""
    for start in range(0, len(columns.sizes), PIECE_RECORDS):
        whole = [columns.cut(start, start + PIECE_RECORDS)]
        while whole:
            piece = whole.pop()
            count = len(piece.sizes)
            if count > 1 and piece.memory > memory:
                whole += (piece.cut(count // 2, count), piece.cut(0, count // 2))
            else:
                yield piece


def shares_of(
    piece: Columns, partition: int | None, partitioner: Partitioner, count: int, available: Sequence[int]
) -> list[tuple[int, Columns]]:
    """Which of a topic's `count` partitions get which of the records, each in their order."""
    if partition is not None:
        return [(partition, piece)]
    if partitioner.key_hash is not None and piece.keys is None:
        return [(STICKY, piece)]
    if count == 1 and partitioner.key_hash is not None:
        return [(0, piece)]
    places = _places(piece, partitioner, count, available)
    values = _dealt(piece.values, places, count)
    keys = None if piece.keys is None else _dealt(piece.keys, places, count)
    headers = None if piece.headers is None else _dealt(piece.headers, places, count)
    sizes = _dealt(piece.sizes, places, count)
    stamps = piece.timestamps
    times = None if stamps is None or isinstance(stamps, int) else _dealt(stamps, places, count)
    return [
        (
            place if place < count else STICKY,
            Columns(
                values[place],
                None if keys is None else keys[place],
                None if headers is None else headers[place],
                stamps if times is None else times[place],
                sizes[place],
            ),
        )
        for place in range(count + 1)
        if sizes[place]
    ]


def pour(
    accumulator: Accumulator, topic: TopicBuffers, partition: int, columns: Columns, now: float
) -> list[Span]:
    """Fill the partition's open batch, then the next, until all records are in one.

    The lock is held, and memory for them was reserved.
    """
    spans: list[Span] = []
    times = accumulator.time_ms if columns.timestamps is None else columns.timestamps
    ends = list(accumulate(columns.sizes, initial=0))
    start, count = 0, len(columns.sizes)
    while start < count:
        place = topic.sticky if partition == STICKY else partition
        batch = topic.open[place]
        stop = _fitting(ends, start, accumulator.batch_bytes - batch.filled)
        if stop == start and batch.filled:
            accumulator.seal(batch, topic)
            accumulator.encode_early(batch)
            continue
        stop = max(stop, start + 1)
        if batch is NOWHERE:
            batch = accumulator.open_batch(topic, place, now)
        size = ends[stop] - ends[start] + RECORD_OVERHEAD_BYTES * (stop - start)
        accumulator.spend(batch, size)
        first = len(batch.values)
        part = columns.cut(start, stop)
        try:
            batch.extend(
                part.values, part.keys, part.headers, times if isinstance(times, int) else times[start:stop]
            )
        except BaseException:
            batch.trim(first)
            raise
        batch.room -= size
        spans.append(Span(batch.outcome, first, stop - start))
        start = stop
    return spans


def _fitting(ends: Sequence[int], start: int, room: int) -> int:
    """Up to which record `room` bytes suffice, from record `start` on."""
    spent = ends[start]

    def need(stop: int) -> int:
        return ends[stop] - spent + RECORD_OVERHEAD_BYTES * (stop - start)

    return start + bisect_right(range(start + 1, len(ends)), room, key=need)


def _places(piece: Columns, partitioner: Partitioner, count: int, available: Sequence[int]) -> list[int]:
    """Each record's partition, or STICKY."""
    keys = piece.keys
    if partitioner.key_hash is None:
        chosen = keys if keys is not None else repeat(None, len(piece.values))
        return list(map(partitioner.choose, chosen, repeat(count), repeat(available)))
    assert keys is not None
    if all(keys):
        return list(map(mod, map(partitioner.key_hash, keys), repeat(count)))  # type: ignore[arg-type]
    places = map(partitioner.place, keys, repeat(count), repeat(available))
    return [STICKY if place is None else place for place in places]


def _dealt(items: Sequence[T], places: Sequence[int], count: int) -> list[list[T]]:
    """The items by place; one more list, the last, for STICKY."""
    buckets: list[list[Any]] = [[] for _ in range(count + 1)]
    deque(map(list.append, map(buckets.__getitem__, places), items), maxlen=0)
    return buckets
