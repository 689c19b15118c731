"""`tailrace.AsyncProducer`: `Producer` for asyncio."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

from tailrace.client.bridge import Bridge, twin
from tailrace.client.lifecycle import OfOneProcess
from tailrace.client.notice import Notice
from tailrace.client.signatures import options_of
from tailrace.protocol.errors import BufferFullError, TailraceError
from tailrace.protocol.record import Headers

from .arguments import partition_of
from .async_delivery import AsyncDelivery, AsyncManyDelivery, Resolving
from .bulk import accept_piece, pieces
from .columns import columns_of
from .delivery import RecordMetadata, Span
from .producer import Producer
from .refusals import memory_full
from .topics import TopicBuffers
from .waiters import FOR_MEMORY

P = ParamSpec("P")
T = TypeVar("T")

CALLS_AT_ONCE_MAX: Final = 8
"""Calls of one producer that wait at the same time (`flush`, topics that are looked up)."""


class _NotOpenError(Exception):
    """The topic was not looked up yet, which would take time."""


class _Unblocking(Producer):
    """A producer whose `send` never waits: BufferFullError and _NotOpenError come at once."""

    _blocks = False

    def _open_topic(self, topic: str) -> TopicBuffers:
        raise _NotOpenError

    def open_topic(self, topic: str) -> None:
        """Look a topic up, which waits. Raises like `send`."""
        super()._open_topic(topic)

    def put_many(self, topic: str, columns: Any, partition: int | None) -> Iterator[Callable[[], list[Span]]]:
        """The steps of `send_many`, each of which may be tried again while there is no memory for it."""
        for piece in pieces(self._accumulator, columns):
            yield partial(self._put, topic, partition, piece)

    def _put(self, topic: str, partition: int | None, piece: Any) -> list[Span]:
        try:
            target = self._topics[topic]
        except (KeyError, TypeError):
            target = self._open_topic(topic)
        return accept_piece(self._accumulator, target, partition, self._partitioner, piece)

    def columns(self, values: Any, keys: Any, headers: Any, timestamps_ms: Any) -> Any:
        """What `send_many` is given, checked and serialized."""
        serializers = (self._key_serializer, self._value_serializer)
        return columns_of(values, keys, headers, timestamps_ms, serializers=serializers)

    @contextmanager
    def watching(self, told: Callable[[], None]) -> Iterator[None]:
        """While somebody waits for memory: `told` is called when there may be some."""
        self._accumulator.watch(told)
        try:
            yield
        finally:
            self._accumulator.watch(None)

    def memory_full(self) -> BufferFullError:
        """There was no memory in `max_block_ms`."""
        accumulator = self._accumulator
        return memory_full(
            accumulator.used_bytes, accumulator.memory_bytes, self.max_block_s, accumulator.obstacle()
        )

    @property
    def notice(self) -> Callable[[str, float], Notice]:
        """Makes what those are told by who wait for something for so many seconds, and too long."""
        return self._accumulator.waiters.notice

    @property
    def max_block_s(self) -> float:
        """How long to wait for memory."""
        return self._max_block_s


class AsyncProducer(OfOneProcess):
    """`Producer` with coroutines: the same options, order, guarantees and errors.

        async with AsyncProducer() as producer:
            delivery = await producer.send("orders", b"value", key=b"key")  # in a batch
            metadata = await delivery  # on disk
            await producer.send_and_wait("orders", b"another")

    `send` runs in the loop's thread and makes no task: it waits only while a topic is looked up, or, in
    the order of the calls, for `buffer_memory`, up to `max_block_ms`. A `send` that is cancelled while it
    waits sends nothing; one that has returned is not undone by anything. Deliveries need not be awaited:
    `flush`, and leaving `async with`, raise DeliveryFailedError if something was not stored. Serializers run
    in the loop. A producer belongs to one loop, the first that it is used in: ConcurrentUseError in another.
    """

    @options_of(Producer)
    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._sync = _Unblocking(*arguments, **options)
        self._bridge = Bridge("AsyncProducer", threads=CALLS_AT_ONCE_MAX)
        self._resolving = Resolving(self._bridge, self._sync.notice)
        self._turn = asyncio.Lock()
        self._room = asyncio.Event()
        self._queued = 0
        """Tasks that wait for their turn, or have it: whoever comes now comes behind them."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Flush and close. An exception on its way is never masked: it gets a note of what failed."""
        try:
            await self.close()
        except TailraceError as failure:
            if error is None:
                raise
            error.add_note(f"and when the producer was closed: {failure}")

    async def start(self) -> None:
        """It belongs to this loop from now on. Nothing is connected to before it is needed."""
        self._bridge.enter()

    # ----------------------------------------------------------------- writing

    async def send(  # noqa: PLR0917 - the order of arguments is kafka-python's
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> AsyncDelivery:
        """Send one record; returns when it is in a batch. Takes and raises what `Producer.send` does."""
        self._bridge.enter()
        if not self._queued:
            try:
                sent = self._sync.send(topic, value, key, headers, partition, timestamp_ms)
            except (BufferFullError, _NotOpenError):
                pass
            else:
                return AsyncDelivery(sent.outcome, sent.index, self._resolving)
        step = partial(self._sync.send, topic, value, key, headers, partition, timestamp_ms)
        sent = await self._in_turn(topic, step)
        return AsyncDelivery(sent.outcome, sent.index, self._resolving)

    async def send_and_wait(  # noqa: PLR0917
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> RecordMetadata:
        """Send one record and wait until it is stored. Raises what `send` and the delivery raise."""
        return await (await self.send(topic, value, key, headers, partition, timestamp_ms))

    async def send_many(
        self,
        topic: str,
        values: Iterable[Any],
        keys: Iterable[Any] | None = None,
        *,
        headers: Iterable[Headers | None] | None = None,
        partition: int | None = None,
        timestamps_ms: int | Iterable[int] | None = None,
    ) -> AsyncManyDelivery:
        """Send records in columns, as `Producer.send_many`; returns when all are in batches.

        Other tasks run between pieces of some thousand records. BufferFullError's `accepted` tells how many
        were accepted; so many may be when it is cancelled.
        """
        columns = self._sync.columns(values, keys, headers, timestamps_ms)
        spans: list[Span] = []
        accepted = 0
        for step in self._sync.put_many(topic, columns, partition_of(partition)):
            try:
                spans += await self._in_turn(topic, step)
            except BufferFullError as error:
                error.accepted = accepted
                raise
            accepted = sum(span.record_count for span in spans)
            await asyncio.sleep(0)
        return AsyncManyDelivery(spans, self._resolving)

    flush = twin(Producer.flush)
    partitions_for = twin(Producer.partitions_for)

    async def close(self, timeout: float | None = None) -> None:
        """Flush as `flush` does, then stop. May be repeated. Raises like `Producer.close`.

        When it is cancelled, what is not resolved fails with ClosedError, as when Ctrl-C ends that one.
        """
        if self._sync.closed or self._bridge.closed:
            return
        try:
            await self._bridge.run(self._sync.close, timeout)
        except asyncio.CancelledError:
            # Its thread would go on waiting, and the interpreter does not end before its threads have.
            with suppress(TailraceError):
                self._sync.close(0)
            raise
        finally:
            self._bridge.close()

    stop = close

    # ----------------------------------------------------------------- looking

    @property
    def closed(self) -> bool:
        """Was it closed?"""
        return self._sync.closed

    def metrics(self) -> dict[str, Any]:
        """As `Producer.metrics`."""
        return self._sync.metrics()

    def __repr__(self) -> str:
        return f"<Async{repr(self._sync)[1:]}"

    # ------------------------------------------------------------------ inside

    async def _run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        return await self._bridge.run(function, *arguments, **options)

    async def _in_turn(self, topic: str, step: Callable[[], T]) -> T:
        """Do a step that adds records, when those who came before have done theirs, and there is room."""
        self._bridge.enter()
        while True:
            self._queued += 1
            allowed = asyncio.timeout(self._sync.max_block_s)
            try:
                async with allowed, self._turn:
                    return await self._with_room(step)
            except _NotOpenError:
                pass  # looked up below: nobody queues behind that
            except TimeoutError:
                if not allowed.expired():
                    raise  # the partitioner's
                full = self._sync.memory_full()
                raise full from full.__cause__
            finally:
                self._queued -= 1
            await self._bridge.run(self._sync.open_topic, topic)

    async def _with_room(self, step: Callable[[], T]) -> T:
        with suppress(BufferFullError):
            return step()
        told = self._sync.notice(FOR_MEMORY, self._sync.max_block_s)
        with self._sync.watching(lambda: self._bridge.ring(self._room.set)), self._bridge.telling(told):
            while True:
                self._room.clear()
                with suppress(BufferFullError):
                    return step()
                await self._room.wait()
