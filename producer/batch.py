"""The records of one partition on their way to its leader: filled, sealed, sent, resolved."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, islice, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar, cast

import msgspec

from tailrace.protocol.batch import with_producer
from tailrace.protocol.buffers import PackedItems, PackedTimestamps, Runs, pack_timestamps
from tailrace.protocol.columns import Items, encode_parts
from tailrace.protocol.compression import Compression
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.limits import KIB
from tailrace.protocol.parts import Parts, ascii_in_parts
from tailrace.protocol.record import Headers

from .delivery import Outcome

if TYPE_CHECKING:
    from .packed_columns import PackedColumns

T = TypeVar("T")
Value: TypeAlias = bytes | str | None
"""Text is ASCII."""
_Columns: TypeAlias = tuple[
    Items | PackedItems,
    Items | PackedItems | None,
    int | Sequence[int] | PackedTimestamps,
    list[Headers] | None,
]
"""What `encode` takes: values, keys, timestamps and headers."""

RECORD_OVERHEAD_BYTES: Final = 21
"""At most what the columns add to a record's key and value: two offsets, two validity bits, a timestamp,
the count of its headers."""
ADDING: Final = -2
"""A batch's `room` while records are added to it, which takes several steps: what a signal handler or a
finalizer sends meanwhile, in the same thread, goes into another one behind it."""
RESERVE_BYTES_FIRST: Final = 16 * KIB
"""Memory that an open batch takes at first; then as much again, until it is full."""
BATCH_OVERHEAD_BYTES: Final = 512
"""At most what a batch has besides its records: header, directory, and what aligns its buffers."""
RUN_RECORDS_MIN: Final = 64
"""Of fewer records than these, from one call, it is not kept how large they are (unless all are as large as
those before): to count them again is as cheap."""
HEADER_OVERHEAD_BYTES: Final = 17
"""At most what the columns add to a header's name and value, rounded up so that a full batch stays below
BATCH_HEADERS_MAX."""


class Identity(NamedTuple):
    """What the node knows a producer by, in one partition: batches of one identity are stored once each."""

    producer_id: int
    producer_epoch: int


class Stamp(msgspec.Struct, frozen=True, gc=False):
    """An identity, and the sequence number of a batch's first record under it."""

    identity: Identity
    sequence: int


ANONYMOUS: Final = Identity(-1, -1)
UNSTAMPED: Final = Stamp(ANONYMOUS, -1)
SEQUENCES: Final = 2**31
"""Sequence numbers count records and start again at 0 after int32's last, as Kafka's do."""


def advance(sequence: int, count: int) -> int:
    """The sequence of the batch that follows one of `count` records."""
    return (sequence + count) % SEQUENCES


def _extended(column: list[T], items: Sequence[T] | None, count: int, missing: T) -> list[T]:
    """The column with `count` more items; `missing` in their place if there are none."""
    if not column and isinstance(items, list):
        return items
    column.extend(repeat(missing, count) if items is None else items)
    return column


class Batch:
    """One batch, from its first record to its answer.

    Open, it belongs to the accumulator and its lock: of the memory `taken` for it, `room` is left. Sealed,
    it belongs to the I/O thread. Where no batch is open stands one with room -1, so that "is there room"
    is the one question that `send` asks.
    """

    __slots__ = (
        "_encoded_stamp",
        "attempts",
        "count",
        "deadline",
        "encoded",
        "encoded_size",
        "foreseen",
        "generation",
        "headers",
        "keys",
        "last_error",
        "maybe_stored",
        "memory",
        "number",
        "opened",
        "outcome",
        "packed",
        "partition",
        "parts",
        "refused",
        "resolved",
        "room",
        "runs",
        "size",
        "stamp",
        "taken",
        "texts",
        "tick",
        "time_ms",
        "topic_id",
        "torn",
        "values",
        "wide",
    )

    def __init__(
        self, outcome: Outcome, topic_id: bytes, partition: int, opened: float, deadline: float
    ) -> None:
        self.outcome = outcome
        self.topic_id = topic_id
        self.partition = partition
        self.opened = opened
        self.deadline = deadline
        self.values: list[Value] = []
        self.texts = False
        """Is there text among the values?"""
        self.keys: list[bytes | None] | None = None
        self.headers: list[Headers] | None = None
        self.parts: list[PackedColumns] = []
        """Records in buffers, in place of those columns."""
        self.packed = 0
        """How many these are. There is no room then, which is what keeps records of `send` out."""
        self.wide = False
        """Are there columns besides the values?"""
        self.time_ms = -1
        """The timestamp of the last record; it is the next one's too until `tick` (monotonic seconds)."""
        self.tick = 0.0
        self.taken = 0
        self.room = 0
        self.torn = False
        """Was a record interrupted as it was added? Then `mend` comes first of all."""
        # Set as it is sealed: the number of records, their memory, and the flush that waits for it.
        self.count = 0
        self.size = 0
        self.generation = 0
        self.foreseen = UNSTAMPED
        """The stamp that it will probably get, so that it can be encoded under it ahead of time."""
        self.runs = Runs()
        """Of the first values, none of them null, as far as the calls that added them have counted them."""
        # The sender's.
        self.number = 0
        self.attempts = 0
        self.stamp = UNSTAMPED
        self.maybe_stored = False
        self.refused = False
        self.resolved = False
        self.last_error: TailraceError | None = None
        self.encoded_size = 0
        self.memory: memoryview | None = None
        """What it was encoded into."""
        self.encoded: bytes | Parts | None = None
        self._encoded_stamp = UNSTAMPED

    # ------------------------------------------------------------------ filling

    @property
    def filled(self) -> int:
        """The memory that its records take."""
        return self.taken - self.room

    @property
    def length(self) -> int:
        """How many records are in it, while it is open."""
        return self.packed or len(self.values)

    def mark_time(self, index: int, time_ms: int) -> None:
        """Record `index` and those after it have this timestamp."""
        self.outcome.starts.append(index)
        self.outcome.stamps.append(time_ms)
        self.time_ms = time_ms

    def add_other_columns(self, index: int, key: bytes | None, headers: Headers = ()) -> None:
        """Record `index`, the one being added, in all columns but the values."""
        self.wide = True
        if self.keys is not None or key is not None:
            self.keys = [None] * index if self.keys is None else self.keys
            self.keys.append(key)
        if self.headers is not None or headers:
            self.headers = [()] * index if self.headers is None else self.headers
            self.headers.append(headers)

    def extend(
        self,
        values: Sequence[Value],
        keys: Sequence[bytes | None] | None,
        headers: Sequence[Headers] | None,
        timestamps: int | Sequence[int],
        bounds: Sequence[int] | None = None,
        *,
        texts: bool = False,
    ) -> None:
        """Add records in columns, which the batch takes over: lists may become its own.

        `bounds` are those of the values, from any number on, if they were counted and none is null. `texts`:
        they are text.
        """
        index, count = len(self.values), len(values)
        if isinstance(timestamps, int):
            if timestamps != self.time_ms:
                self.mark_time(index, timestamps)
        else:
            self.outcome.starts.extend(range(index, index + count))
            self.outcome.stamps.extend(timestamps)
            self.time_ms = timestamps[-1]
        self.tick = 0.0
        self.wide = self.wide or keys is not None or headers is not None
        if keys is not None or self.keys is not None:
            self.keys = _extended([None] * index if self.keys is None else self.keys, keys, count, None)
        if headers is not None or self.headers is not None:
            self.headers = _extended(
                [()] * index if self.headers is None else self.headers, headers, count, ()
            )
        runs = self.runs
        if bounds is not None and runs.count == index and (count >= RUN_RECORDS_MIN or runs.extends(bounds)):
            runs.add(bounds)
        self.texts = self.texts or texts
        self.values = _extended(self.values, values, count, None)

    def add_part(self, part: "PackedColumns") -> None:
        """Add records in buffers, to a batch that has no others."""
        self.parts.append(part)
        self.packed += part.record_count

    def own(self) -> None:
        """The application may change what it gave from now on."""
        self.parts = [part.owned() for part in self.parts]

    def mend(self) -> None:
        """Cut off what a signal handler interrupted between the columns of a record. May be repeated.

        The values, which are added last, tell what is whole.
        """
        count = self.length
        while self.parts and sum(part.record_count for part in self.parts) > count:
            self.parts.pop()
        runs = bisect_left(self.outcome.starts, count)
        del self.outcome.starts[runs:]
        del self.outcome.stamps[runs:]
        self.time_ms = self.outcome.stamps[-1] if runs else -1
        self.tick = 0.0
        self.runs = Runs()
        columns: list[list[Value] | list[bytes | None] | list[Headers] | None] = [
            self.values,
            self.keys,
            self.headers,
        ]
        for column in columns:
            if column is not None:
                del column[count:]
        self.torn = False

    # ------------------------------------------------------------------ sending

    def encode(self, compression: Compression, stamp: Stamp, memory: memoryview | None = None) -> None:
        """Turn the columns into bytes under this identity and sequence; in `memory`, if they fit into it.

        Raises InvalidArgumentError or BatchTooLargeError for what no check found before.
        """
        self.encoded = encoded = encode_parts(
            *self._columns(),
            compression=compression,
            producer_id=stamp.identity.producer_id,
            producer_epoch=stamp.identity.producer_epoch,
            base_sequence=stamp.sequence,
            room=memory,
        )
        self.memory = memory
        self._encoded_stamp = stamp
        self.encoded_size = len(encoded)
        self._let_go()

    def frame(self) -> bytes | Parts:
        """The batch as it travels, once encoded; under another stamp, if that has changed since."""
        assert self.encoded is not None
        if self._encoded_stamp != self.stamp:
            self.encoded = with_producer(self.encoded, *self.stamp.identity, self.stamp.sequence)
            self._encoded_stamp = self.stamp
        return self.encoded

    def drop_records(self) -> None:
        """Let go of everything but the outcome."""
        self._let_go()
        self.encoded = None
        self.memory = None

    def _let_go(self) -> None:
        """Of the records as they were given."""
        self.values, self.keys, self.headers, self.parts = [], None, None, []
        self.runs = Runs()

    def _columns(self) -> _Columns:
        if self.parts:
            from .packed_columns import body_columns

            return body_columns(self.parts)
        values, count, stamps = self._value_column(), len(self.values), self.outcome.stamps
        timestamps: int | Sequence[int] | PackedTimestamps = stamps
        if len(stamps) <= 1:
            timestamps = stamps[0] if stamps else 0
        elif len(stamps) < count:
            timestamps = pack_timestamps(stamps, self.outcome.starts, count)
        return values, self.keys, timestamps, self.headers

    def _value_column(self) -> Items | PackedItems:
        values, count, runs = self.values, len(self.values), self.runs
        if not (runs.count or self.texts):
            return cast(Items, values)
        try:
            if runs.count < count:
                rest: Any = islice(values, runs.count, None)
                runs.add(list(accumulate(map(len, rest), initial=0)))
            data = ascii_in_parts(values, runs.size) if self.texts else values
            return PackedItems(count, runs.offsets(), data, runs.size)
        except TypeError:  # there are nulls, or others among the texts
            if not self.texts:
                return cast(Items, values)
            return [value.encode() if isinstance(value, str) else value for value in values]
