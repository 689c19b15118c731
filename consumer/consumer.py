"""The public face of reading: `tailrace.Consumer`."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tailrace.client.arguments import check_int, timeout_of
from tailrace.client.engine import Engine
from tailrace.client.lifecycle import OfOneProcess
from tailrace.client.options import reject_unknown
from tailrace.client.serializers import Deserializer
from tailrace.protocol.errors import InvalidArgumentError, TailraceError
from tailrace.protocol.limits import FETCH_SLOT_BYTES_MAX, MAX_POLL_RECORDS_MAX, MIB
from tailrace.protocol.record import Record, TopicPartition

from .arguments import listener_of, partitions_of, pattern_of, reject_habits, topics_of
from .assigned import Reset
from .column_batch import ColumnBatch
from .config import OPTIONS, ConsumerConfig, Strategy
from .listener import RebalanceListener
from .metrics import metrics_of
from .one_thread import in_one_thread
from .positions import Positions
from .session import Session


class Consumer(Positions, OfOneProcess):
    """Reads topics from the cluster at `bootstrap_servers`, in the order of each partition.

        with Consumer("orders", auto_offset_reset="earliest") as consumer:
            for record in consumer:
                print(record.offset, record.key, record.value)

    It connects, and subscribes to `topics`, before the constructor returns. Iterate, or `poll`, or take
    whole `batches`; the three can be mixed. All partitions of the subscribed topics are read, also those
    that are added later; with `group_id` the group's members share them.

    **Positions.** A partition's position moves when records are handed over. `commit` stores the
    positions. With `offset_store`, a folder, and `enable_auto_commit`, offsets are stored as well: at
    the start, then when records are asked for (and while waiting for them), at most every
    `auto_commit_interval_ms`, and by `close`. Stored is only what the application is done with: it
    says so by asking for the next record, poll, batch or assignment, and by a clean `close`, but not by
    leaving `with` with an exception. So a consumer that is killed goes on where it was, and gets again
    only what was handed over since the last write: at most the records of one `auto_commit_interval_ms`
    and the record, poll or batch in hand; without auto-commit, what was handed over since `commit`.
    A write is durable when it returns (LMDB, fdatasync). Consumers on one machine can share the
    folder; a partition has one consumer in it at a time.

    **Groups.** With `group_id`, `subscribe` makes the consumer a member: the coordinator gives each
    partition to one member, and offsets are kept there, or in `offset_store` if that is given. When
    members come or go, partitions move when records are asked for; `RebalanceListener` is told. Heartbeats
    do not depend on how long the application takes, unless `max_poll_interval_ms` is set: then it leaves
    when nothing was asked for so long. A member that is silent for `session_timeout_ms` is replaced; one
    whose process dies at once. With `group_instance_id` it is a static member: it does not leave when it
    is closed, and whoever comes with that id within the session time-out has its partitions again.
    `partition_assignment_strategy`: "uniform" moves as little as it can, "range" gives contiguous ranges.
    With `assign`, `group_id` is only where offsets are committed. Auto-commit to the group does not wait
    for the coordinator; a partition that is given up is committed first.

    **Where reading starts.** At the stored offset; if there is none, or the log does not have it (any
    more), `auto_offset_reset` decides: "latest", "earliest", or "none" (OffsetOutOfRangeError). When
    `subscribe` and `assign` return, positions are known: what is sent afterwards is not missed. Partitions
    whose node is down do not hold up the others: a warning names them, and they are read when it is back,
    from the stored offset or, if the log does not reach to it, the first record. Where reading is to start
    at the end ("latest", nothing stored) it starts where the log ended when its node went down: nothing is
    missed. Until that has a leader again `position` raises LeaderNotAvailableError, and nothing is stored.

    **Threads.** A consumer belongs to one thread at a time; only `wakeup` may be called from others. A call
    while another thread is in one raises ConcurrentUseError, `close` too: `wakeup`, and close it when the
    call has returned. A fork of the process cannot use it: ClosedError. One that is dropped and was not
    closed ends by itself, with a ResourceWarning: it leaves its group and stores nothing more.

    **Signals.** Ctrl-C works in every call. What a signal handler raises in one ends that call and no more:
    what was taken for it is there for the next, and is not committed; a `seek` or `pause` was made, or not.
    Only within a deserializer an Exception that a handler raises counts as the deserializer's own.
    A handler may call `wakeup` and `close` at any time: in the middle of a call `close` is put off until that
    ends, and what the call hands over is not stored. Other calls it may make while its thread waits for
    records, or is in no call; in the middle of one they raise ConcurrentUseError, and change nothing.

    Options: `client_id` names the consumer in logs and errors. Deserializers are "json", "str", "msgpack",
    or functions that get bytes and give what `key` and `value` are to be; a null stays None. "pickle" runs
    what it reads: name it only where you trust everybody who can write to the topic.

    `on_error` says what becomes of a record that does not deserialize, and of a batch that is malformed
    though its checksum holds: "raise", "skip" (logged and counted), or "dlq:<topic>": written there with its
    own bytes and the reason in headers (`tailrace.error`, `.topic`, `.partition`, `.offset`, `.timestamp`)
    before the position passes it. What is damaged (a wrong checksum) always raises, as do dead letters
    that are read with the same option.

    A fetch waits up to `fetch_max_wait_ms` at a node for `fetch_min_bytes`, and brings up to
    `fetch_max_bytes`, `max_partition_fetch_bytes` of each partition (always at least one batch).
    `max_poll_records` bounds one `poll`. `request_timeout_ms` is the time for connecting and for calls
    without a time-out of their own. Iteration ends when nothing comes for `consumer_timeout_ms` (None:
    never). `check_crcs` verifies each batch's checksum.

    Raises InvalidArgumentError (unknown options with a did-you-mean), ConnectionFailedError with each
    address and why it failed, UnknownTopicError with similar names, DataFolderError for an offset
    store that is in use. Names are kafka-python's where they mean the same, defaults not always:
    docs/options.md has all of them, and the bounds.
    """

    _open: Callable[..., Engine] = Engine
    """Makes the engine."""

    def __init__(
        self,
        *topics: str,
        bootstrap_servers: str | Sequence[str] = "127.0.0.1:7070",
        group_id: str | None = None,
        group_instance_id: str | None = None,
        session_timeout_ms: int = 6_000,
        max_poll_interval_ms: int | None = None,
        partition_assignment_strategy: Strategy = "uniform",
        client_id: str | None = None,
        auto_offset_reset: Reset = "latest",
        enable_auto_commit: bool = True,
        auto_commit_interval_ms: int = 1_000,
        offset_store: str | Path | None = None,
        key_deserializer: str | Deserializer | None = None,
        value_deserializer: str | Deserializer | None = None,
        fetch_min_bytes: int = 1,
        fetch_max_wait_ms: int = 500,
        fetch_max_bytes: int = 50 * MIB,
        max_partition_fetch_bytes: int = FETCH_SLOT_BYTES_MAX,
        max_poll_records: int = 500,
        request_timeout_ms: int = 30_000,
        consumer_timeout_ms: float | None = None,
        check_crcs: bool = True,
        on_error: str = "raise",
        **unknown: object,
    ) -> None:
        reject_unknown("Consumer", unknown, OPTIONS)
        config = ConsumerConfig(
            bootstrap_servers=bootstrap_servers,
            group_id=group_id,
            group_instance_id=group_instance_id,
            session_timeout_ms=session_timeout_ms,
            max_poll_interval_ms=max_poll_interval_ms,
            partition_assignment_strategy=partition_assignment_strategy,
            client_id=client_id,
            auto_offset_reset=auto_offset_reset,
            enable_auto_commit=enable_auto_commit,
            auto_commit_interval_ms=auto_commit_interval_ms,
            offset_store=offset_store,
            key_deserializer=key_deserializer,
            value_deserializer=value_deserializer,
            fetch_min_bytes=fetch_min_bytes,
            fetch_max_wait_ms=fetch_max_wait_ms,
            fetch_max_bytes=fetch_max_bytes,
            max_partition_fetch_bytes=max_partition_fetch_bytes,
            max_poll_records=max_poll_records,
            request_timeout_ms=request_timeout_ms,
            consumer_timeout_ms=consumer_timeout_ms,
            check_crcs=check_crcs,
            on_error=on_error,
        )
        wanted = topics_of(topics)
        self._session = Session(config, self._open)
        if wanted:
            try:
                self._session.subscribe(wanted, None, None, self._session.engine.request_timeout_s)
            except BaseException:
                self._session.close(failed=True)
                raise

    # ----------------------------------------------------------------- reading

    def __iter__(self) -> Iterator[Record[Any, Any]]:
        """Record by record. Ends after `wakeup` or `consumer_timeout_ms`; can be begun again any time.

        Raises CorruptBatchError, SerializationError, OffsetOutOfRangeError and UnknownTopicError (the
        topic was deleted), naming partition and offset, when it is the partition's turn; the position
        stays before what cannot be read. `seek` or `pause` ends that, or an assignment without it.
        """
        return self._session.asking.records(self)

    def poll(
        self, timeout_ms: float | None = 0, max_records: int | None = None, **unknown: object
    ) -> dict[TopicPartition, list[Record[Any, Any]]]:
        """What is there, up to `max_records` (default: `max_poll_records`), by partition, in order.

        Waits up to `timeout_ms` (None: for ever) for the first record; empty when none came, or after
        `wakeup`. A loop that never waits (0, the default) keeps the interpreter from the thread that fetches:
        records are there many milliseconds later than with a time-out. Raises like iteration.
        """
        if unknown:
            reject_habits("poll", unknown)
        limit = self._session.config.max_poll_records
        if max_records is not None:
            limit = check_int("max_records", max_records, 1, MAX_POLL_RECORDS_MAX)
        take = partial(self._session.hand_over.records, limit)
        return self._session.asking.next(take, timeout_of(timeout_ms)) or {}

    def batches(self, timeout_ms: float | None = None) -> Iterator[ColumnBatch]:
        """Batch by batch, as they were produced, as columns: the fastest way.

        The first batch of a partition is cut to the position. Ends when none came for `timeout_ms`
        (None: `consumer_timeout_ms`), or after `wakeup`. Raises like iteration, but for deserializers, which
        raise when the batch's `keys` or `values` are used.
        """
        return iter(partial(self._next_batch, self._session.config.wait_s(timeout_ms)), None)

    def wakeup(self) -> None:
        """From any thread: end the loop before its next record, or have the next call return with nothing."""
        self._session.wakeup()

    # -------------------------------------------------------------- assignment

    @in_one_thread
    def subscribe(
        self,
        /,
        topics: str | Iterable[str] | None = None,
        *,
        pattern: str | re.Pattern[str] | None = None,
        listener: RebalanceListener | None = None,
        timeout_ms: float | None = None,
        **unknown: object,
    ) -> None:
        """Read these topics, or all whose whole name `pattern` matches (re.fullmatch), and no others.

        All their partitions; with `group_id` those that the group gives this consumer, of which
        `listener` is told. Partitions that stay keep their positions. Topics that come later and match
        are read by themselves. A partition that is added later is read from its beginning. Raises
        UnknownTopicError with similar names, DataFolderError if another consumer holds one of the
        partitions in the offset store, InstanceIdInUseError, and what looking up the first offsets
        raises; then everything is as before.
        """
        reject_habits("subscribe", unknown)
        matching = pattern_of(pattern)
        if topics is not None and matching is not None:
            raise InvalidArgumentError("subscribe() takes either topics or a pattern")
        wanted = [] if matching is not None else topics_of(topics)
        told = listener_of(listener)
        self._session.asking.ask()
        self._session.subscribe(wanted, matching, told, self._timeout_s(timeout_ms))

    def subscription(self) -> set[str]:
        """The subscribed topics; empty after `assign`."""
        self._session.check()
        return set(self._session.topics)

    @in_one_thread
    def unsubscribe(self) -> None:
        """Read nothing, after what auto-commit has to store. A member leaves its group."""
        self._session.asking.ask()
        self._session.leave(self._session.engine.request_timeout_s)
        self._session.assignment.clear()

    @in_one_thread
    def assign(self, partitions: Iterable[TopicPartition], timeout_ms: float | None = None) -> None:
        """Read these partitions, and no others; those that stay keep their positions.

        Raises like `subscribe`, and UnknownPartitionError.
        """
        wanted = partitions_of(partitions)
        self._session.asking.ask()
        self._session.assign(wanted, self._timeout_s(timeout_ms))

    @in_one_thread
    def pause(self, *partitions: TopicPartition) -> None:
        """Hand over nothing of these partitions until `resume`; their positions stay."""
        self._session.asking.interfere()
        for partition in [self._assigned(partition) for partition in partitions]:
            self._session.pause(partition)

    @in_one_thread
    def resume(self, *partitions: TopicPartition) -> None:
        """End a `pause`."""
        self._session.asking.interfere()
        for partition in [self._assigned(partition) for partition in partitions]:
            self._session.resume(partition)

    def paused(self) -> set[TopicPartition]:
        """The partitions that are paused."""
        self._session.check()
        partitions = self._session.assignment.partitions
        return {name for name, partition in partitions.items() if partition.paused}

    # --------------------------------------------------------------------- state

    @in_one_thread
    def metrics(self) -> dict[str, Any]:
        """Counts since the start, what is buffered, and each partition's position and lag as last heard."""
        self._session.check()
        self._session.hand_over.note_progress()
        return metrics_of(self._session)

    # --------------------------------------------------------------------- end

    def close(self) -> None:
        """Store what auto-commit has to store, everything handed over included; stop. May be repeated.

        It waits for commits that are on their way, within `request_timeout_ms`.
        Raises StorageFullError, StorageFaultError if offsets could not be stored; it is closed then, too.
        """
        self._session.close(failed=False)

    def __del__(self) -> None:
        """Forgotten: the I/O thread leaves the group, then ends."""
        session = getattr(self, "_session", None)
        if session is not None:
            session.forget()

    def __repr__(self) -> str:
        return repr(self._session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self._session.close(failed=True)
        except TailraceError as store_error:
            error.add_note(f"and offsets were not stored when the consumer was closed: {store_error}")

    def _next_batch(self, timeout_s: float | None) -> ColumnBatch | None:
        return self._session.asking.next(self._session.hand_over.columns, timeout_s)
