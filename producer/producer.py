"""The public face of writing: `tailrace.Producer`."""

import itertools
import warnings
from collections.abc import Callable, Iterable, Sequence
from random import randrange
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from tailrace.client.arguments import seconds_of
from tailrace.client.engine import Engine
from tailrace.client.lifecycle import OfOneProcess
from tailrace.client.options import reject_unknown
from tailrace.client.serializers import Serializer, serializer_of
from tailrace.protocol.compression import Compression
from tailrace.protocol.errors import ClosedError, TailraceError
from tailrace.protocol.limits import MIB, RECORD_BYTES_MAX
from tailrace.protocol.record import Headers

from . import at_exit
from .accumulator import Accumulator
from .arguments import bytes_of, headers_of, partition_of, serialized, timestamp_of, topic_of
from .batch import ADDING, RECORD_OVERHEAD_BYTES
from .bulk import accept
from .columns import columns_of
from .config import BATCH_SIZE_DEFAULT, OPTIONS, ProducerConfig
from .delivery import Delivery, ManyDelivery
from .flushing import flush, raise_failures
from .look_up import look_up
from .metrics import metrics_of
from .partitioner import Partitioner, PartitionerOption
from .pipeline import Pipeline
from .reentrance import check_can_wait
from .refusals import late
from .topics import TopicBuffers

_numbers: Final = itertools.count(1)


class Producer(OfOneProcess):
    """Writes records to the cluster at `bootstrap_servers`.

        with Producer() as producer:
            producer.send("orders", b"value", key=b"key")

    `send` and `send_many` put records into batches and return at once; an I/O thread sends them. What
    they return resolves by itself when the records are stored, or have failed: at the latest
    `delivery_timeout_ms` after they were sent. Leaving `with` flushes, and raises DeliveryFailedError
    if something was not stored; a producer that is still open when the interpreter ends is closed then.
    Nothing is connected to before it is needed. All methods may be used by many threads. Ctrl-C works in
    every one. A fork of the process cannot use it: ClosedError. A signal handler may call it, too; within a
    `send` that it interrupts, what would have to wait (`flush`, `close`) may raise ConcurrentUseError.

    **Order and duplicates.** Records of one partition are stored in the order in which they were sent.
    With `enable_idempotence` (on unless `acks` is 0 or 1) each is stored once, whatever is lost or
    repeated on the way; one that may be stored or not after its time is over fails with an error
    that says so. Without it, a retry can store a record twice and out of order, as in Kafka.

    **Batches.** A batch is sent when it is full (`batch_size`, in bytes), or `linger_ms` after its
    first record if the way is free; on a busy way it fills up meanwhile. `compression_type` is "gzip",
    "snappy", "lz4" or "zstd". The records that are not acknowledged yet are bounded by `buffer_memory`,
    in bytes: then `send` waits up to `max_block_ms`, and raises BufferFullError after it.

    **Partitions.** `partitioner` is "crc32" of the key (the same partitions as confluent-kafka), "murmur2"
    (the same as Java and kafka-python), or a callable `(key, all_partitions, available_partitions) ->
    partition`. Records without a key go to one partition until its batch is sent, then to the next.

    **Timestamps** are the wall clock's when `send` is called, in milliseconds since 1970, at most 1 ms late.

    **acks**: "all" (or -1): answered when all in-sync replicas have a batch on disk; 1: when the leader
    has; 0: not at all, a batch counts as delivered when it was handed to the network (offset -1), as fast as
    the node keeps up. With 1, records that the others have not copied yet are lost when another replica
    becomes the leader, also where nothing failed: leadership goes back, a partition moves.

    Keys and values are bytes, or str, which is stored as UTF-8. `key_serializer` and `value_serializer`:
    "json", "str", "msgpack", "pickle" (by cloudpickle), or functions that get what `send` was given and
    give bytes; None stays None.
    `max_request_size` bounds one record, in bytes. `request_timeout_ms` is how long a node's answer is
    waited for before a batch is sent again. `client_id` names the producer in logs and errors.

    Raises InvalidArgumentError (unknown options with a did-you-mean). Names are kafka-python's where they
    mean the same; defaults are not always. docs/options.md has all of them, and the bounds.
    """

    _blocks = True
    """Does `send` wait for memory?"""
    _open: Callable[..., Engine] = Engine
    """Makes the engine."""

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str] = "127.0.0.1:7070",
        *,
        client_id: str | None = None,
        acks: str | int = "all",
        enable_idempotence: bool | None = None,
        linger_ms: float = 5,
        batch_size: int = BATCH_SIZE_DEFAULT,
        compression_type: str | None = None,
        key_serializer: str | Serializer | None = None,
        value_serializer: str | Serializer | None = None,
        partitioner: PartitionerOption = "crc32",
        buffer_memory: int = 64 * MIB,
        max_block_ms: int = 60_000,
        max_request_size: int = RECORD_BYTES_MAX,
        delivery_timeout_ms: int = 120_000,
        request_timeout_ms: int = 30_000,
        **unknown: object,
    ) -> None:
        reject_unknown("Producer", unknown, OPTIONS)
        config = ProducerConfig(
            bootstrap_servers=bootstrap_servers,
            client_id=client_id,
            acks=acks,
            enable_idempotence=enable_idempotence,
            linger_ms=linger_ms,
            batch_size=batch_size,
            compression_type=compression_type,
            key_serializer=key_serializer,
            value_serializer=value_serializer,
            partitioner=partitioner,
            buffer_memory=buffer_memory,
            max_block_ms=max_block_ms,
            max_request_size=max_request_size,
            delivery_timeout_ms=delivery_timeout_ms,
            request_timeout_ms=request_timeout_ms,
        )
        self._key_serializer = serializer_of("key_serializer", key_serializer)
        self._value_serializer = serializer_of("value_serializer", value_serializer)
        self._serializes = key_serializer is not None or value_serializer is not None
        self._partitioner = Partitioner(partitioner)
        self._key_hash = self._partitioner.key_hash
        self._max_block_s = max_block_ms / 1000
        self._closed = True  # until it is open
        self._name = client_id or f"producer-{next(_numbers)}"
        self._engine = self._open(bootstrap_servers, request_timeout_ms=request_timeout_ms, name=self._name)
        self._accumulator = Accumulator(
            batch_bytes=config.batch_bytes,
            record_bytes_max=config.record_bytes_max,
            memory_bytes=buffer_memory,
            linger_s=config.linger_s,
            delivery_timeout_s=delivery_timeout_ms / 1000,
            max_block_s=self._max_block_s if self._blocks else 0.0,
            compresses=config.compression is not Compression.NONE,
            wake=self._engine.wake,
        )
        self._topics = self._accumulator.topics
        self._pipeline = Pipeline(
            self._engine,
            self._accumulator,
            acks=config.acks_wanted,
            idempotent=config.idempotent,
            compression=config.compression,
        )
        self._closed = False  # whatever comes from here on, `__del__` ends what there is
        at_exit.register(self, self._name)
        self._engine.start(self._pipeline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Flush and close. An exception on its way is never masked: it gets a note of what failed."""
        try:
            self.close()
        except TailraceError as failure:
            if error is None:
                raise
            error.add_note(f"and {self._name}: {failure}")

    def __del__(self) -> None:
        """Forgotten: the I/O thread delivers what there is, then ends."""
        if not getattr(self, "_closed", True):
            self._pipeline.orphan()
            warnings.warn(f"{self._name} was not closed", ResourceWarning, stacklevel=2, source=self)

    # ----------------------------------------------------------------- writing

    # The order of arguments is kafka-python's. It is long because a call costs more than a branch.
    def send(  # noqa: C901, PLR0912, PLR0917
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Delivery:
        """Send one record, without waiting for it to be stored.

        Key and value are bytes, str (as UTF-8) or None, or what the serializers take; `headers` (str, bytes
        or None) pairs; `timestamp_ms` milliseconds since 1970 (default: now). Waits up to `max_block_ms` for
        a topic not known yet, and for memory. Raises UnknownTopicError, UnknownPartitionError,
        SerializationError, InvalidArgumentError, BatchTooLargeError, BufferFullError, ConnectionFailedError,
        ClosedError, FencedProducerError, ConcurrentUseError.
        """
        try:
            target = self._topics[topic]
        except (KeyError, TypeError):
            target = self._open_topic(topic)
        if self._serializes:
            key = serialized("key", key, self._key_serializer)
            value = serialized("value", value, self._value_serializer)
        if type(value) is not bytes and value is not None:
            value = bytes_of("value", value)
        size = RECORD_OVERHEAD_BYTES if value is None else len(value) + RECORD_OVERHEAD_BYTES
        if (headers is not None or timestamp_ms is not None or self._key_hash is None) or (
            partition is not None and not (type(partition) is int and 0 <= partition < target.count)
        ):
            return self._send_other(target, value, key, headers, partition, timestamp_ms=timestamp_ms)
        if key is not None:
            key = key if type(key) is bytes else bytes_of("key", key)
            size += len(key)
            if partition is None and (key or self._partitioner.empty_is_key):
                partition = self._key_hash(key) % target.count if target.count > 1 else 0
        lock, alarm, now = self._accumulator.lock, self._accumulator.alarm, monotonic()
        try:  # the accumulator's `append`, written out; a `with` would cost 50 ns more
            lock.acquire()
            batch = target.open[target.sticky if partition is None else partition]
            if (room := batch.room) < size:
                batch = self._accumulator.room(target, partition, size, now)
                room = batch.room
            batch.room = ADDING
            try:
                values = batch.values
                index = len(values)
                if now >= batch.tick:
                    self._accumulator.clock.stamp(batch, index, now)
                if key is not None or batch.wide:
                    if (keys := batch.keys) is None or batch.headers is not None:
                        batch.add_other_columns(index, key)
                    else:
                        keys.append(key)
                values.append(value)
            except BaseException:  # no call here: another signal may follow
                batch.torn, batch.tick, batch.room = True, 0.0, room - size
                raise
            batch.room = room - size
            lock.release()
            if alarm.heard != alarm.last:  # also what was interrupted before it was told
                self._accumulator.announce()
            return Delivery(batch.outcome, index)
        except BaseException:
            try:  # noqa: SIM105 - suppress() is a call, which would let the next signal in
                lock.release()
            except RuntimeError:
                pass  # it came before the lock was ours, or when it was no more
            self._accumulator.announce()
            raise

    def send_many(
        self,
        topic: str,
        values: Iterable[Any],
        keys: Iterable[Any] | None = None,
        *,
        headers: Iterable[Headers | None] | None = None,
        partition: int | None = None,
        timestamps_ms: int | Iterable[int] | None = None,
    ) -> ManyDelivery:
        """Send records in columns: the fastest way, and the same partitions as `send` would choose.

        `keys` and `headers` (also as `to_arrow` has them) have one entry for each value, `timestamps_ms` too,
        or is one for all. Values and keys are sequences of what `send` takes (values that are all text in
        ASCII are encoded as one; where numpy is loaded, so are thousands of other short texts without keys),
        or arrays, of which no object is made for each record (but of keys over 64 bytes):

        - numpy of any dtype but object: a record for each item, or row, of the first axis: its bytes in C
          order, little endian, in full width (the value b"ab" of `S5` with three zero bytes, a key without),
          padding as zeros. Text (`U`, StringDType) is sent as UTF-8, that of StringDType by objects.
        - Arrow (pyarrow arrays, chunked too; pandas' and polars' columns; whatever has `__arrow_c_array__` or
          `__arrow_c_stream__`): binary, string, numbers and times (as numpy's bytes), with nulls.

        Timestamps may be integers, numpy's datetime64, or Arrow's timestamps. A serializer is applied to each
        item of an array. What is missing (null, None, NA, NaT; in an array NaN, unless it is one of floats)
        is null, also without one. Records from arrays share no batch with others: do not mix small calls.

        Lists and arrays are not to be changed before this returns. Waits and raises like `send`; nothing is
        sent if any argument does not fit. If memory stays full, BufferFullError's `accepted` tells how many
        of the records, from the first on, were accepted before.
        """
        try:
            target = self._topics[topic]
        except (KeyError, TypeError):
            target = self._open_topic(topic)
        columns = columns_of(
            values, keys, headers, timestamps_ms, serializers=(self._key_serializer, self._value_serializer)
        )
        wanted = partition_of(partition)
        return ManyDelivery(accept(self._accumulator, target, wanted, self._partitioner, columns))

    def flush(self, timeout: float | None = None) -> None:
        """Send everything now, without waiting for `linger_ms`, and wait until all of it is resolved.

        `timeout` is in seconds (None: until it is resolved, which `delivery_timeout_ms` bounds). Raises
        TimedOutError; DeliveryFailedError if records failed since the last flush, with their number and
        the first cause.
        """
        timeout_s = seconds_of(timeout)
        check_can_wait(self._accumulator.lock)
        if self._closed:
            self._accumulator.check()
        told = self._accumulator.ledger.told
        if left := flush(self._engine, self._accumulator, timeout_s):
            raise late(left, timeout_s, self._accumulator.obstacle())
        raise_failures(self._accumulator, told)

    def close(self, timeout: float | None = None) -> None:
        """Take no more records, flush as `flush` does, then stop. A second call does nothing.

        What is not resolved after `timeout` seconds fails with ClosedError. Raises DeliveryFailedError if
        records failed since the last flush, or now.
        """
        timeout_s = seconds_of(timeout)
        if self._closed:
            return
        check_can_wait(self._accumulator.lock)
        told = self._accumulator.ledger.told
        try:
            self._engine.ending = True
            self._accumulator.fail(ClosedError(f"{self._name} is closed"))  # nobody would wait for more
            flush(self._engine, self._accumulator, timeout_s)
        finally:
            self._engine.close()
            self._closed = True  # not before: what is interrupted can be done again, and `__del__` does it
            at_exit.unregister(self)
        raise_failures(self._accumulator, told)

    # ----------------------------------------------------------------- looking

    def partitions_for(self, topic: str) -> set[int]:
        """The partitions of a topic. Raises like `send` when it is not known."""
        check_can_wait(self._accumulator.lock)
        info = look_up(self._engine, topic_of(topic), self._max_block_s)
        return set(range(len(info.partitions)))

    @property
    def closed(self) -> bool:
        """Was it closed?"""
        return self._closed

    def metrics(self) -> dict[str, Any]:
        """Counts since the producer was made, sizes in bytes, times in milliseconds."""
        return metrics_of(
            self._pipeline.counters, self._accumulator, self._pipeline.sender, self._engine.paths
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Producer {self._name} of {self._engine.bootstrap}: {state}>"

    def disown(self) -> None:
        """Called in a forked child, which has no I/O thread: everything raises ClosedError from now on."""
        self._closed = True
        self._accumulator.abandon(
            ClosedError(f"{self._name} was made before fork() and belongs to the parent; make a new one here")
        )

    # ------------------------------------------------------------------ inside

    def _open_topic(self, topic: str) -> TopicBuffers:
        try:
            self._accumulator.check()
            check_can_wait(self._accumulator.lock)
            info = look_up(self._engine, topic_of(topic), self._max_block_s)
            return self._accumulator.open_topic(info, randrange(len(info.partitions)))
        except BaseException as error:
            error.__suppress_context__ = True  # the KeyError that led here is nothing to the user
            raise

    def _send_other(
        self,
        target: TopicBuffers,
        value: bytes | None,
        key: Any,
        headers: Headers | None,
        partition: int | None,
        *,
        timestamp_ms: int | None,
    ) -> Delivery:
        """A record with what most do not have."""
        key = bytes_of("key", key)
        size = RECORD_OVERHEAD_BYTES + len(value or b"") + len(key or b"")
        if headers is not None:
            headers, header_bytes = headers_of("headers", headers)
            size += header_bytes
        if timestamp_ms is not None:
            timestamp_ms = timestamp_of("timestamp_ms", timestamp_ms)
        place = partition_of(partition)
        if place is None:
            place = self._partitioner.place(key, target.count, target.available)
        return self._accumulator.append(
            target, place, value, key, headers=headers, timestamp_ms=timestamp_ms, size=size
        )
