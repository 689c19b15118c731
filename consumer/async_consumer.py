"""`tailrace.AsyncConsumer`: `Consumer` for asyncio."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

from tailrace.client.arguments import check_int, partition_of, timeout_of
from tailrace.client.bridge import Bridge, twin
from tailrace.client.descriptions import OffsetAndMetadata
from tailrace.client.lifecycle import OfOneProcess
from tailrace.client.options import reject_unknown
from tailrace.client.signatures import options_of
from tailrace.protocol.errors import ConcurrentUseError, InvalidArgumentError, TailraceError
from tailrace.protocol.limits import MAX_POLL_RECORDS_MAX
from tailrace.protocol.record import Record, TopicPartition

from .arguments import partitions_of, reject_habits, topics_of
from .assigned import Key
from .async_listener import AsyncRebalanceListener
from .async_transactions import async_local_transaction
from .column_batch import ColumnBatch
from .config import OPTIONS, ConsumerConfig
from .consumer import Consumer
from .group.task import LEAVE_WITHIN_S
from .listener import RebalanceListener, Through
from .local.transaction import LocalTransaction
from .making import Making
from .session import Session
from .turns import Turns

P = ParamSpec("P")
T = TypeVar("T")
AnyRecord = Record[Any, Any]

_ONE_READER: Final = (
    "another task reads with this AsyncConsumer: give each task a consumer of its own, or hand records on "
    "in a queue; other calls may be made by any task"
)


class AsyncConsumer(OfOneProcess):
    """`Consumer` with coroutines: the same options, guarantees and errors.

        async with AsyncConsumer("orders", group_id="billing") as consumer:
            async for record in consumer:
                print(record.offset, record.key, record.value)

    `async with` (or `start`) connects and subscribes. Records are decoded in the loop's thread, and handed
    over without a task or a wake-up of their own; whatever may wait for a disk or the cluster runs in a
    thread of the consumer's. A call that is cancelled takes no record; if it was a change (`commit`,
    `subscribe`), that may be made nevertheless, and the next call waits for its end, `close` for two seconds.

    One task reads at a time (ConcurrentUseError); other tasks may make other calls meanwhile: these take
    turns. With auto-commit a record is done when its task asks for the next one, as in `Consumer`. It
    belongs to one loop, the first that it is used in. Only `wakeup` may be called from other threads.
    """

    @options_of(Consumer)
    def __init__(self, *topics: str, **options: Any) -> None:
        unknown = {name: value for name, value in options.items() if name not in OPTIONS}
        reject_unknown("AsyncConsumer", unknown, OPTIONS)
        ConsumerConfig(**options)
        self._topics, self._options = topics_of(topics), options
        self._made: Consumer | None = None
        self._bridge = Bridge("AsyncConsumer", threads=1)
        self._turns = Turns(self._bridge)
        self._news = asyncio.Event()
        self._reading = False
        self._asked_by: asyncio.Task[Any] | None = None
        self._ones: AsyncIterator[AnyRecord] | None = None
        self._one_wanted = False

    async def start(self) -> None:
        """Connect, and subscribe to the constructor's topics. Raises like `Consumer`. May be repeated."""
        if self._made is None:
            making = Making()
            try:
                await self._turns.in_thread(self._start, making)
            except asyncio.CancelledError:
                making.give_up()  # its thread would go on, and the interpreter waits for that
                raise

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; after an exception without storing the record in hand. It is never masked."""
        try:
            await self._close(failed=error is not None)
        except TailraceError as store_error:
            if error is None:
                raise
            error.add_note(f"and offsets were not stored when the consumer was closed: {store_error}")

    async def close(self) -> None:
        """Store what auto-commit has to store, everything handed over included; stop. May be repeated."""
        await self._close(failed=False)

    stop = close

    # ----------------------------------------------------------------- reading

    def __aiter__(self) -> AsyncIterator[AnyRecord]:
        """Record by record. Ends and raises like `Consumer`'s iteration; can be begun again any time."""
        return self._records(self._session.config.wait_s(), alone=True)

    async def getone(self) -> AnyRecord:
        """The next record. Raises like iteration, and ClosedError; after `wakeup` it goes on waiting."""
        self._bridge.enter()
        while True:
            if self._one_wanted:
                raise ConcurrentUseError(_ONE_READER)
            if self._ones is None:
                self._ones = self._records(None, alone=False)
            self._one_wanted = True
            try:
                return await anext(self._ones)
            except StopAsyncIteration:
                self._ones = None
            except BaseException:
                self._ones = None
                raise
            finally:
                self._one_wanted = False

    async def poll(
        self, timeout_ms: float | None = 0, max_records: int | None = None, **unknown: object
    ) -> dict[TopicPartition, list[AnyRecord]]:
        """As `Consumer.poll`: up to `max_records` by partition; empty after `timeout_ms` or `wakeup`."""
        if unknown:
            reject_habits("poll", unknown)
        return await self._poll(timeout_ms, max_records)

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: float | None = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[AnyRecord]]:
        """`poll`, by aiokafka's name; of `partitions` only, if some are given: the others wait meanwhile."""
        if not partitions:
            return await self.poll(timeout_ms, max_records)
        session = self._session
        wanted = {session.assignment.find(name).key for name in partitions_of(partitions)}
        polled: dict[TopicPartition, list[AnyRecord]] = {}
        try:
            polled = await self._poll(timeout_ms, max_records, wanted)
        finally:
            if not polled:  # what was taken must not wait here, where the task may be cancelled
                await self._turns.surely(session.end_aside)
        return polled

    async def batches(self, timeout_ms: float | None = None) -> AsyncIterator[ColumnBatch]:
        """Batch by batch, as columns: the fastest way. As `Consumer.batches`."""
        timeout_s = self._session.config.wait_s(timeout_ms)
        while (batch := await self._next(self._session.hand_over.columns, timeout_s)) is not None:
            yield batch

    def wakeup(self) -> None:
        """From any thread: end the loop before its next record, or have the next call return with nothing."""
        self._session.wakeup()

    # -------------------------------------------------------------- assignment

    async def subscribe(
        self,
        /,
        topics: str | Iterable[str] | None = None,
        *,
        pattern: str | re.Pattern[str] | None = None,
        listener: AsyncRebalanceListener | RebalanceListener | None = None,
        timeout_ms: float | None = None,
        **unknown: object,
    ) -> None:
        """As `Consumer.subscribe`. The methods of an AsyncRebalanceListener run in the loop."""
        asynchronous = isinstance(listener, AsyncRebalanceListener)
        told: Any = Through(listener, self._bridge.call_back) if asynchronous else listener
        options: dict[str, Any] = {"pattern": pattern, "listener": told, "timeout_ms": timeout_ms, **unknown}
        await self._run(partial(Consumer.subscribe, self._sync, topics, **options))

    unsubscribe = twin(Consumer.unsubscribe)
    assign = twin(Consumer.assign)
    pause = twin(Consumer.pause)
    resume = twin(Consumer.resume)
    position = twin(Consumer.position)
    seek = twin(Consumer.seek)
    seek_to_beginning = twin(Consumer.seek_to_beginning)
    seek_to_end = twin(Consumer.seek_to_end)

    def subscription(self) -> set[str]:
        """The subscribed topics; empty after `assign`."""
        return self._sync.subscription()

    def assignment(self) -> set[TopicPartition]:
        """The partitions that are read."""
        return self._sync.assignment()

    def paused(self) -> set[TopicPartition]:
        """The partitions that are paused."""
        return self._sync.paused()

    # ----------------------------------------------------------------- offsets

    commit = twin(Consumer.commit)
    committed = twin(Consumer.committed)
    committed_metadata = twin(Consumer.committed_metadata)
    beginning_offsets = twin(Consumer.beginning_offsets)
    end_offsets = twin(Consumer.end_offsets)
    offsets_for_times = twin(Consumer.offsets_for_times)
    lag = twin(Consumer.lag)
    partitions_for_topic = twin(Consumer.partitions_for_topic)
    topics = twin(Consumer.topics)
    metrics = twin(Consumer.metrics)

    async def commit_async(
        self,
        offsets: Mapping[TopicPartition, int | OffsetAndMetadata] | None = None,
        callback: Callable[[TailraceError | None], None] | None = None,
    ) -> None:
        """As `Consumer.commit_async`; `callback` is called in the loop."""
        told = callback
        if callable(callback):
            self._bridge.enter()

            def told(error: TailraceError | None) -> None:
                self._bridge.ring(partial(callback, error))

        await self._run(Consumer.commit_async, self._sync, offsets, told)

    def local_transaction(
        self, partition: TopicPartition | None = None
    ) -> AbstractAsyncContextManager[LocalTransaction]:
        """As `Consumer.local_transaction`, with `async with`.

        Its methods are plain ones: they read in the loop's thread, and keep changes in memory; leaving the
        block stores them in a thread of the consumer's, so that the loop never waits for the disk. If the
        task is cancelled while they are stored, they are stored nevertheless; before that, nothing is.
        """
        name = None if partition is None else partition_of(partition)
        return async_local_transaction(self._session, self._turns, name, self._check_no_reader)

    def __repr__(self) -> str:
        return "<AsyncConsumer: not started>" if self._made is None else f"<Async{repr(self._made)[1:]}"

    # ------------------------------------------------------------------ inside

    @property
    def _sync(self) -> Consumer:
        if self._made is None:
            raise InvalidArgumentError("the consumer is not started: use `async with`, or await start()")
        return self._made

    @property
    def _session(self) -> Session:
        return self._sync._session

    def _start(self, making: Making) -> None:
        if self._made is None:
            self._made = making.make(*self._topics, **self._options)

    async def _close(self, *, failed: bool) -> None:
        if self._bridge.closed:
            return
        try:
            if not await self._turns.none_abandoned(LEAVE_WITHIN_S):
                self._give_up()
            await self._turns.in_thread(self._stop, failed)
        except asyncio.CancelledError:
            self._give_up()  # as Ctrl-C ends `Consumer.close`
            raise
        self._bridge.close()

    def _give_up(self) -> None:
        if self._made is not None:
            self._made._session.engine.give_up()

    def _stop(self, failed: bool) -> None:
        if self._made is not None:
            self._made._session.close(failed=failed)

    async def _run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        return await self._turns.in_thread(function, *arguments, **options)

    async def _poll(
        self, timeout_ms: float | None, max_records: int | None, wanted: Container[Key] | None = None
    ) -> dict[TopicPartition, list[AnyRecord]]:
        """The others are put aside until something is taken; if nothing is, that is left to the caller."""
        session = self._session
        limit = session.config.max_poll_records
        if max_records is not None:
            limit = check_int("max_records", max_records, 1, MAX_POLL_RECORDS_MAX)

        def take() -> dict[TopicPartition, list[AnyRecord]] | None:
            if wanted is None:
                return session.hand_over.records(limit)
            session.put_aside(wanted)
            taken = session.hand_over.records(limit)
            if taken is not None:
                session.end_aside()
            return taken

        return await self._next(take, timeout_of(timeout_ms)) or {}

    async def _next(self, take: Callable[[], T | None], timeout_s: float | None) -> T | None:
        """As `Asking.next`, with waits that leave the loop to others."""
        self._bridge.enter()
        self._check_no_reader()
        self._reading = True
        self._asked_by = asyncio.current_task()
        asking = self._session.asking
        deadline = None if timeout_s is None else monotonic() + timeout_s
        try:
            if self._session.group is not None:
                self._session.group.asked()  # while it waits for its turn, too
            async with self._turns.lock:
                self._session.one_thread.touch(asking.ask)
            kept = False
            while True:
                if asking.take_woken():
                    asking.come_back()
                    return None
                async with self._turns.lock:
                    due, taken = self._session.one_thread.touch(partial(self._look, take, kept))
                if due:
                    await self._turns.in_thread(self._keep_house)
                elif taken is not None:
                    return taken
                elif not await self._wait(deadline):
                    asking.come_back()
                    return None
                kept = due
        except BaseException:
            asking.come_back()
            raise
        finally:
            self._reading = False

    def _check_no_reader(self) -> None:
        if self._reading:
            raise ConcurrentUseError(_ONE_READER)

    def _look(self, take: Callable[[], T | None], kept: bool) -> tuple[bool, T | None]:
        """Is there something to do first, unless that was just done? Else what there is to take."""
        session, now = self._session, monotonic()
        if not kept and session.asking.house_keeping_due(now):
            return True, None
        return False, session.asking.try_take(take, now)

    def _keep_house(self) -> None:
        self._session.one_thread.touch(partial(self._session.asking.keep_house, monotonic()))

    async def _wait(self, deadline: float | None) -> bool:
        """Until there may be something to take or to do, or `wakeup` was called; False after the deadline."""
        asking, now = self._session.asking, monotonic()
        if deadline is not None and now >= deadline:
            return False
        self._news.clear()
        asking.listen(lambda: self._bridge.ring(self._news.set))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(asking.wait_s(now, deadline)):
                    await self._news.wait()
        finally:
            asking.listen(None)
        self._session.check()
        return True

    async def _records(self, timeout_s: float | None, *, alone: bool) -> AsyncIterator[AnyRecord]:
        """As `Asking.records`. `alone`: it is refused when another task has read meanwhile."""
        session = self._session
        asking, commits, group = session.asking, session.commits, session.group
        take = partial(session.hand_over.chunk, session.config.max_poll_records)
        while (chunk := await self._next(take, timeout_s)) is not None:
            task = self._asked_by
            for record in chunk:
                yield record
                # The next one is asked for, so this one is done.
                if self._turns.lock.locked():
                    async with self._turns.lock:
                        pass  # whatever another task does to the positions comes first
                if asking.loop_ends:
                    break  # what is not handed over yet goes back, and perhaps to another member
                now = monotonic()
                if group is not None:
                    group.handed(now)
                if now >= commits.due_at and asking.transaction is None:
                    await self._turns.in_thread(asking.commit_in_loop)
            if alone and self._asked_by is not task:
                raise ConcurrentUseError(_ONE_READER)
