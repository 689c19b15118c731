"""The pure half of a group commit: decides what becomes of each batch before anything is written.

A plan is made against the logs' committed state and an overlay of what the same group did so
far, so that a duplicate of a batch earlier in the group is recognised. Nothing here touches a
log, a file or a clock; a plan that is not carried out leaves no trace.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tailrace.protocol.batch import BatchHeader, check_crc
from tailrace.protocol.errors import (
    CorruptBatchError,
    InvalidRecordError,
    InvalidTimestampError,
    OutOfOrderSequenceError,
    StorageFullError,
    TailraceError,
    UnknownPartitionError,
    UnknownProducerIdError,
)
from tailrace.protocol.limits import TIMESTAMP_AHEAD_MS_MAX

from .partition_log import PartitionLog
from .producers import after_append, original_offset
from .schema import PartitionRow, ProducerRow
from .space import stored_bytes

ProducerLookup = Callable[[PartitionLog, int], ProducerRow | None]
"""The committed row of a producer id in a partition."""

OFFSET_MAX: Final = 2**62


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


class Appended(NamedTuple):
    """Where a batch is stored. `duplicate`: it was already, and nothing was written."""

    base_offset: int
    last_offset: int
    duplicate: bool


class LogPlan:
    """What a group adds to one log."""

    __slots__ = ("base_offsets", "batches", "index", "log", "max_timestamp", "next_offset",
                 "producers", "shared", "size_bytes")  # fmt: skip

    def __init__(self, log: PartitionLog) -> None:
        self.log = log
        self.next_offset = log.log_end_offset
        self.max_timestamp = log.max_timestamp
        self.size_bytes = log.size_bytes
        self.batches: list[tuple[int, memoryview]] = []
        """(last offset, batch), in order."""
        self.base_offsets: list[int] = []
        self.shared: list[tuple[int, BatchHeader]] = []
        """(last offset, header) of the batches that are to be checked once they are stored."""
        self.index: list[tuple[int, int]] = []
        """(max timestamp, last offset) of the batches that raise the running maximum."""
        self.producers: dict[int, ProducerRow] = {}

    def add(self, batch: memoryview, header: BatchHeader, *, shared: bool) -> int:
        """Put a batch behind the others; its last offset."""
        last_offset = self.next_offset + header.last_offset_delta
        self.batches.append((last_offset, batch))
        self.base_offsets.append(self.next_offset)
        if shared:
            placed = header._replace(base_offset=self.next_offset, leader_epoch=self.log.leader_epoch)
            self.shared.append((last_offset, placed))
        self.next_offset = last_offset + 1
        self.size_bytes += len(batch)
        if header.max_timestamp > self.max_timestamp:
            self.max_timestamp = header.max_timestamp
            self.index.append((header.max_timestamp, last_offset))
        return last_offset

    def row(self) -> PartitionRow:
        """The partition's row once the plan is carried out."""
        log = self.log
        return log.row()._replace(
            log_end_offset=self.next_offset,
            high_watermark=self.next_offset if log.sole_replica else log.high_watermark,
            max_timestamp=self.max_timestamp,
            size_bytes=self.size_bytes,
        )


class Plan(NamedTuple):
    """`results` in the order of the appends; `logs` holds what is to be written."""

    results: list[Appended | TailraceError]
    logs: dict[int, LogPlan]


Blocked = dict[tuple[int, int], TailraceError]
"""(partition id, producer id) with a batch that was refused for a passing reason: what follows it in the
group is refused for the same, not for the gap in its sequence."""


class Planner:
    """Plans one group, or a part of one. `room_bytes` is what may still be stored."""

    def __init__(self, lookup: ProducerLookup, room_bytes: int, blocked: Blocked) -> None:
        self._lookup = lookup
        self._room_bytes = room_bytes
        self._blocked = blocked
        self._logs: dict[int, LogPlan] = {}

    def plan(self, appends: Sequence[Append]) -> Plan:
        """Decide on every append, in order; one that fails does not hinder the others."""
        results: list[Appended | TailraceError] = []
        for append in appends:
            try:
                results.append(self._place(append))
            except TailraceError as error:
                results.append(error)
        return Plan(results, {key: plan for key, plan in self._logs.items() if plan.batches})

    def _place(self, append: Append) -> Appended:
        log, batch, header, now_ms, shared = append
        if log.removed:
            raise UnknownPartitionError(f"partition {log.name} was removed")
        validate(header, now_ms)
        if not shared:
            check_crc(batch, header)
        plan = self._logs.get(log.partition_id)
        if plan is None:
            plan = self._logs[log.partition_id] = LogPlan(log)
        producer_id = header.producer_id
        producer = None
        if producer_id >= 0:
            producer = plan.producers.get(producer_id) or self._lookup(log, producer_id)
            original = self._original_offset(log, producer, header)
            if original is not None:
                return Appended(original, original + header.last_offset_delta, duplicate=True)
        self._take_room(plan, header, len(batch))
        base_offset = plan.next_offset
        last_offset = plan.add(batch, header, shared=shared)
        if producer_id >= 0:
            plan.producers[producer_id] = after_append(producer, header, base_offset, now_ms)
        return Appended(base_offset, last_offset, duplicate=False)

    def _original_offset(
        self, log: PartitionLog, producer: ProducerRow | None, header: BatchHeader
    ) -> int | None:
        try:
            return original_offset(producer, header)
        except (OutOfOrderSequenceError, UnknownProducerIdError) as error:
            raise self._blocked.get((log.partition_id, header.producer_id), error) from None

    def _take_room(self, plan: LogPlan, header: BatchHeader, size: int) -> None:
        needed = stored_bytes(size)
        if needed > self._room_bytes:
            error = StorageFullError(
                f"no room for a batch of {size} bytes; retention, deleting topics, a larger quota"
                " or more free disk make room, and writing resumes by itself"
            )
            self._blocked[plan.log.partition_id, header.producer_id] = error
            raise error
        if plan.next_offset > OFFSET_MAX:
            raise InvalidRecordError(f"partition {plan.log.name} is at its last offset")
        self._room_bytes -= needed


def validate(header: BatchHeader, now_ms: int) -> None:
    """The header's fields against each other and the clock.

    Raises CorruptBatchError, InvalidTimestampError, InvalidRecordError.
    """
    if header.record_count < 1 or header.last_offset_delta != header.record_count - 1:
        raise CorruptBatchError(
            f"{header.record_count} records with a last offset delta of {header.last_offset_delta}"
        )
    if header.base_timestamp < 0 or header.max_timestamp < 0:
        raise InvalidTimestampError(
            f"timestamps {header.base_timestamp} to {header.max_timestamp}: before 1970"
        )
    if header.max_timestamp > now_ms + TIMESTAMP_AHEAD_MS_MAX:
        raise InvalidTimestampError(
            f"timestamp {header.max_timestamp} is {header.max_timestamp - now_ms} ms ahead of the node,"
            f" at most {TIMESTAMP_AHEAD_MS_MAX} (are they milliseconds?)"
        )
    if header.transactional or header.control:
        raise InvalidRecordError("this version takes no transactional batches")
