"""Positions and offsets of a consumer, and what it can ask of the cluster: a part of `Consumer`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from tailrace.client.arguments import check_callable, items_of, partition_of, timeout_of
from tailrace.client.descriptions import OffsetAndMetadata, OffsetAndTimestamp
from tailrace.client.offsets import list_offsets
from tailrace.protocol.errors import TailraceError, UnknownPartitionError
from tailrace.protocol.messages import EARLIEST, LATEST
from tailrace.protocol.record import TopicPartition

from .arguments import commit_of, offset_of, partitions_of, timestamp_of, topic_of
from .assigned import NO_POSITION, AssignedPartition, Key
from .local.transaction import LocalTransaction
from .local_transactions import local_transaction
from .look_up import no_end_yet
from .one_thread import OneThread, in_one_thread, not_within
from .session import Session
from .stored_offset import StoredOffset


class Positions:
    """Where the consumer is in each partition, and what is stored of that."""

    _session: Session

    def assignment(self) -> set[TopicPartition]:
        """The partitions that are read."""
        self._session.check()
        return set(self._session.assignment.partitions)

    # --------------------------------------------------------------- positions

    @in_one_thread
    def position(self, partition: TopicPartition) -> int:
        """The offset of the next record to be handed over.

        Raises OffsetOutOfRangeError where reading cannot start (no offset stored, reset "none"), and
        LeaderNotAvailableError where it starts at the end once there is a leader to tell where that is.
        """
        return self._position(partition)

    @in_one_thread
    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at `offset`. If the log does not hold it, `auto_offset_reset` decides at the next fetch."""
        offset = offset_of(offset)
        self._session.asking.interfere()
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
    def commit(self, offsets: Mapping[TopicPartition, int | OffsetAndMetadata] | None = None) -> None:
        """Store positions, or the given offsets (of the next record to read); durable on return.

        Without `offsets` that covers everything handed over, the record in hand included. What is given
        is not compared with the log, as in Kafka: who goes on from an offset that is not in it goes where
        `auto_offset_reset` says, with a warning. Raises
        InvalidArgumentError when there is nowhere to store, StorageFullError, StorageFaultError; in a
        group FencedMemberError or UnknownMemberError for a partition that is another member's by now,
        GroupNotEmptyError with `assign` while the group has members, TimedOutError without a coordinator.
        """
        self._session.asking.check_no_transaction()
        if offsets is None:
            self._session.commit()
            return
        self._session.check()
        self._session.commits.check()
        self._session.commits.write(self._chosen(offsets))

    @in_one_thread
    def commit_async(
        self,
        offsets: Mapping[TopicPartition, int | OffsetAndMetadata] | None = None,
        callback: Callable[[TailraceError | None], None] | None = None,
    ) -> None:
        """As `commit`, without waiting for the coordinator, and without a second attempt.

        `callback` gets None, or the error; it is called once, in the I/O thread, and must be quick. `close`
        waits for it. A local offset store is written at once. Without a callback errors are logged.
        """
        self._session.check()
        self._session.asking.check_no_transaction()
        self._session.commits.check()
        if callback is not None:
            check_callable(callback)
        chosen = self._session.settled() if offsets is None else self._chosen(offsets)
        self._session.commit_later(chosen, callback)

    @in_one_thread
    def committed(self, partition: TopicPartition, timeout_ms: float | None = None) -> int | None:
        """The stored offset, None if nothing was stored yet. In a local store: of an assigned partition."""
        stored = self._committed(partition, timeout_ms)
        return None if stored is None else stored.offset

    @in_one_thread
    def committed_metadata(
        self, partition: TopicPartition, timeout_ms: float | None = None
    ) -> OffsetAndMetadata | None:
        """As `committed`, with what was stored beside the offset."""
        stored = self._committed(partition, timeout_ms)
        return (
            None if stored is None else OffsetAndMetadata(stored.offset, stored.metadata, stored.leader_epoch)
        )

    def local_transaction(
        self, partition: TopicPartition | None = None
    ) -> AbstractContextManager[LocalTransaction]:
        """Change keys of the application's own, and store a partition's position together with them.

            for record in consumer:
                with consumer.local_transaction() as transaction:
                    count = int(transaction.get(record.key) or 0)
                    transaction.put(record.key, str(count + 1).encode())

        The keys lie in `offset_store`, each partition's apart, and go with it to whoever reads it next.
        What the block has changed, and the position (everything handed over of the partition, the record
        in hand included), are stored by one LMDB transaction when the block is left, durable then. An
        exception takes it all back: those records are read again, and keys are as before. So each record
        counts once in these keys, whatever is killed when. Write less often by asking for more at once:
        `poll` or `batches`, and one transaction for the records of each partition.

        `partition` is the one whose records are in hand, if there is only one. Nothing may be read, sought
        or committed within the block. With auto-commit, records handled without a transaction count as
        done when more is asked for, as ever. Raises InvalidArgumentError, StorageFullError,
        StorageFaultError. `tailrace.read_local_state` reads the keys of a folder.
        """
        self._session.check()
        return local_transaction(self._session, None if partition is None else partition_of(partition))

    # ------------------------------------------------------------- the cluster

    @not_within
    def beginning_offsets(
        self, partitions: Iterable[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        """The first offset that each partition still holds. The partitions need not be assigned."""
        return self._ends(EARLIEST, partitions_of(partitions), timeout_ms)

    @not_within
    def end_offsets(
        self, partitions: Iterable[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        """The offset that each partition's next record to be read will have (its high watermark)."""
        return self._ends(LATEST, partitions_of(partitions), timeout_ms)

    @not_within
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
        positions = {partition: self._position(partition) for partition in self.assignment()}
        ends = self._ends(LATEST, list(positions), timeout_ms)
        return {partition: max(0, end - positions[partition]) for partition, end in ends.items()}

    @not_within
    def partitions_for_topic(self, topic: str, timeout_ms: float | None = None) -> set[int]:
        """The numbers of a topic's partitions. Raises UnknownTopicError with similar names."""
        name = topic_of(topic)
        self._session.check()
        info = self._session.engine.wait_for_topic(name, self._timeout_s(timeout_ms))
        return set(range(len(info.partitions)))

    @not_within
    def topics(self, timeout_ms: float | None = None) -> set[str]:
        """The names of all topics of the cluster, asked for now."""
        timeout_s = self._timeout_s(timeout_ms)
        self._session.check()
        return set(self._session.engine.refresh(timeout_s).topic_ids)

    # ------------------------------------------------------------------ inside

    @property
    def _one_thread(self) -> OneThread:
        return self._session.one_thread

    def _position(self, partition: TopicPartition) -> int:
        self._session.check()
        self._session.hand_over.note_progress()
        assigned = self._assigned(partition)
        position = assigned.position
        if position == NO_POSITION:
            raise assigned.failure or no_end_yet(self._session.engine, assigned.name)
        return position

    def _committed(self, partition: TopicPartition, timeout_ms: float | None) -> StoredOffset | None:
        self._session.check()
        self._session.commits.check()
        name = partition_of(partition)
        return self._session.commits.ask(name, self._key(name)[0], self._timeout_s(timeout_ms))

    def _assigned(self, partition: TopicPartition) -> AssignedPartition:
        return self._session.assignment.find(partition_of(partition))

    def _key(self, name: TopicPartition) -> Key:
        """Topic id and number; a local store has those that are assigned."""
        if self._session.local_store is not None or name in self._session.assignment.partitions:
            return self._assigned(name).key
        topic = self._session.engine.wait_for_topic(name.topic, self._session.engine.request_timeout_s)
        if name.partition >= len(topic.partitions):
            raise UnknownPartitionError(
                f"topic {name.topic!r} has {len(topic.partitions)} partitions: there is no {name.partition}"
            )
        return topic.topic_id, name.partition

    def _chosen(self, offsets: Mapping[TopicPartition, int | OffsetAndMetadata]) -> dict[Key, StoredOffset]:
        chosen = {partition_of(name): commit_of(offset) for name, offset in items_of("offsets", offsets)}
        return {
            self._key(name): self._session.commits.stored_offset(
                name.topic, at.offset, at.leader_epoch, at.metadata
            )
            for name, at in chosen.items()
        }

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
        self._session.asking.interfere()
        names = partitions_of(partitions) or list(self._session.assignment.partitions)
        assigned = {name: self._assigned(name) for name in names}
        for name, offset in self._ends(which, names, timeout_ms).items():
            self._session.seek(assigned[name], offset)
