"""From the buffers to the application, in the application's thread.

What is handed over moves a partition's position at once. It is *settled*, and so may be stored by
auto-commit, when the application asks for more: the record in hand never is.

What a signal handler raises (Ctrl-C, a time-out) may end any call in here. It comes at calls, at the
beginning of functions and of further rounds of loops, never between plain assignments. So each change is a
few of those in a row ("not a call from here on"), may be made once more, or is noted first and taken back.
"""

import logging
from collections.abc import Callable, Iterator
from operator import length_hint
from threading import Lock
from typing import Any, NamedTuple, TypeAlias, TypeVar

from tailrace.protocol.errors import CorruptBatchError, SerializationError, TailraceError
from tailrace.protocol.record import Record, TopicPartition

from .assigned import AssignedPartition, Key
from .column_batch import ColumnBatch
from .decoding import Decoding
from .fetcher import Fetcher
from .on_error import RAISE, OnError
from .open_batch import OpenBatch, RawBatch, rejected_whole
from .sift import Rejected
from .undisturbed import Undisturbed

_log = logging.getLogger(__name__)
T = TypeVar("T")
AnyRecord = Record[Any, Any]
Step: TypeAlias = tuple[AssignedPartition, RawBatch, int, int, bool, int]
"""So many records (the last) are taken for an ask of a partition's first batch; it was at this position and
epoch before; was it in hand? No class, since there is one for each poll."""


class Chunk(NamedTuple):
    """Records that a `for` loop is going through. The iterator itself knows how far the loop has come."""

    partition: AssignedPartition
    batch: OpenBatch
    first: int
    """The index of the first of them in the batch."""
    records: list[AnyRecord]
    iterator: Iterator[AnyRecord]

    @property
    def handed(self) -> int:
        """How many records were taken out of the iterator."""
        return len(self.records) - length_hint(self.iterator)


class Parked(NamedTuple):
    """A batch that is not handed over before its dead letters are written; None: all of it is one letter."""

    partition: AssignedPartition
    raw: RawBatch
    batch: OpenBatch | None
    rejected: list[Rejected]


class HandOver:
    """Takes turns among the partitions that have something. `wake` sends the next fetch on its way.

    Errors of a partition are raised when it is its turn and nothing else can be handed over first;
    then it is the next partition's turn. What `on_error` lets pass is left out instead.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        lock: Lock,
        decoding: Decoding,
        wake: Callable[[], None],
        on_error: OnError = RAISE,
        *,
        submit: Callable[[Callable[[], None]], None] = lambda action: action(),
    ) -> None:
        self._fetcher = fetcher
        self._lock = lock
        self._decoding = decoding
        self._wake = wake
        self.on_error = on_error
        self.parked: dict[Key, Parked] = {}
        self._in_hand: dict[Key, AssignedPartition] = {}
        self._chunk: Chunk | None = None
        self._undisturbed = Undisturbed(submit)
        self.interrupted = False
        """Did something end a call half-way? Then the next one begins with `recover`."""
        self.trail: list[Step] = []
        """What the ask that is under way has taken. Emptied as the application gets it."""
        self.records_handed = 0
        self._wants_fetch = False
        """Can a fetch go out for what was popped, which the I/O thread was not told yet?"""
        self.records_left_out = 0
        """Skipped, or written as dead letters."""

    # -------------------------------------------------------------- asking

    def settle(self) -> None:
        """The application asks for more, or ends: it is done with all that it got."""
        if self.interrupted:
            self.recover()
        if self._chunk is not None:
            self.end_chunk()
        for partition in self._in_hand.values():
            partition.settle()
        self._in_hand.clear()

    def settle_handed(self) -> None:
        """The application is done with all that it got, though the loop it is in goes on."""
        self.note_progress()
        for partition in self._in_hand.values():
            partition.settle()

    def settle_before_last(self) -> None:
        """A `for` loop is left, or interfered with: it is done with all but the record in hand."""
        if self.interrupted:
            self.recover()
        chunk = self._chunk
        if chunk is not None and chunk.handed > 1:
            partition = chunk.partition
            # A commit may have settled the record in hand already.
            partition.settled = max(partition.settled, chunk.records[chunk.handed - 2].offset + 1)
            partition.settled_epoch = chunk.batch.leader_epoch

    def touch(self, partition: AssignedPartition) -> None:
        """Its position was changed by the application: that is settled by the next ask, too."""
        self._in_hand[partition.key] = partition
        partition.in_hand_from = partition.position

    def change(self, action: Callable[[], None]) -> None:
        """Change what is buffered: whole, or not at all. Not with the lock, which `action` may take."""
        try:
            self._undisturbed.make(action)
        except BaseException:
            self.interrupted = True
            raise
        self._wake()  # there may be more to fetch now

    def recover(self) -> None:
        """Finish the change that was interrupted, and take back what the application did not get.

        Interrupted itself, it goes on where it was.
        """
        self._undisturbed.finish()
        while self.trail:
            partition, raw, position, epoch, in_hand, records = self.trail[-1]
            with self._lock:
                self._fetcher.put_back(partition, raw, position, epoch)
            if not in_hand:
                self._in_hand.pop(partition.key, None)
            self.records_handed -= records  # not a call from here on
            del self.trail[-1]
        self.interrupted = False

    def note_progress(self) -> None:
        """Bring the position of the partition that a `for` loop reads up to date."""
        if self.interrupted:
            self.recover()
        chunk = self._chunk
        if chunk is not None and chunk.handed:
            chunk.partition.position = chunk.records[chunk.handed - 1].offset + 1
            chunk.partition.position_epoch = chunk.batch.leader_epoch

    def end_chunk(self) -> None:
        """What a `for` loop has not got yet of its chunk goes back; the loop comes for more by itself."""
        chunk = self._chunk
        if chunk is None:
            return
        handed = chunk.handed
        if handed < len(chunk.records):
            ended = chunk._replace(records=chunk.records[:handed], iterator=iter(()))
            self._chunk = ended  # not a call from here on, or the loop would go on with what goes back
            _ = [*chunk.iterator]
        if handed:
            self._advance(chunk.partition, chunk.batch, chunk.first + handed)
        self.records_handed += handed  # not a call from here on
        self._chunk = None

    def in_hand(self) -> list[AssignedPartition]:
        """Those whose records the application may be working on: a `for` loop is in one."""
        if self.interrupted:
            self.recover()
        chunk = self._chunk
        if chunk is not None:
            return [chunk.partition] if chunk.handed else []
        return list(self._in_hand.values())

    def first_in_hand(self, partition: AssignedPartition) -> int:
        """The offset of the first of its records that the application may be working on, else its position.

        In a `for` loop that is the record in hand: it was done with those before.
        """
        if self.interrupted:
            self.recover()
        chunk = self._chunk
        if chunk is not None and chunk.partition is partition and chunk.handed:
            return max(partition.in_hand_from, chunk.records[chunk.handed - 1].offset)
        return partition.in_hand_from if partition.key in self._in_hand else partition.position

    # ------------------------------------------------------------- handing over

    # What they take is handed over when `trail` is emptied, before any other call.

    def records(self, records_max: int) -> dict[TopicPartition, list[AnyRecord]] | None:
        """Up to so many records of the partitions whose turn it is; None if there is nothing."""
        handed: dict[TopicPartition, list[AnyRecord]] = {}
        with self._lock:
            ready = list(self._fetcher.ready.values())
        for partition in ready:
            try:
                records = self._take_records(partition, records_max)
            except TailraceError as error:
                if handed and _is_of(partition, error):
                    break
                self._served(partition)
                raise
            self._served(partition)
            if records:
                handed[partition.name] = records
                records_max -= len(records)
                if records_max <= 0:
                    break
        return handed or None

    def chunk(self, records_max: int) -> Iterator[AnyRecord] | None:
        """Records of one partition to go through; they count as handed over one by one."""
        return self._first(lambda partition: self._take_chunk(partition, records_max))

    def columns(self) -> ColumnBatch | None:
        """The next batch."""
        return self._first(self._take_columns)

    # ------------------------------------------------------------ dead letters

    def is_current(self, parked: Parked) -> bool:
        """Is it still what the partition goes on with? Not after a seek, or without the partition."""
        partition = parked.partition
        with self._lock:
            assigned = self._fetcher.partitions.get(partition.key) is partition
            return assigned and bool(partition.buffer) and partition.buffer[0] is parked.raw

    def release(self, parked: Parked) -> None:
        """Go on behind what was left out, which is written."""
        del self.parked[parked.partition.key]
        if self.is_current(parked):
            self._admit(parked)

    # ------------------------------------------------------------------ inside

    def _served(self, partition: AssignedPartition) -> None:
        if len(self._fetcher.ready) > 1:  # one that becomes ready meanwhile waits a turn more
            with self._lock:
                self._fetcher.served(partition)

    def _first(self, take: Callable[[AssignedPartition], T | None]) -> T | None:
        with self._lock:
            ready = list(self._fetcher.ready.values())
        for partition in ready:
            try:
                taken = take(partition)
            finally:
                self._served(partition)
            if taken is not None:
                return taken
        return None

    def _take_records(self, partition: AssignedPartition, records_max: int) -> list[AnyRecord]:
        taken: list[AnyRecord] = []
        try:
            # What comes in meanwhile is for the next call: it may come as fast as it is taken.
            for _ in range(max(1, len(partition.buffer))):
                batch = self._open(partition) if len(taken) < records_max else None
                if batch is None:
                    break
                records = batch.peek(records_max - len(taken))
                taken += records
                self._take(partition, batch, len(records))
        except TailraceError as error:
            if not taken or not _is_of(partition, error):
                raise
        return taken

    def _take_chunk(self, partition: AssignedPartition, records_max: int) -> Iterator[AnyRecord] | None:
        while (batch := self._open(partition)) is not None:
            records = batch.peek(records_max)
            if records:
                iterator = iter(records)
                self._chunk = Chunk(partition, batch, batch.next, records, iterator)
                self._take_in_hand(partition)
                return iterator
            self._take(partition, batch, 0)
        return None

    def _take_columns(self, partition: AssignedPartition) -> ColumnBatch | None:
        while (batch := self._open(partition)) is not None:
            columns = batch.rest()
            count = len(columns)
            self._take(partition, batch, count)
            if count:
                return columns
        return None

    def _open(self, partition: AssignedPartition) -> OpenBatch | None:
        """The partition's next batch, None if there is none now. Raises what its reading ended in."""
        while partition.open is None:
            if partition.key in self.parked:
                return None
            if not partition.buffer:
                if partition.failure is not None:
                    raise partition.failure.with_traceback(None)
                return None
            raw = partition.buffer[0]
            if not self.on_error.tolerant or partition.name.topic == self.on_error.topic:
                partition.open = OpenBatch(partition.name, raw, self._decoding)
                break
            batch, rejected = self._sifted(partition.name, raw)
            if not rejected:
                partition.open = batch
                break
            parked = Parked(partition, raw, batch, rejected)
            if self.on_error.topic is not None:
                self.parked[partition.key] = parked
                return None
            _log.warning("skipped: %s", _told(rejected))
            self._admit(parked)
        return partition.open

    def _sifted(self, name: TopicPartition, raw: RawBatch) -> tuple[OpenBatch | None, list[Rejected]]:
        """The batch without what is rejected; None if that is all of it."""
        try:
            batch = OpenBatch(name, raw, self._decoding, sifted=True)
        except CorruptBatchError as error:
            rejected = rejected_whole(name, raw, error)
            if rejected is None:
                raise
            return None, [rejected]
        return batch, batch.rejected

    def _admit(self, parked: Parked) -> None:
        """Go on with what is left of it."""
        partition, _, batch, rejected = parked
        left_out = sum(one.records for one in rejected)
        if batch is not None:
            partition.open = batch
        else:
            self._take_in_hand(partition)
            self._pop(partition, None)
        self.records_left_out += left_out

    def _take_in_hand(self, partition: AssignedPartition) -> None:
        if partition.key not in self._in_hand:
            self._in_hand[partition.key] = partition
            partition.in_hand_from = partition.position

    def _take(self, partition: AssignedPartition, batch: OpenBatch, count: int) -> None:
        """The next `count` records go to the application, if nothing comes between."""
        at, epoch = partition.position, partition.position_epoch
        in_hand = partition.key in self._in_hand
        self.trail += [(partition, partition.buffer[0], at, epoch, in_hand, count)]  # not a call from here on
        self.records_handed += count
        if not in_hand:
            self._in_hand[partition.key] = partition
            partition.in_hand_from = at
        self._advance(partition, batch, batch.next + count)

    def _advance(self, partition: AssignedPartition, batch: OpenBatch, index: int) -> None:
        """The batch, which is in hand, is handed over before record `index`. May be repeated."""
        if index < batch.count:
            position = batch.position(index)
            batch.next = index  # not a call from here on
            if index:
                partition.position, partition.position_epoch = position, batch.leader_epoch
        else:
            self._pop(partition, batch)

    def _pop(self, partition: AssignedPartition, batch: OpenBatch | None) -> None:
        """All of the first batch is handed over or left out; it may be that that was seen to before."""
        with self._lock:
            if partition.open is batch:
                self._wants_fetch |= self._fetcher.pop(partition)
        if self._wants_fetch:
            self._wake()
            self._wants_fetch = False


def _is_of(partition: AssignedPartition, error: TailraceError) -> bool:
    """Does it come again when the partition is asked again? What a signal handler has raised does not."""
    return error is partition.failure or isinstance(error, CorruptBatchError | SerializationError)


def _told(rejected: list[Rejected]) -> str:
    first = rejected[0].reason
    more = len(rejected) - 1
    return f"{first} (and {more} more of its batch)" if more else first
