"""Records become batches: the open batch of every partition, and the memory that all records share.

The threads that call `send` fill batches here, the I/O thread takes them away. One lock guards it all. A
batch is sealed when the next record does not fit, when it has waited for `linger` and the pipeline has
room for it, and when someone flushes; while the pipeline is busy it fills up instead.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from time import monotonic, sleep

from tailrace.protocol.cluster import TopicInfo
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.record import Headers

from .alarm import AT_ONCE, Alarm
from .batch import ADDING, RECORD_OVERHEAD_BYTES, RESERVE_BYTES_FIRST, UNSTAMPED, Batch, Stamp, advance
from .clock import Clock
from .delivery import Delivery, Outcome
from .encoder import Encoder
from .lane import Lane, Resolved
from .ledger import Failures, Ledger
from .reentrance import owned
from .refusals import memory_full, too_large
from .topics import NOWHERE, TopicBuffers
from .waiters import Waiters


class Accumulator:
    """Fills batches within `memory_bytes`; `wake` has the I/O thread `collect` soon. Times: `monotonic()`."""

    def __init__(
        self,
        *,
        batch_bytes: int,
        record_bytes_max: int,
        memory_bytes: int,
        linger_s: float,
        delivery_timeout_s: float,
        max_block_s: float,
        compresses: bool,
        wake: Callable[[], None],
    ) -> None:
        self.topics: dict[str, TopicBuffers] = {}
        self.lock = threading.RLock()
        self.clock = Clock()
        self.batch_bytes = batch_bytes
        self.memory_bytes = memory_bytes
        self.record_bytes_max = record_bytes_max
        self.used_bytes = 0
        self.obstacle: Callable[[], TailraceError | None] = lambda: None
        """Tells why what was sealed is not stored yet."""
        self.io_thread: int | None = None
        """The thread that alone can give memory back, and so must not wait for it."""
        self.credit = 0
        """Memory that was taken ahead by the one who holds the lock."""
        self.linger_s = linger_s
        self.delivery_timeout_s = delivery_timeout_s
        self._max_block_s = max_block_s
        self.alarm = Alarm(wake)
        self.announce: Callable[[], None] = self.alarm.ring
        """Tell the I/O thread of what was opened or finished: best without the lock, which that wants."""
        self._open: dict[Batch, TopicBuffers] = {}
        """In the order in which they were opened, and so in that of their due times."""
        self._sealed: list[Batch] = []
        self.waiters = Waiters(self.lock, self._begin_to_wait)
        self._generation = 0
        self.encoder = Encoder(batch_bytes, compresses=compresses)
        self.ledger = Ledger()
        self._error: TailraceError | None = None

    # ---------------------------------------------------------- by the senders

    def append(
        self,
        topic: TopicBuffers,
        partition: int | None,
        value: bytes | None,
        key: bytes | None,
        *,
        headers: Headers | None,
        timestamp_ms: int | None,
        size: int,
    ) -> Delivery:
        """Add one record that takes `size` bytes; to the sticky partition if None is given.

        Blocks while memory is full. Raises BufferFullError, BatchTooLargeError, UnknownPartitionError,
        UnknownTopicError, or why no more records are taken. (`Producer.send` has a shorter copy of its own.)
        """
        now = monotonic()
        try:
            with self.lock:
                batch = self.room(topic, partition, size, now)
                room, batch.room = batch.room, ADDING
                try:
                    if batch.torn:
                        batch.mend()
                    index = len(batch.values)
                    if timestamp_ms is None:
                        self.clock.stamp(batch, index, now)
                    elif timestamp_ms != batch.time_ms:
                        batch.mark_time(index, timestamp_ms)
                    batch.add_other_columns(index, key, headers or ())
                    batch.values.append(value)
                except BaseException:  # no call here: another signal may follow
                    batch.torn, batch.tick, batch.room = True, 0.0, room - size
                    raise
                batch.room = room - size
                return Delivery(batch.outcome, index)
        finally:
            self.announce()

    def room(self, topic: TopicBuffers, partition: int | None, size: int, now: float) -> Batch:
        """An open batch with room for `size` bytes. The lock is held, let go to wait. Raises as `append`."""
        until = now + self._max_block_s
        while True:
            self._check_target(topic, partition)
            at = topic.sticky if partition is None else partition
            batch = topic.open[at]
            if batch.room == ADDING:
                batch = NOWHERE
            batch.tick = 0.0  # `now` may be long ago when there is room at last
            if size <= batch.room:
                return batch
            if size - RECORD_OVERHEAD_BYTES > self.record_bytes_max:
                raise too_large(size - RECORD_OVERHEAD_BYTES, self.record_bytes_max)
            if batch.packed or (batch.filled and batch.filled + size > self.batch_bytes):
                self.finish(batch, topic)
                try:
                    self.lock.release()
                    self.give_way()
                finally:
                    self.lock.acquire()
                continue
            free = self.memory_bytes - self.used_bytes
            short = size - max(batch.room, 0)
            if short <= free:
                if batch is NOWHERE:
                    batch = self.open_batch(topic, at, now)
                wanted = min(max(batch.taken, RESERVE_BYTES_FIRST), self.batch_bytes - batch.taken)
                more = min(max(wanted, short), free)
                if topic.open[at] is not batch or batch.room + more < size:
                    continue  # a signal handler has sent meanwhile; not a call from here on
                self.used_bytes += more
                batch.taken += more
                batch.room += more
                return batch
            now = self._wait_for_memory(now, until)

    def reserve(self, topic: TopicBuffers, partition: int | None, size: int, now: float) -> None:
        """Take memory as `credit`, for what will be added. Raises as `append`; the lock is as with `room`."""
        until = now + self._max_block_s
        self._check_target(topic, partition)
        while self.used_bytes + size > self.memory_bytes:
            now = self._wait_for_memory(now, until)
            self._check_target(topic, partition)
        self.used_bytes += size
        self.credit += size

    def open_batch(self, topic: TopicBuffers, partition: int, now: float) -> Batch:
        """A new batch, with no memory taken for it yet. The lock is held; `announce` must follow."""
        self.alarm.set(now + self.linger_s)  # first: what interrupts before this opens nothing
        outcome = Outcome(topic.name, partition, notice=self.waiters.notice_of_delivery)
        batch = Batch(outcome, topic.topic_id, partition, now, now + self.delivery_timeout_s)
        self.check()  # this may be a forked child by now; not a call from here on
        if topic.open[partition] is not NOWHERE:
            topic.shelf += (topic.open[partition],)
        topic.open[partition] = batch
        self._open[batch] = topic
        return batch

    def give_way(self) -> None:
        """`announce`, and let the I/O thread run if it left two: it would wait 5 ms for the interpreter."""
        self.announce()
        if len(self._sealed) > 1:
            sleep(0)

    def finish(self, batch: Batch, topic: TopicBuffers) -> None:
        """Nothing more fits into the batch. The lock is held; `announce` must follow."""
        self.alarm.set(AT_ONCE)
        self._seal(batch, topic)
        if batch in self._open:  # it waits for an older one
            batch.own()
        else:
            self.encoder.encode_early(batch, self.used_bytes)

    def _seal(self, batch: Batch, topic: TopicBuffers) -> None:
        """Nothing more goes into the batch; the I/O thread takes it from here, behind those opened before it.

        If records are just being added to one of these, in an outer call of this thread, it stays open.
        """
        for older in topic.before(batch) if topic.shelf else ():
            if older.room == ADDING:
                topic.set_aside(batch)
                return
            self._seal(older, topic)
        if batch.torn:
            batch.mend()
        partition, filled, count = batch.partition, batch.filled, batch.length
        next_sticky = topic.sticky_after(partition)
        foreseen = topic.foreseen.get(partition, UNSTAMPED)
        following = Stamp(foreseen.identity, advance(foreseen.sequence, count))
        shelf, rest = topic.shelf, topic.shelf and topic.shelf_without(batch)

        # Not a call from here on: signal handlers come at calls, so before all this or after. What one sends
        # may have gone into the batch, or have sealed it.
        if batch not in self._open:
            return
        if batch.taken - batch.room != filled or topic.shelf is not shelf:
            self._seal(batch, topic)
            return
        self.used_bytes -= batch.room
        batch.size = batch.taken - batch.room
        batch.count = count
        batch.generation = self._generation
        topic.shelf = rest
        if topic.open[partition] is batch:
            topic.open[partition] = NOWHERE
            topic.sticky = next_sticky
        del self._open[batch]
        if foreseen is not UNSTAMPED:
            batch.foreseen = foreseen
            topic.foreseen[partition] = following
        if count:
            self._sealed += [batch]
        else:
            self.used_bytes -= batch.size

    def open_topic(self, info: TopicInfo, start: int) -> TopicBuffers:
        """The buffers of a topic; made now, unless another thread was faster."""
        with self.lock:
            self.check()
            buffers = self.topics.get(info.name)
            if buffers is None or buffers.topic_id != info.topic_id:
                if buffers is not None:
                    buffers.gone = True
                buffers = self.topics[info.name] = TopicBuffers(info, start)
            return buffers

    def seal(self) -> tuple[int, int]:
        """Seal everything: its generation, and how many batches up to that have no answer."""
        with self.lock:
            self._seal_all()
            self._generation += 1
            return self._generation - 1, self._unresolved(self._generation - 1)

    def wait_resolved(self, generation: int, until: float) -> int:
        """Wait until all up to this generation is resolved; how many batches are not, at `until`."""
        with self.lock:
            return self.waiters.wait_for_none(partial(self._unresolved, generation), until)

    def take_failures(self, since: int) -> Failures:
        """What failed since the ledger had `told` so much."""
        with self.lock:
            return self.ledger.take_failures(since)

    def watch(self, watcher: Callable[[], None] | None) -> None:
        """Who waits for memory without a thread is told, under the lock, when there may be some."""
        with self.lock:
            self.waiters.watcher = watcher
            if watcher is not None:
                self._begin_to_wait()

    def check(self) -> None:
        """Raise why no more records are taken, if that is so."""
        if self._error is not None:
            raise self._error.with_traceback(None)

    def seal_alone(self, free_lane: Callable[[Batch], Lane | None]) -> tuple[Batch, Lane] | None:
        """Seal the only batch that there is, if it has a free lane; both, else None."""
        if owned(self.lock):
            return None
        with self.lock:
            batch, topic = next(iter(self._open.items()), (NOWHERE, None))
            if topic is None or len(self._open) > 1 or self._sealed or (lane := free_lane(batch)) is None:
                return None
            self._seal(batch, topic)
            return (batch, lane) if batch.count else None

    # ------------------------------------------------------- by the I/O thread

    def take(self, batch: Batch) -> None:
        """As `collect`, this batch alone."""
        with self.lock:
            self._sealed.remove(batch)
            self.ledger.enter([batch])

    def collect(self, now: float, wanted: Callable[[Batch, float], bool]) -> tuple[list[Batch], float]:
        """Take the sealed batches, and the open ones whose time has come if they are `wanted` now.

        Also returns when to call again for those that stay open, if nothing happens before (inf: no need to).
        """
        with self.lock:
            stuck = bool(self.waiters) and not self._unresolved()
            due = inf
            for batch, topic in tuple(self._open.items()):
                if batch.opened + self.linger_s > now and not stuck:
                    due = min(due, batch.opened + self.linger_s)
                    break
                if stuck or batch.deadline <= now or wanted(batch, now):
                    self._seal(batch, topic)
                else:
                    due = min(due, batch.deadline)
            self.alarm.reset(due)
            sealed, self._sealed = self._sealed, []
            self.ledger.enter(sealed)
            return sealed, due

    def foresee(self, last: Batch, stamp: Stamp) -> bool:
        """The batch that is sealed next behind `last` gets `stamp`; False if there is such a one by now."""
        with self.lock:
            if self._sealed:
                return False
            topic = self.topics.get(last.outcome.topic)
            if topic is not None and topic.topic_id == last.topic_id:
                topic.foreseen[last.partition] = stamp
            return True

    def settle(self, resolved: Sequence[Resolved]) -> None:
        """Give back the memory of batches that were resolved, and count those that failed."""
        with self.lock:
            for batch, _, error in resolved:
                self.used_bytes -= batch.size
                self.ledger.leave(batch, error)
            self.waiters.tell()

    def update_topics(self, lookup: Callable[[bytes], TopicInfo | None]) -> None:
        """The cluster has changed: take in new partitions and leaders, forget topics that were deleted."""
        with self.lock:
            for topic in tuple(self.topics.values()):
                info = lookup(topic.topic_id)
                if info is not None:
                    topic.update(info)
                    continue
                self.topics.pop(topic.name).gone = True
                for batch in topic.batches():
                    self._seal(batch, topic)

    def unresolved(self) -> bool:
        """Is there a record without an answer?"""
        with self.lock:
            return bool(self._open or self._unresolved())

    def fail(self, error: TailraceError) -> None:
        """Take no more records, for this reason. What is open is sealed, for the I/O thread to resolve."""
        with self.lock:
            self._error = self._error or error
            self.topics.clear()
            self._seal_all()
            self.waiters.tell()

    def abandon(self, error: TailraceError) -> None:
        """In a forked child, where nobody will ever give the lock or memory back: refuse everything."""
        self.lock = threading.RLock()
        self.waiters = Waiters(self.lock, self._begin_to_wait)
        self._error = error
        self.topics.clear()
        self._open.clear()
        self.ledger.forget()

    # ------------------------------------------------------------------ inside

    def _check_target(self, topic: TopicBuffers, partition: int | None) -> None:
        self.check()
        topic.check(partition)

    def _seal_all(self) -> None:
        self.alarm.set(AT_ONCE)
        try:
            for batch, topic in tuple(self._open.items()):
                self._seal(batch, topic)
        finally:
            self.announce()

    def _begin_to_wait(self) -> None:
        """If only what is open can give memory back, have the I/O thread take it."""
        if threading.get_ident() == self.io_thread:
            raise TailraceError("a callback would wait for its own thread; do this in another one")
        if not self._unresolved():
            self.alarm.set(AT_ONCE)
            self.announce()

    def _unresolved(self, generation: int | None = None) -> int:
        """Sealed batches of this generation and those before, or of all, that have no answer."""
        last = self._generation if generation is None else generation
        return self.ledger.unresolved(last) + sum(batch.generation <= last for batch in self._sealed)

    def _wait_for_memory(self, now: float, until: float) -> float:
        """Wait for a change, or a while; the time then. Raises BufferFullError when `until` is reached."""
        if now >= until:
            raise memory_full(self.used_bytes, self.memory_bytes, self._max_block_s, self.obstacle())
        try:
            self.waiters.wait_for_memory(until - now, self._max_block_s)
        finally:
            self.clock.tick = 0.0  # it has moved on meanwhile
        return monotonic()
