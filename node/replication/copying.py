"""What a follower fetches next, and what it makes of the answers. Pure: time is an argument.

A partition is in one step at a time: idle, in a fetch, or with the writer, who appends to its log
or cuts it. So the offset of the next fetch is always what is on disk (RELIABILITY R2), and what an
answer says is about the log as it still is. A leader gets several fetches, each with the partitions
that are idle by then: a busy partition does not wait for quiet ones.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import NamedTuple

from tailrace.client.retry import Backoff
from tailrace.protocol.errors import ErrorCode, TailraceError
from tailrace.protocol.limits import PARTITIONS_PER_REQUEST_MAX, REPLICA_FETCHES_PER_NODE_MAX
from tailrace.protocol.replica_messages import ReplicaFetchEntry, ReplicaFetchResult

from ..storage.partition_log import PartitionKey, PartitionLog
from .throttle import Throttle


class Source(NamedTuple):
    """Whom a partition is copied from."""

    leader: int
    leader_epoch: int


class CopyStep(NamedTuple):
    """Work for the writer: bring the log of a followed partition on.

    One of: append `batches`; truncate to `truncate_to`; empty the log and begin at `reset_to`. Then, or in
    any case, the high watermark is at least `high_watermark`, and records below `log_start_offset` may go.
    """

    key: PartitionKey
    log: PartitionLog
    leader_epoch: int
    batches: tuple[bytes, ...] = ()
    truncate_to: int | None = None
    reset_to: int | None = None
    high_watermark: int = -1
    log_start_offset: int = -1


class CopyFetch(NamedTuple):
    """A fetch to send."""

    fetch_id: int
    leader: int
    entries: list[ReplicaFetchEntry]


@dataclass(slots=True, eq=False)
class _Copied:
    key: PartitionKey
    log: PartitionLog
    source: Source
    backoff: Backoff
    retry_at: float = 0.0


@dataclass(slots=True)
class _Flight:
    leader: int
    partitions: dict[PartitionKey, _Copied] = field(default_factory=dict)


EpochEnd = Callable[[PartitionLog, int], tuple[int, int]]
"""(log, epoch) -> the highest epoch up to that one which the log has, and where it ends there."""


class Copier:
    """The partitions that this node follows."""

    def __init__(
        self,
        *,
        end_of_epoch: EpochEnd,
        last_epoch: Callable[[PartitionLog], int],
        random: Random,
    ) -> None:
        self._end_of_epoch = end_of_epoch
        self._last_epoch = last_epoch
        self._random = random
        self._copied: dict[PartitionKey, _Copied] = {}
        self._idle: dict[PartitionKey, _Copied] = {}
        self._flights: dict[int, _Flight] = {}
        self._in_flight: dict[int, int] = {}
        self._fetches = 0
        self._retry_at = inf
        self.throttle = Throttle()

    def __len__(self) -> int:
        return len(self._copied)

    def copy(self, logs: Mapping[PartitionKey, tuple[PartitionLog, Source]]) -> None:
        """Follow these leaders from now on, in place of others."""
        for key, (log, source) in logs.items():
            before = self._copied.get(key)
            if before is not None and before.source == source and before.log is log:
                continue
            copied = _Copied(key, log, source, Backoff(self._random))
            self._copied[key] = self._idle[key] = copied

    def stop(self, keys: Iterable[PartitionKey]) -> None:
        """Follow these no more; what is on its way does not count."""
        for key in keys:
            self._copied.pop(key, None)
            self._idle.pop(key, None)

    def plan(self, now: float) -> list[CopyFetch]:
        """What to send now."""
        self._retry_at = inf
        chosen: dict[int, dict[PartitionKey, _Copied]] = {}
        for key, copied in self._idle.items():
            leader = copied.source.leader
            if self._in_flight.get(leader, 0) >= REPLICA_FETCHES_PER_NODE_MAX:
                continue
            due = copied.retry_at
            if due <= now and key in self.throttle:
                due = self.throttle.free_at(key, now)
            if due > now:
                self._retry_at = min(self._retry_at, due)
                continue
            together = chosen.setdefault(leader, {})
            if len(together) < PARTITIONS_PER_REQUEST_MAX:
                together[key] = copied
        return [self._depart(leader, partitions) for leader, partitions in chosen.items()]

    def next_tick(self) -> float:
        """When `plan` has more to send, if nothing happens before."""
        return self._retry_at

    def replied(
        self, fetch_id: int, results: list[ReplicaFetchResult], frames: list[bytes], now: float
    ) -> list[CopyStep]:
        """A leader has answered: what the writer has to do. `frames`: the batches of all results in a row."""
        flight = self._land(fetch_id)
        steps = []
        at = 0
        for result in results:
            batches = tuple(frames[at : at + result.batches])
            at += result.batches
            copied = flight.partitions.pop((result.topic_id, result.partition), None)
            if copied is None or self._copied.get(copied.key) is not copied:
                continue
            if copied.key in self.throttle:
                self.throttle.spend(copied.key, sum(map(len, batches)), now)
            step = self._step(copied, result, batches, now)
            if step is None:
                self._rest(copied)
            else:
                steps.append(step)
        for copied in flight.partitions.values():
            copied.backoff.reset()
            self._rest(copied)
        return steps

    def failed(self, fetch_id: int, _error: TailraceError, now: float) -> None:
        """A fetch got no answer."""
        for copied in self._land(fetch_id).partitions.values():
            copied.retry_at = now + copied.backoff.pause()
            self._rest(copied)

    def done(self, step: CopyStep, error: TailraceError | None, now: float) -> None:
        """The writer is through with a step. One that failed is tried again later, from the log as it is."""
        copied = self._copied.get(step.key)
        if copied is None or copied.log is not step.log or copied.source.leader_epoch != step.leader_epoch:
            return
        if error is not None:
            copied.retry_at = now + copied.backoff.pause()
        else:
            copied.backoff.reset()
        self._rest(copied)

    # ------------------------------------------------------------------ inside

    def _depart(self, leader: int, partitions: dict[PartitionKey, _Copied]) -> CopyFetch:
        self._fetches += 1
        self._flights[self._fetches] = _Flight(leader, partitions)
        self._in_flight[leader] = self._in_flight.get(leader, 0) + 1
        entries = []
        for key, copied in partitions.items():
            del self._idle[key]
            log = copied.log
            epoch = copied.source.leader_epoch
            ends = (log.log_end_offset, self._last_epoch(log), log.high_watermark, log.log_start_offset)
            entries.append(ReplicaFetchEntry(*key, epoch, *ends))
        return CopyFetch(self._fetches, leader, entries)

    def _land(self, fetch_id: int) -> _Flight:
        flight = self._flights.pop(fetch_id)
        self._in_flight[flight.leader] -= 1
        return flight

    def _rest(self, copied: _Copied) -> None:
        if self._copied.get(copied.key) is copied:
            self._idle[copied.key] = copied

    def _step(
        self, copied: _Copied, result: ReplicaFetchResult, batches: tuple[bytes, ...], now: float
    ) -> CopyStep | None:
        log, epoch = copied.log, copied.source.leader_epoch
        if (
            result.error.code == ErrorCode.OFFSET_OUT_OF_RANGE
            and result.log_start_offset > log.log_end_offset
        ):
            return CopyStep(copied.key, log, epoch, reset_to=result.log_start_offset)
        if result.error.code != ErrorCode.NONE:
            copied.retry_at = now + copied.backoff.pause()
            return None
        if result.diverging_epoch >= 0 or result.diverging_end >= 0:
            _, own_end = self._end_of_epoch(log, result.diverging_epoch)
            end = min(own_end, result.diverging_end, log.log_end_offset)
            return CopyStep(copied.key, log, epoch, truncate_to=end)
        known = min(result.high_watermark, log.log_end_offset) <= log.high_watermark
        if not batches and known and result.log_start_offset <= log.log_start_offset:
            copied.backoff.reset()
            return None
        return CopyStep(
            copied.key,
            log,
            epoch,
            batches=batches,
            high_watermark=result.high_watermark,
            log_start_offset=result.log_start_offset,
        )
