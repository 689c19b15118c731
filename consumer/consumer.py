"""The public face of reading: `tailrace.Consumer`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tailrace.client.arguments import check_int, items_of, partition_of, timeout_of
from tailrace.client.descriptions import OffsetAndTimestamp
from tailrace.client.offsets import list_offsets
from tailrace.client.options import reject_unknown
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.limits import MAX_POLL_RECORDS_MAX, MIB
from tailrace.protocol.messages import EARLIEST, LATEST
from tailrace.protocol.record import Record, TopicPartition

from .arguments import offset_of, partitions_of, reject_habits, timestamp_of, topic_of, topics_of
from .assigned import AssignedPartition, Reset
from .column_batch import ColumnBatch
from .config import OPTIONS, ConsumerConfig
from .decoding import Deserializer
from .metrics import metrics_of
from .one_thread import OneThread, in_one_thread
from .session import Session


class Consumer:
    """Reads topics from the cluster at `bootstrap_servers`, in the order of each partition.

        with Consumer("orders", auto_offset_reset="earliest") as consumer:
            for record in consumer:
                print(record.offset, record.key, record.value)

    It connects, and subscribes to `topics`, before the constructor returns. Iterate, or `poll`, or take
    whole `batches`; the three can be mixed. All partitions of the subscribed topics are read, also those
    that are added later; consumer groups are not there yet.

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

    **Where reading starts.** At the stored offset; if there is none, or the log does not reach to it any
    more, `auto_offset_reset` decides: "latest", "earliest", or "none" (OffsetOutOfRangeError). When
    `subscribe` and `assign` return, positions are known: what is sent afterwards is not missed. Partitions
    whose node is down do not hold up the others: a warning names them, and they are read when it is back,
    from the stored offset or, if the log does not reach to it, the first record. Only where reading is to
    start at the end ("latest", nothing stored) it must be asked for first, and so is waited for.

    **Threads.** A consumer belongs to one thread at a time; only `wakeup` may be called from others. A call
    while another thread is in one raises ConcurrentUseError, `close` too: `wakeup`, and close it when the
    call has returned. Ctrl-C works in every call. A fork of the process cannot use it: ClosedError.

    Options: `client_id` names the consumer in logs and errors. Deserializers get bytes and give what
    `key` and `value` are to be; a null stays None. A fetch waits up to `fetch_max_wait_ms` at a node
    for `fetch_min_bytes`, and brings up to `fetch_max_bytes`, `max_partition_fetch_bytes` of each
    partition (always at least one batch). `max_poll_records` bounds one `poll`. `request_timeout_ms`
    is the time for connecting and for calls without a time-out of their own. Iteration ends when
    nothing comes for `consumer_timeout_ms` (None: never). `check_crcs` verifies each batch's checksum.

    Raises InvalidArgumentError (unknown options with a did-you-mean), ConnectionFailedError with each
    address and why it failed, UnknownTopicError with similar names, DataFolderError for an offset
    store that is in use. Names and defaults are kafka-python's where they mean the same.
    """

    def __init__(
        self,
        *topics: str,
        bootstrap_servers: str | Sequence[str] = "127.0.0.1:7070",
        group_id: str | None = None,
        client_id: str | None = None,
        auto_offset_reset: Reset = "latest",
        enable_auto_commit: bool = True,
        auto_commit_interval_ms: int = 1_000,
        offset_store: str | Path | None = None,
        key_deserializer: Deserializer | None = None,
        value_deserializer: Deserializer | None = None,
        fetch_min_bytes: int = 1,
        fetch_max_wait_ms: int = 500,
        fetch_max_bytes: int = 50 * MIB,
        max_partition_fetch_bytes: int = MIB,
        max_poll_records: int = 500,
        request_timeout_ms: int = 30_000,
        consumer_timeout_ms: float | None = None,
        check_crcs: bool = True,
        **unknown: object,
    ) -> None:
        reject_unknown("Consumer", unknown, OPTIONS)
        config = ConsumerConfig(
            bootstrap_servers=bootstrap_servers,
            group_id=group_id,
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
        )
        wanted = topics_of(topics)
        self._session = Session(config)
        if wanted:
            try:
                self._session.assignment.subscribe(wanted, self._session.engine.request_timeout_s)
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
        return self._session.records()

    def poll(
        self, timeout_ms: float | None = 0, max_records: int | None = None, **unknown: object
    ) -> dict[TopicPartition, list[Record[Any, Any]]]:
        """What is there, up to `max_records` (default: `max_poll_records`), by partition, in order.

        Waits up to `timeout_ms` (None: for ever) for the first record; empty when none came, or after
        `wakeup`. Raises like iteration.
        """
        if unknown:
            reject_habits("poll", unknown)
        limit = self._session.config.max_poll_records
        if max_records is not None:
            limit = check_int("max_records", max_records, 1, MAX_POLL_RECORDS_MAX)
        take = partial(self._session.hand_over.records, limit)
        return self._session.next(take, timeout_of(timeout_ms)) or {}

    def batches(self, timeout_ms: float | None = None) -> Iterator[ColumnBatch]:
        """Batch by batch, as they were produced, as columns: the fastest way.

        The first batch of a partition is cut to the position. Ends when none came for `timeout_ms`
        (None: never), or after `wakeup`. Raises like iteration, but for deserializers, which raise when
        the batch's `keys` or `values` are used.
        """
        timeout_s = timeout_of(timeout_ms)
        return iter(partial(self._session.next, self._session.hand_over.columns, timeout_s), None)

    def wakeup(self) -> None:
        """From any thread: have the call that is waiting for records, or the next one, return at once."""
        self._session.wakeup()

    # -------------------------------------------------------------- assignment

    @in_one_thread
    def subscribe(
        self, /, topics: str | Iterable[str] | None = None, timeout_ms: float | None = None, **unknown: object
    ) -> None:
        """Read all partitions of these topics, and no others; partitions that stay keep their positions.

        A partition that is added later is read from its beginning. Raises UnknownTopicError with similar
        names, DataFolderError if another consumer holds one of the partitions in the offset store,
        and what looking up the first offsets raises; then everything is as before.
        """
        reject_habits("subscribe", unknown)
        wanted = topics_of(topics)
        self._session.ask()
        self._session.assignment.subscribe(wanted, self._timeout_s(timeout_ms))

    def subscription(self) -> set[str]:
        """The subscribed topics; empty after `assign`."""
        self._session.check()
        return set(self._session.assignment.topics)

    @in_one_thread
    def unsubscribe(self) -> None:
        """Read nothing, after what auto-commit has to store."""
        self._session.ask()
        self._session.assignment.clear()

    @in_one_thread
    def assign(self, partitions: Iterable[TopicPartition], timeout_ms: float | None = None) -> None:
        """Read these partitions, and no others; those that stay keep their positions.

        Raises like `subscribe`, and UnknownPartitionError.
        """
        wanted = partitions_of(partitions)
        self._session.ask()
        self._session.assignment.assign(wanted, self._timeout_s(timeout_ms))

    def assignment(self) -> set[TopicPartition]:
        """The partitions that are read."""
        self._session.check()
        return set(self._session.assignment.partitions)

    @in_one_thread
    def pause(self, *partitions: TopicPartition) -> None:
        """Hand over nothing of these partitions until `resume`; their positions stay."""
        self._session.interfere()
        for partition in [self._assigned(partition) for partition in partitions]:
            self._session.pause(partition)

    @in_one_thread
    def resume(self, *partitions: TopicPartition) -> None:
        """End a `pause`."""
        self._session.interfere()
        for partition in [self._assigned(partition) for partition in partitions]:
            self._session.resume(partition)

    def paused(self) -> set[TopicPartition]:
        """The partitions that are paused."""
        self._session.check()
        partitions = self._session.assignment.partitions
        return {name for name, partition in partitions.items() if partition.paused}

    # --------------------------------------------------------------- positions

    @in_one_thread
    def position(self, partition: TopicPartition) -> int:
        """The offset of the next record to be handed over.

        Raises OffsetOutOfRangeError where reading cannot start (no offset stored, reset "none").
        """
        self._session.check()
        self._session.hand_over.note_progress()
        assigned = self._assigned(partition)
        if assigned.position < 0 and assigned.failure is not None:
            raise assigned.failure
        return assigned.position

    @in_one_thread
    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at `offset`. If the log does not hold it, `auto_offset_reset` decides at the next fetch."""
        offset = offset_of(offset)
        self._session.interfere()
        self._session.seek(self._assigned(partition), offset)

    @in_one_thread
    def seek_to_beginning(self, *partitions: TopicPartition, timeout_ms: float | None = None) -> None:
        """Go on at the first record that is still there, of these partitions or of all that are assigned."""
        self._seek_to(EARLIEST, partitions, timeout_ms)

    @in_one_thread
    def seek_to_end(self, *partitions: TopicPartition, timeout_ms: float | None = None) -> None:
        """Go on after the last record. Looked up at once: what is sent after this returned is not missed."""
        self._seek_to(LATEST, partitions, timeout_ms)

    @in_one_thread
    def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        """Store positions, or the given offsets (of the next record to read); durable on return.

        Without `offsets` that covers everything handed over, the record in hand included. Raises
        InvalidArgumentError without an offset store, StorageFullError, StorageFaultError.
        """
        if offsets is None:
            self._session.commit()
            return
        chosen = {
            partition_of(partition): offset_of(offset) for partition, offset in items_of("offsets", offsets)
        }
        self._session.check()
        self._session.commits.check()
        for name, assigned in [(name, self._assigned(name)) for name in chosen]:
            self._session.commits.store(assigned, chosen[name], -1)

    @in_one_thread
    def committed(self, partition: TopicPartition) -> int | None:
        """The stored offset of an assigned partition, None if nothing was stored yet."""
        self._session.check()
        self._session.commits.check()
        stored = self._session.commits.stored(self._assigned(partition).key)
        return None if stored is None else stored.offset

    # ------------------------------------------------------------- the cluster

    def beginning_offsets(
        self, partitions: Iterable[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        """The first offset that each partition still holds. The partitions need not be assigned."""
        return self._ends(EARLIEST, partitions_of(partitions), timeout_ms)

    def end_offsets(
        self, partitions: Iterable[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        """The offset that each partition's next record to be read will have (its high watermark)."""
        return self._ends(LATEST, partitions_of(partitions), timeout_ms)

    def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int], timeout_ms: float | None = None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """Each partition's first record at or after a time (ms since 1970); None if there is none."""
        pairs = items_of("timestamps", timestamps)
        wanted = {partition_of(partition): timestamp_of(time) for partition, time in pairs}
        self._session.check()
        found = list_offsets(self._session.engine, wanted, self._timeout_s(timeout_ms)) if wanted else {}
        return {partition: None if at.offset < 0 else at for partition, at in found.items()}

    @in_one_thread
    def lag(self, timeout_ms: float | None = None) -> dict[TopicPartition, int]:
        """How many offsets each assigned partition's position is behind its end, which is looked up."""
        positions = {partition: self.position(partition) for partition in self.assignment()}
        ends = self._ends(LATEST, list(positions), timeout_ms)
        return {partition: max(0, end - positions[partition]) for partition, end in ends.items()}

    def partitions_for_topic(self, topic: str, timeout_ms: float | None = None) -> set[int]:
        """The numbers of a topic's partitions. Raises UnknownTopicError with similar names."""
        name = topic_of(topic)
        self._session.check()
        info = self._session.engine.wait_for_topic(name, self._timeout_s(timeout_ms))
        return set(range(len(info.partitions)))

    def topics(self, timeout_ms: float | None = None) -> set[str]:
        """The names of all topics of the cluster, asked for now."""
        timeout_s = self._timeout_s(timeout_ms)
        self._session.check()
        return set(self._session.engine.refresh(timeout_s).topic_ids)

    @in_one_thread
    def metrics(self) -> dict[str, Any]:
        """Counts since the start, what is buffered, and each partition's position and lag as last heard."""
        self._session.check()
        self._session.hand_over.note_progress()
        return metrics_of(self._session)

    # --------------------------------------------------------------------- end

    def close(self) -> None:
        """Store what auto-commit has to store, everything handed over included; stop. May be repeated.

        Raises StorageFullError, StorageFaultError if offsets could not be stored; it is closed then, too.
        """
        self._session.close(failed=False)

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

    # ------------------------------------------------------------------ inside

    @property
    def _one_thread(self) -> OneThread:
        return self._session.one_thread

    def _assigned(self, partition: TopicPartition) -> AssignedPartition:
        return self._session.assignment.find(partition_of(partition))

    def _timeout_s(self, timeout_ms: float | None) -> float:
        timeout_s = timeout_of(timeout_ms)
        return self._session.engine.request_timeout_s if timeout_s is None else timeout_s

    def _ends(
        self, which: int, partitions: Sequence[TopicPartition], timeout_ms: float | None
    ) -> dict[TopicPartition, int]:
        self._session.check()
        if not partitions:
            return {}
        ends = list_offsets(
            self._session.engine, dict.fromkeys(partitions, which), self._timeout_s(timeout_ms)
        )
        return {partition: end.offset for partition, end in ends.items()}

    def _seek_to(self, which: int, partitions: Sequence[TopicPartition], timeout_ms: float | None) -> None:
        self._session.interfere()
        names = partitions_of(partitions) or list(self._session.assignment.partitions)
        assigned = {name: self._assigned(name) for name in names}
        for name, offset in self._ends(which, names, timeout_ms).items():
            self._session.seek(assigned[name], offset)
