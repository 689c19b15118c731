"""What a follower fetches next, and what it makes of the answers. Pure: time is an argument.

A partition is in one fetch at a time. Its next fetch goes out once the writer has brought the last answer to
disk and so says, by its offset, that it did (RELIABILITY R2). After a large answer, as while a follower
catches up, it reads ahead: the next fetch goes out at once, with one offset that says what is on disk, and
one where to read on; what comes to disk while it is out is told by an acknowledgement.

Only batches are read ahead. An answer of any other kind, that the logs part for one, is about the log on
disk: it counts while the writer has nothing of that log. After a step that cuts the log or fails, the
partition settles: what is on its way is dropped, and it goes on from what is on disk in the end.

Of large steps the writer gets no more at a time than is good for those that wait for its commit (`Pace`), cut
between batches: one such share while another is written. So small steps wait for one share, and go with the
next.

A leader gets several fetches, each with the partitions that are in none by then: a busy partition does not
wait for quiet ones.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from random import Random
from typing import NamedTuple

from tailrace.client.retry import Backoff
from tailrace.protocol.batch import parse_header
from tailrace.protocol.errors import ErrorCode, TailraceError
from tailrace.protocol.limits import (
    COPY_AHEAD_BYTES_MAX,
    LARGE_COPY_BYTES_MIN,
    PARTITIONS_PER_REQUEST_MAX,
    REPLICA_FETCHES_PER_NODE_MAX,
    SMALL_COPY_BYTES_MAX,
)
from tailrace.protocol.replica_messages import ReplicaAckEntry, ReplicaFetchEntry, ReplicaFetchResult

from ..storage.partition_log import PartitionKey, PartitionLog
from .pace import Pace
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

    @property
    def size(self) -> int:
        """Bytes of the batches."""
        return sum(map(len, self.batches))

    @property
    def large_size(self) -> int:
        """Its size, if that counts in a commit; else 0."""
        size = self.size
        return size if size > SMALL_COPY_BYTES_MAX else 0

    def cut(self, room: int) -> tuple["CopyStep | None", "CopyStep | None"]:
        """What fits into `room`, and what is left. A small step fits always; of a large one, if there is room
        at all, one batch at least.
        """
        if not self.large_size:
            return self, None
        if room <= 0:
            return None, self
        count = bisect_right([*accumulate(map(len, self.batches))], room) or 1
        if count == len(self.batches):
            return self, None
        return self._replace(batches=self.batches[:count]), self._replace(batches=self.batches[count:])


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
    fetching: bool = False
    steps: int = 0
    """That the writer is not through with."""
    ahead: tuple[int, int] | None = None
    """(offset, leader epoch) where the batches of these steps end, if it may be read on there."""
    settling: bool = False
    """Nothing is fetched until the writer is through with all steps and the last fetch has landed."""
    told: int = -1
    """What the leader was told to be on disk."""


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
        """Those that may be fetched."""
        self._unacknowledged: dict[PartitionKey, _Copied] = {}
        self._steps: list[CopyStep] = []
        """That the writer has not got yet."""
        self._large_bytes = 0
        """Of large steps that the writer has."""
        self._ahead_bytes = 0
        """Of all steps that the writer is not through with."""
        self._flights: dict[int, _Flight] = {}
        self._in_flight: dict[int, int] = {}
        self._fetches = 0
        self._retry_at = inf
        self.throttle = Throttle()
        self.pace = Pace()

    def __len__(self) -> int:
        return len(self._copied)

    def copy(self, logs: Mapping[PartitionKey, tuple[PartitionLog, Source]]) -> None:
        """Follow these leaders from now on, in place of others."""
        for key, (log, source) in logs.items():
            before = self._copied.get(key)
            if before is not None and before.source == source and before.log is log:
                continue
            self.stop([key])
            copied = _Copied(key, log, source, Backoff(self._random))
            self._copied[key] = self._idle[key] = copied

    def stop(self, keys: Iterable[PartitionKey]) -> None:
        """Follow these no more; what is on its way does not count."""
        stopped = set(keys)
        for key in stopped:
            self._copied.pop(key, None)
            self._idle.pop(key, None)
            self._unacknowledged.pop(key, None)
        self._drop(stopped)

    def plan(self, now: float) -> list[CopyFetch]:
        """What to send now."""
        self._retry_at = inf
        chosen: dict[int, dict[PartitionKey, _Copied]] = {}
        for key, copied in self._idle.items():
            leader = copied.source.leader
            if self._in_flight.get(leader, 0) >= REPLICA_FETCHES_PER_NODE_MAX:
                continue
            if copied.steps and self._ahead_bytes >= COPY_AHEAD_BYTES_MAX:
                continue
            due = copied.retry_at
            if due <= now and key in self.throttle:
                due = self.throttle.free_at(now)
            if due > now:
                self._retry_at = min(self._retry_at, due)
                continue
            together = chosen.setdefault(leader, {})
            if len(together) < PARTITIONS_PER_REQUEST_MAX:
                together[key] = copied
        return [self._depart(leader, partitions) for leader, partitions in chosen.items()]

    def take_acks(self) -> dict[int, list[ReplicaAckEntry]]:
        """After `plan`, which tells as well: what leaders have not been told of what came to disk."""
        acks: dict[int, list[ReplicaAckEntry]] = {}
        for key, copied in self._unacknowledged.items():
            end_offset = copied.log.log_end_offset
            if end_offset > copied.told:
                copied.told = end_offset
                entry = ReplicaAckEntry(*key, copied.source.leader_epoch, end_offset)
                acks.setdefault(copied.source.leader, []).append(entry)
        self._unacknowledged.clear()
        return acks

    def next_tick(self) -> float:
        """When `plan` has more to send, if nothing happens before."""
        return self._retry_at

    def replied(
        self, fetch_id: int, results: list[ReplicaFetchResult], frames: list[bytes], now: float
    ) -> None:
        """A leader has answered. `frames`: the batches of all results in a row."""
        flight = self._land(fetch_id)
        at = 0
        for result in results:
            batches = tuple(frames[at : at + result.batches])
            at += result.batches
            copied = flight.partitions.pop((result.topic_id, result.partition), None)
            if copied is None or self._copied.get(copied.key) is not copied:
                continue
            if copied.key in self.throttle:
                self.throttle.spend(sum(map(len, batches)), now)
            step = None if copied.settling else self._step(copied, result, batches, now)
            if step is not None:
                copied.steps += 1
                self._ahead_bytes += step.size
                self._steps.append(step)
            self._rest(copied)
        for copied in flight.partitions.values():
            copied.backoff.reset()
            self._rest(copied)

    def take_steps(self) -> list[CopyStep]:
        """What the writer has to do now: each partition's in their order, of large ones a commit's share.

        The next share waits there while one is written, and goes with the small steps that came meanwhile.
        """
        taken: list[CopyStep] = []
        left: list[CopyStep] = []
        waiting: set[PartitionKey] = set()
        room = self.pace.size if self._large_bytes <= self.pace.size else 0
        for step in self._steps:
            part, rest = (None, step) if step.key in waiting else step.cut(room)
            if part is not None:
                taken.append(part)
                room -= part.large_size
                self._large_bytes += part.large_size
                self._copied[step.key].steps += rest is not None
            if rest is not None:
                waiting.add(step.key)
                left.append(rest)
        self._steps = left
        return taken

    def follows(self, step: CopyStep) -> bool:
        """Is this log still copied, from the leader that the step came from?"""
        copied = self._copied.get(step.key)
        return (
            copied is not None and copied.log is step.log and copied.source.leader_epoch == step.leader_epoch
        )

    def failed(self, fetch_id: int, now: float) -> None:
        """A fetch got no answer."""
        for copied in self._land(fetch_id).partitions.values():
            copied.retry_at = now + copied.backoff.pause()
            self._rest(copied)

    def done(self, step: CopyStep, error: TailraceError | None, now: float) -> None:
        """The writer is through with a step. One that failed is tried again later, from the log as it is."""
        self._ahead_bytes -= step.size
        self._large_bytes -= step.large_size
        if not self.follows(step):
            return
        copied = self._copied[step.key]
        copied.steps -= 1
        if error is not None:
            copied.settling = True
            copied.steps -= self._drop({step.key})
            copied.retry_at = now + copied.backoff.pause()
        else:
            copied.backoff.reset()
            if step.batches:
                self._unacknowledged[step.key] = copied
        self._rest(copied)

    # ------------------------------------------------------------------ inside

    def _drop(self, keys: Set[PartitionKey]) -> int:
        """The writer does not get what it has not got yet of these: so many steps."""
        dropped = [step for step in self._steps if step.key in keys]
        self._ahead_bytes -= sum(step.size for step in dropped)
        self._steps = [step for step in self._steps if step.key not in keys]
        return len(dropped)

    def _depart(self, leader: int, partitions: dict[PartitionKey, _Copied]) -> CopyFetch:
        self._fetches += 1
        self._flights[self._fetches] = _Flight(leader, partitions)
        self._in_flight[leader] = self._in_flight.get(leader, 0) + 1
        entries = []
        for key, copied in partitions.items():
            del self._idle[key]
            copied.fetching = True
            log = copied.log
            copied.told = log.log_end_offset
            offset, last_epoch = copied.ahead or (copied.told, self._last_epoch(log))
            ends = (copied.told, last_epoch, log.high_watermark, log.log_start_offset, offset)
            entries.append(ReplicaFetchEntry(*key, copied.source.leader_epoch, *ends))
        return CopyFetch(self._fetches, leader, entries)

    def _land(self, fetch_id: int) -> _Flight:
        flight = self._flights.pop(fetch_id)
        self._in_flight[flight.leader] -= 1
        for copied in flight.partitions.values():
            copied.fetching = False
        return flight

    def _rest(self, copied: _Copied) -> None:
        """It may be fetched next, unless it is or has to settle."""
        if copied.steps == 0:
            copied.ahead = None
            copied.settling = copied.settling and copied.fetching
        if self._copied.get(copied.key) is not copied:
            return
        if copied.fetching or copied.settling:
            self._idle.pop(copied.key, None)
        else:
            self._idle[copied.key] = copied

    def _step(
        self, copied: _Copied, result: ReplicaFetchResult, batches: tuple[bytes, ...], now: float
    ) -> CopyStep | None:
        log, epoch = copied.log, copied.source.leader_epoch
        parts = result.diverging_epoch >= 0 or result.diverging_end >= 0
        if copied.steps and (parts or result.error.code != ErrorCode.NONE):
            copied.settling = True
            return None
        if result.error.code == ErrorCode.OFFSET_OUT_OF_RANGE and _is_elsewhere(log, result.log_start_offset):
            copied.settling = True
            return CopyStep(copied.key, log, epoch, reset_to=result.log_start_offset)
        if result.error.code != ErrorCode.NONE:
            copied.retry_at = now + copied.backoff.pause()
            return None
        if parts:
            copied.settling = True
            return self._cut(copied, result)
        if batches:
            large = sum(map(len, batches)) >= LARGE_COPY_BYTES_MIN
            copied.ahead = _end_of(batches[-1]) if large else None
            copied.settling = copied.ahead is None
        end = log.log_end_offset if copied.ahead is None else copied.ahead[0]
        known = min(result.high_watermark, end) <= log.high_watermark
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

    def _cut(self, copied: _Copied, result: ReplicaFetchResult) -> CopyStep:
        """To where the logs part, or down to nothing if that is below all that is left of the own one."""
        log, epoch = copied.log, copied.source.leader_epoch
        _, own_end = self._end_of_epoch(log, result.diverging_epoch)
        end = min(own_end, result.diverging_end, log.log_end_offset)
        if end < log.log_start_offset:
            return CopyStep(copied.key, log, epoch, reset_to=result.log_start_offset)
        return CopyStep(copied.key, log, epoch, truncate_to=end)


def _is_elsewhere(log: PartitionLog, leader_start: int) -> bool:
    """Has the leader, whose log begins there (-1: unknown), nothing that could follow what this one has?"""
    if log.log_start_offset == log.log_end_offset:
        return leader_start not in (-1, log.log_end_offset)
    return leader_start > log.log_end_offset


def _end_of(batch: bytes) -> tuple[int, int] | None:
    """(offset behind it, its leader epoch); None: the writer will say what is wrong with it."""
    try:
        header = parse_header(batch)
    except TailraceError:
        return None
    return header.last_offset + 1, header.leader_epoch
