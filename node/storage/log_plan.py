"""What a group commit adds to one log: new batches of a leader, or a follower's copies of its leader's."""

from typing import NamedTuple

from tailrace.protocol.batch import BatchHeader, base_offset_of
from tailrace.protocol.errors import CorruptBatchError, FencedLeaderEpochError, OffsetOutOfRangeError

from . import epochs
from .partition_log import LAST_BATCH_BYTES_MAX, LastBatch, PartitionLog
from .producers import after_append
from .schema import PartitionRow, ProducerRow


class Append(NamedTuple):
    """One batch to append. `batch` is writable: base offset and leader epoch are stamped into it.

    `now_ms` is the node's clock when the batch arrived. `shared`: the client can still write to the batch, so
    that only `header`, and what is stored in the end, can be trusted.
    """

    log: PartitionLog
    batch: memoryview
    header: BatchHeader
    now_ms: int
    shared: bool = False


class Replicated(NamedTuple):
    """One batch as the partition's leader has it, to be stored byte for byte; `header` is the batch's.

    `now_ms` is this node's clock.
    """

    log: PartitionLog
    batch: memoryview
    header: BatchHeader
    now_ms: int


class Appended(NamedTuple):
    """Where a batch is stored. `duplicate`: it was already, and nothing was written."""

    base_offset: int
    last_offset: int
    duplicate: bool


class LogPlan:
    """What a group adds to one log."""

    __slots__ = ("batches", "epochs", "follows", "index", "log", "max_timestamp", "next_offset",
                 "producers", "shared", "size_bytes", "stamps")  # fmt: skip

    def __init__(self, log: PartitionLog) -> None:
        self.log = log
        self.next_offset = log.log_end_offset
        self.max_timestamp = log.max_timestamp
        self.size_bytes = log.size_bytes
        self.epochs = log.epochs
        self.follows = False
        """Are there copies of a leader's batches?"""
        self.batches: list[tuple[int, memoryview]] = []
        """(last offset, batch), in order."""
        self.stamps: list[tuple[memoryview, int, int]] = []
        """(batch, base offset, leader epoch) of those that get them here."""
        self.shared: list[tuple[int, BatchHeader]] = []
        """(last offset, header) of the batches that are to be checked once they are stored."""
        self.index: list[tuple[int, int]] = []
        """(max timestamp, last offset) of the batches that raise the running maximum."""
        self.producers: dict[int, ProducerRow] = {}

    def add(self, batch: memoryview, header: BatchHeader, *, shared: bool) -> int:
        """Put a new batch behind the others; its last offset."""
        base_offset, leader_epoch = self.next_offset, epochs.latest(self.epochs)
        self.stamps.append((batch, base_offset, leader_epoch))
        last_offset = self._put(batch, header)
        if shared:
            placed = header._replace(base_offset=base_offset, leader_epoch=leader_epoch)
            self.shared.append((last_offset, placed))
        return last_offset

    def refuse_stranger(self, header: BatchHeader) -> None:
        """Raises an error unless a copy with this header continues the log.

        OffsetOutOfRangeError: it does not start where the log ends. FencedLeaderEpochError: its leader
        epoch is below that of the batch before it. CorruptBatchError: it has none.
        """
        if header.base_offset != self.next_offset:
            raise OffsetOutOfRangeError(
                f"a copy at offset {header.base_offset} for partition {self.log.name},"
                f" which ends at {self.next_offset}"
            )
        if header.leader_epoch < 0:
            raise CorruptBatchError(f"a copy for partition {self.log.name} has no leader epoch")
        if self._epochs_with(header) is None:
            raise FencedLeaderEpochError(
                f"a copy of leader epoch {header.leader_epoch} for partition {self.log.name},"
                f" which is at {epochs.latest(epochs.before(self.epochs, self.next_offset))}"
            )

    def copy(self, batch: memoryview, header: BatchHeader, producer: ProducerRow | None, now_ms: int) -> int:
        """Put a copy, which `refuse_stranger` let pass, behind the others; its last offset."""
        self.epochs = self._epochs_with(header) or self.epochs
        self.follows = True
        if header.producer_id >= 0:
            if producer is not None and producer.next_sequence != header.base_sequence:
                # The leader had forgotten this producer id in between, and its clock is not ours.
                producer = None
            self.producers[header.producer_id] = after_append(producer, header, header.base_offset, now_ms)
        return self._put(batch, header)

    def _epochs_with(self, header: BatchHeader) -> epochs.Epochs | None:
        empty = not self.batches and self.log.log_start_offset == self.log.log_end_offset
        return epochs.following(self.epochs, header.leader_epoch, self.next_offset, empty=empty)

    def _put(self, batch: memoryview, header: BatchHeader) -> int:
        last_offset = self.next_offset + header.last_offset_delta
        self.batches.append((last_offset, batch))
        self.next_offset = last_offset + 1
        self.size_bytes += len(batch)
        if header.max_timestamp > self.max_timestamp:
            self.max_timestamp = header.max_timestamp
            self.index.append((header.max_timestamp, last_offset))
        return last_offset

    def last_batch(self) -> LastBatch | None:
        """The last batch once the plan is carried out, unless it is large, or others can write to it."""
        last_offset, batch = self.batches[-1]
        if self.shared or len(batch) > LAST_BATCH_BYTES_MAX:
            return None
        stored = bytes(batch)
        return LastBatch(base_offset_of(stored), last_offset, stored)

    def row(self) -> PartitionRow:
        """The partition's row once the plan is carried out."""
        log = self.log
        return PartitionRow(
            topic_id=log.topic_id,
            partition=log.partition,
            flags=0,
            log_start_offset=log.log_start_offset,
            log_end_offset=self.next_offset,
            high_watermark=self.next_offset if log.sole_replica and not self.follows else log.high_watermark,
            leader_epoch=epochs.latest(self.epochs),
            max_timestamp=self.max_timestamp,
            size_bytes=self.size_bytes,
        )
