"""The pure half of a group commit: decides what becomes of each batch before anything is written.

A plan is made against the logs' committed state and an overlay of what the same group did so
far, so that a duplicate of a batch earlier in the group is recognised. Nothing here touches a
log, a file or a clock; a plan that is not carried out leaves no trace.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Final, NamedTuple

from tailrace.protocol.batch import CONTROL, TRANSACTIONAL, BatchHeader, check_crc
from tailrace.protocol.errors import (
    BatchTooLargeError,
    CorruptBatchError,
    InvalidRecordError,
    InvalidTimestampError,
    OffsetOutOfRangeError,
    OutOfOrderSequenceError,
    StorageFullError,
    TailraceError,
    UnknownProducerIdError,
)
from tailrace.protocol.limits import TIMESTAMP_AHEAD_MS_MAX

from .log_plan import Append, Appended, LogPlan, Replicated
from .partition_log import PartitionLog
from .producers import after_append, original_offset
from .reading import refuse_removed
from .schema import ProducerRow
from .space import stored_bytes

ProducerLookup = Callable[[PartitionLog, int], ProducerRow | None]
"""The committed row of a producer id in a partition."""

OFFSET_MAX: Final = 2**62
COPIES: Final = -2
"""In place of a producer id in `Blocked`: all copies of a leader's batches."""


class Plan(NamedTuple):
    """`results` in the order of the appends; `logs` holds what is to be written."""

    results: list[Appended | TailraceError]
    logs: dict[int, LogPlan]


Blocked = dict[tuple[int, int], TailraceError]
"""(partition id, producer id) with a batch that was refused for a passing reason: what follows it in the
group is refused for the same, not for the gap in its sequence."""


def stream(append: Append | Replicated) -> tuple[int, int]:
    """Whose order in which partition the batch belongs to."""
    producer_id = COPIES if isinstance(append, Replicated) else append.header.producer_id
    return append.log.partition_id, producer_id


class Planner:
    """Plans one group, or a part of one. `room_bytes` may still be stored, `room_bytes_max` if all went."""

    def __init__(
        self, lookup: ProducerLookup, room_bytes: int, blocked: Blocked, *, room_bytes_max: int
    ) -> None:
        self._lookup = lookup
        self._room_bytes_max = room_bytes_max
        self._room_bytes = room_bytes
        self._blocked = blocked
        self._logs: dict[int, LogPlan] = {}

    def plan(self, appends: Sequence[Append | Replicated]) -> Plan:
        """Decide on every append, in order; one that fails does not hinder the others."""
        results: list[Appended | TailraceError] = []
        for append in appends:
            try:
                results.append(self._copy(append) if isinstance(append, Replicated) else self._place(append))
            except TailraceError as error:
                results.append(error)
        for plan in tuple(self._logs.values()):
            if not plan.batches:
                del self._logs[plan.log.partition_id]
        return Plan(results, self._logs)

    def _place(self, append: Append) -> Appended:
        log, batch, header, now_ms, shared = append
        refuse_removed(log)
        validate(header, now_ms)
        if not shared:
            check_crc(batch, header)
        plan = self._plan_of(log)
        producer_id = header.producer_id
        producer = None
        if producer_id >= 0:
            producer = plan.producers.get(producer_id) or self._lookup(log, producer_id)
            original = self._original_offset(log, producer, header)
            if original is not None:
                return Appended(original, original + header.last_offset_delta, duplicate=True)
        self._take_room(plan, (log.partition_id, producer_id), len(batch), self._room_bytes_max)
        base_offset = plan.next_offset
        last_offset = plan.add(batch, header, shared=shared)
        if producer_id >= 0:
            plan.producers[producer_id] = after_append(producer, header, base_offset, now_ms)
        return Appended(base_offset, last_offset, duplicate=False)

    def _copy(self, append: Replicated) -> Appended:
        """The leader has decided: what is checked is that the batch is whole and continues the log.

        What fails takes the copies behind it along, with its own error and not one for the gap.
        """
        log, batch, header, now_ms = append
        try:
            refuse_removed(log)
            check_crc(batch, header)
            refuse_transactions(header)
            plan = self._plan_of(log)
            plan.refuse_stranger(header)
            self._take_room(plan, stream(append), len(batch))
        except OffsetOutOfRangeError as error:
            raise self._blocked.get(stream(append), error) from None
        except TailraceError as error:
            self._blocked[stream(append)] = error
            raise
        producer = plan.producers.get(header.producer_id)
        if producer is None and header.producer_id >= 0:
            producer = self._lookup(log, header.producer_id)
        last_offset = plan.copy(batch, header, producer, now_ms)
        return Appended(header.base_offset, last_offset, duplicate=False)

    def _plan_of(self, log: PartitionLog) -> LogPlan:
        plan = self._logs.get(log.partition_id)
        if plan is None:
            plan = self._logs[log.partition_id] = LogPlan(log)
        return plan

    def _original_offset(
        self, log: PartitionLog, producer: ProducerRow | None, header: BatchHeader
    ) -> int | None:
        try:
            return original_offset(producer, header)
        except (OutOfOrderSequenceError, UnknownProducerIdError) as error:
            raise self._blocked.get((log.partition_id, header.producer_id), error) from None

    def _take_room(self, plan: LogPlan, stream: tuple[int, int], size: int, most_bytes: float = inf) -> None:
        """`most_bytes`: what takes more is refused for good if there is no room."""
        needed = stored_bytes(size)
        if needed > self._room_bytes:
            if needed > most_bytes:
                raise BatchTooLargeError(
                    f"a batch of {size} bytes can never be stored within this node's quota, which has room"
                    f" for {most_bytes}: give the node a larger quota, or send smaller batches"
                )
            error = StorageFullError(
                f"no room for a batch of {size} bytes; retention, deleting topics, a larger quota"
                " or more free disk make room, and writing resumes by itself"
            )
            self._blocked[stream] = error
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
        ask = "are they milliseconds?" if header.max_timestamp > 10 * now_ms else "is its clock right?"
        raise InvalidTimestampError(
            f"timestamp {header.max_timestamp} is {header.max_timestamp - now_ms} ms ahead of the node's"
            f" clock, {now_ms}: at most {TIMESTAMP_AHEAD_MS_MAX} are taken ({ask})"
        )
    refuse_transactions(header)


def refuse_transactions(header: BatchHeader) -> None:
    """Raises InvalidRecordError for a batch of a transaction: its place in the tables is not made yet."""
    if header.attributes & (TRANSACTIONAL | CONTROL):
        raise InvalidRecordError("this version takes no transactional batches")
