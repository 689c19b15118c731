"""What to fetch next, and what to make of the replies. Pure: time is an argument, nothing is sent here.

A partition is in one flight at most, and a reply counts only for the partitions that are still in it: a
seek, a new leader or a new assignment takes its partition out, so that what arrives later is dropped. The
next fetch goes out as soon as a reply is in, while the buffers have room. Whom the reply speaks of leaves
the flight, and is back with the next fetch, which names it, unless its buffer is full; then it gets a flight
of its own when there is room again, even while the others' fetch waits for records at the node.

Fetches name the partitions that were served least recently first: the node fills a reply in that order.
"""

import logging
from collections.abc import Container, Mapping, Sequence
from operator import attrgetter
from random import Random
from typing import Final

from tailrace.protocol.cluster import TopicInfo
from tailrace.protocol.crc import Buffer
from tailrace.protocol.errors import (
    ClosedError,
    ErrorCode,
    MalformedRequestError,
    TailraceError,
    UnknownFetchSessionError,
    UnknownTopicError,
    error_from,
)
from tailrace.protocol.limits import FETCH_BUFFER_BYTES_MAX, FETCHES_AHEAD
from tailrace.protocol.messages import (
    NO_EPOCH,
    ErrorInfo,
    FetchResult,
    OffsetResult,
)

from .assigned import NO_FETCH, AssignedPartition, Key, Reset
from .failures import corrupt_batch, deleted_topic, out_of_range
from .fetch_plans import FetchPlan, FetchStatistics, LookupPlan, entries_of, queries_of
from .flights import Flight, Flights, Node
from .open_batch import RawBatch, raw_batches

_NODE_MAY_NOT_KNOW_YET: Final = (ErrorCode.UNKNOWN_TOPIC, ErrorCode.UNKNOWN_PARTITION)
"""From a node these are no verdict: it may hear of a topic later than we do. The cluster state decides."""

_batches_of: Final = attrgetter("batches")
_log = logging.getLogger(__name__)


class Fetcher:
    """The assigned partitions and the fetches in flight. Callers hold a lock of their own.

    `buffered_bytes` counts what was fetched and not handed over. Fetches go out while it is below
    FETCH_BUFFER_BYTES_MAX, so that no more than that and the fetches in flight is held in memory.
    `partition_bytes` is what a fetch asks of one partition at most; a partition that has FETCHES_AHEAD
    times as much in its buffer is left out.
    """

    def __init__(self, *, partition_bytes: int, reset: Reset, random: Random) -> None:
        self._partition_bytes = partition_bytes
        self._ahead_bytes = FETCHES_AHEAD * partition_bytes
        self._reset = reset
        self.partitions: dict[Key, AssignedPartition] = {}
        self._idle: dict[Key, AssignedPartition] = {}
        """Not in a fetch, the one served least recently first."""
        self.ready: dict[Key, AssignedPartition] = {}
        """Something to hand over or to raise, the one whose turn it is first."""
        self._flights = Flights(random)
        self.answered: dict[Flight, int] = {}
        """Flights that `plan` is to land, and how many bytes of batches each has brought."""
        self.retry_at: float | None = None
        """When `plan` would have more to send than at its last call, if nothing else happens."""
        self.outdated = False
        """Something failed as it does when the cluster state has moved on. Cleared by who refreshes it."""
        self.buffered_bytes = 0
        self.statistics = FetchStatistics()

    # ------------------------------------------------------------- assignment

    def assign(self, partition: AssignedPartition, topic: TopicInfo | None) -> None:
        """Read one more partition; `topic` is its topic as it is now, None if it is gone."""
        self.partitions[partition.key] = self._idle[partition.key] = partition
        self._follow(partition, topic)
        self._show(partition)

    def revoke(self, partition: AssignedPartition) -> None:
        """Read it no more; what is buffered of it goes."""
        self._recall(partition)
        self.buffered_bytes -= partition.buffered_bytes
        for table in (self.partitions, self._idle, self.ready):
            table.pop(partition.key, None)

    def seek(self, partition: AssignedPartition, offset: int) -> None:
        """Go on from `offset`: what was or will be fetched from elsewhere is dropped."""
        self._recall(partition)
        self.buffered_bytes -= partition.buffered_bytes
        self.ready.pop(partition.key, None)
        deleted = partition.failure if isinstance(partition.failure, UnknownTopicError) else None
        partition.move_to(offset)
        if deleted is not None:
            self._fail(partition, deleted)

    def pause(self, partition: AssignedPartition) -> None:
        """Neither fetch nor hand over, until `resume`. What is buffered is kept while there is room."""
        partition.paused = True
        self._halt(partition)

    def resume(self, partition: AssignedPartition) -> None:
        """Go on from where it was paused."""
        partition.paused = False
        self._show(partition)

    def put_aside(self, wanted: Container[Key]) -> None:
        """As `pause`, of all but these, until `end_aside`; beside what the application pauses."""
        for key, partition in self.partitions.items():
            if key not in wanted:
                partition.aside = True
                self._halt(partition)

    def end_aside(self) -> None:
        """All go on, but for those that are paused."""
        for partition in self.partitions.values():
            partition.aside = False
            self._show(partition)

    def follow(self, topics: Mapping[bytes, TopicInfo], names: Container[str] = ()) -> None:
        """The cluster state has changed: other leaders, topics gone. `names` are those of all topics."""
        for partition in self.partitions.values():
            self._follow(partition, topics.get(partition.key[0]), again=partition.name.topic in names)

    # ----------------------------------------------------------------- fetches

    def plan(self, now: float) -> list[FetchPlan | LookupPlan]:
        """What to send now."""
        self.retry_at = None
        self._land_answered()
        if self.buffered_bytes >= FETCH_BUFFER_BYTES_MAX:
            self._drop_paused()
        if self.buffered_bytes >= FETCH_BUFFER_BYTES_MAX:
            return []
        chosen = self._choose(now)
        plans: list[FetchPlan | LookupPlan] = []
        for node in self._flights.nodes.values():
            if node.resting and self._is_due(node.retry_at, now):
                for flight in list(node.resting.values()):
                    partitions = chosen.pop((node, False), {})
                    self._flights.resume(flight, partitions)
                    plans.append(self._fetch(flight, partitions))
        for (node, lost), partitions in chosen.items():
            if partitions and node.space():
                flight = self._flights.depart(node, partitions)
                plans.append(self._look_up(flight, partitions) if lost else self._fetch(flight, partitions))
        return plans

    def replied(
        self, plan: FetchPlan, results: Sequence[FetchResult], frames: Sequence[Buffer], now: float
    ) -> int:
        """A node has answered a fetch: `frames` are the batches of all `results`, in their order.

        Gives their size in bytes. They can be handed over at once. Landing the flight, for which nobody
        waits, is left to the method `plan`. What a signal handler interrupts is told once more: that is the
        same as once. Raises MalformedRequestError for what is `failed`.
        """
        announced = sum(map(_batches_of, results))
        if announced != len(frames):
            raise MalformedRequestError(f"a reply of {len(frames)} frames that speaks of {announced}")
        size = sum(map(len, frames))
        flight = self._flights.in_air(plan.fetch_id, plan.epoch)
        if flight is None:
            return size
        if flight.node.failing:
            flight.node.reached()
        start = 0
        for result in results:
            end = start + result.batches
            partition = flight.partitions.get((result.topic_id, result.partition))
            if partition is not None:
                self._take(flight, partition, result, frames[start:end], now)
            start = end
        self.answered[flight] = size
        return size

    def located(self, plan: LookupPlan, results: Sequence[OffsetResult], now: float) -> None:
        """A node has answered where logs start and end, in the order of the queries."""
        if len(results) != len(plan.queries):
            error = MalformedRequestError(f"{len(results)} offsets for {len(plan.queries)} queries")
            self.failed(plan.fetch_id, error, now)
            return
        flight = self._land(plan.fetch_id)
        flight.node.reached()
        for key, start, end in zip(plan.keys, results[::2], results[1::2], strict=True):
            partition = flight.partitions.get(key)
            if partition is None:
                continue
            refused = start.error if start.error.code != ErrorCode.NONE else end.error
            if refused.code != ErrorCode.NONE:
                self._refused(partition, refused, now)
            elif partition.begins_after != NO_EPOCH:
                partition.begin_at(max(start.offset, end.offset))
            else:
                self._relocate(partition, start.offset, end.offset, now)

    def failed(self, fetch_id: int, error: TailraceError, now: float) -> None:
        """A fetch or look-up got an error instead of an answer."""
        if fetch_id not in self._flights.by_id:
            return  # told once more
        flight = self._land(fetch_id)
        if isinstance(error, ClosedError):
            return
        self.statistics.errors += 1
        if isinstance(error, UnknownFetchSessionError) and flight.epoch:
            return  # the node has forgotten what the flight waits for: all of it is named again
        if error.retriable:
            flight.node.missed(error, now)
            self.outdated = True
            return
        for partition in flight.partitions.values():
            self._fail(partition, type(error)(f"{partition}: {error}"))

    # --------------------------------------------------------------- hand-over

    def served(self, partition: AssignedPartition) -> None:
        """It had its turn."""
        if partition.key in self.ready:  # not a call from here on
            del self.ready[partition.key]
            self.ready[partition.key] = partition

    def pop(self, partition: AssignedPartition) -> bool:
        """The partition's first batch was handed over whole; True if a fetch can go out for that."""
        size = len(partition.buffer[0].data)
        wants_fetch = self.buffered_bytes >= FETCH_BUFFER_BYTES_MAX or (
            partition.buffered_bytes >= self._ahead_bytes
            and partition.fetch == NO_FETCH
            and partition.wants_fetch(self._ahead_bytes + size)
        )
        partition.pop()
        self.buffered_bytes -= size  # not a call from here on
        if not partition.buffer and partition.failure is None and partition.key in self.ready:
            del self.ready[partition.key]
        return wants_fetch

    def put_back(self, partition: AssignedPartition, raw: RawBatch, position: int, epoch: int) -> None:
        """The batch, which may have been popped, is read again from `position` on. May be repeated."""
        size = partition.put_back(raw, position, epoch)
        self.buffered_bytes += size  # not a call from here on
        if not (partition.paused or partition.aside) and partition.key not in self.ready:
            self.ready[partition.key] = partition

    # ------------------------------------------------------------------ inside

    def _follow(self, partition: AssignedPartition, topic: TopicInfo | None, *, again: bool = False) -> None:
        if topic is None or partition.name.partition >= len(topic.partitions):
            if again or not isinstance(partition.failure, UnknownTopicError):
                self._fail(partition, deleted_topic(partition.name.topic, again=again))
            return
        info = topic.partitions[partition.name.partition]
        if (info.leader, info.leader_epoch) != (partition.leader, partition.leader_epoch):
            partition.leader, partition.leader_epoch = info.leader, info.leader_epoch
            partition.clear_backoff()
            self._flights.node(info.leader).forgive()
            self._recall(partition)

    def _choose(self, now: float) -> dict[tuple[Node, bool], dict[Key, AssignedPartition]]:
        """Who is to be asked for, by the node to ask and by what: False is a fetch, True a look-up."""
        chosen: dict[tuple[Node, bool], dict[Key, AssignedPartition]] = {}
        for key, partition in self._idle.items():
            if partition.wants_fetch(self._ahead_bytes):
                node = self._flights.node(partition.leader)
                if self._is_due(max(partition.retry_at, node.retry_at), now):
                    together = chosen.setdefault((node, partition.lost), {})
                    if len(together) < node.space():
                        together[key] = partition
        return chosen

    def _is_due(self, at: float, now: float) -> bool:
        if at > now:
            self.retry_at = at if self.retry_at is None else min(at, self.retry_at)
        return at <= now

    def _look_up(self, flight: Flight, partitions: dict[Key, AssignedPartition]) -> LookupPlan:
        for key in partitions:
            del self._idle[key]
        return LookupPlan(flight.fetch_id, flight.node.node_id, list(partitions), queries_of(partitions))

    def _fetch(self, flight: Flight, partitions: dict[Key, AssignedPartition]) -> FetchPlan:
        self.statistics.fetches += 1
        for key in partitions:
            del self._idle[key]
        entries, node = entries_of(partitions, self._partition_bytes), flight.node
        return FetchPlan(flight.fetch_id, node.node_id, entries, flight.number, flight.epoch, node.room)

    def _land_answered(self) -> None:
        answered, self.answered = self.answered, {}
        for flight, size in answered.items():
            self._flights.land(flight.fetch_id)
            flight.node.brought(size)
            for partition in flight.retried:
                if partition.fetch == flight.fetch_id:
                    partition.clear_backoff()
            self._idle.update(self._flights.rest(flight))

    def _land(self, fetch_id: int) -> Flight:
        flight = self._flights.land(fetch_id)
        self._idle.update(self._flights.dissolve(flight))
        return flight

    def _recall(self, partition: AssignedPartition) -> None:
        """What the partition's fetch brings does not count any more."""
        if partition.fetch != NO_FETCH:
            self._idle.update(self._flights.recall(partition))

    def _halt(self, partition: AssignedPartition) -> None:
        """Nothing more is fetched of it; what is on its way counts."""
        self.ready.pop(partition.key, None)
        if partition.fetch != NO_FETCH:
            self._idle.update(self._flights.end(partition))

    def _take(
        self,
        flight: Flight,
        partition: AssignedPartition,
        result: FetchResult,
        batches: Sequence[Buffer],
        now: float,
    ) -> None:
        """All at once, or not at all; an error that is not noted any more comes again with the next fetch."""
        key, answered = partition.key, result.error.code == ErrorCode.NONE
        raw, end, size, error = raw_batches(batches, partition.fetch_offset)
        if answered and partition.retry_at:
            partition.clear_backoff()

        # Not a call from here on: what a signal handler raises comes at calls, so before all this or after.
        del flight.partitions[key]
        partition.fetch, self._idle[key] = NO_FETCH, partition
        if answered:
            partition.reset = self._reset
            if result.high_watermark >= 0:
                partition.high_watermark = result.high_watermark
            partition.buffer += raw
            partition.buffered_bytes += size
            partition.fetch_offset = end
            self.buffered_bytes += size
            self.statistics.bytes += size
            if partition.buffer and not (partition.paused or partition.aside) and key not in self.ready:
                self.ready[key] = partition

        if not answered:
            self._refused(partition, result.error, now)
        elif error is not None:
            self._fail(partition, corrupt_batch(partition.name, end, None, error))

    def _refused(self, partition: AssignedPartition, refused: ErrorInfo, now: float) -> None:
        self.statistics.errors += 1
        error = error_from(refused.code, f"{partition}: {refused.message}")
        if refused.code == ErrorCode.OFFSET_OUT_OF_RANGE:
            partition.lost = True
        elif refused.code == ErrorCode.CORRUPT_BATCH:
            self._fail(partition, corrupt_batch(partition.name, partition.fetch_offset, None, error))
        elif error.retriable or refused.code in _NODE_MAY_NOT_KNOW_YET:
            partition.retry_at = now + partition.backoff.pause()
            self.outdated = True
            _log.debug("%s; trying again", error)
        else:
            self._fail(partition, error)

    def _relocate(self, partition: AssignedPartition, start: int, end: int, now: float) -> None:
        """The log lies from `start` to `end`: go on where `auto_offset_reset` says."""
        partition.lost = False
        offset = partition.fetch_offset
        if start <= offset <= end:
            # It was not when the fetch was answered; the pause is for a node that can't make up its mind.
            partition.retry_at = now + partition.backoff.pause()
            return
        partition.clear_backoff()
        if partition.reset == "none":
            self._fail(partition, out_of_range(partition.name, offset, start, end))
            return
        target = start if partition.reset == "earliest" else end
        _log.warning("%s: no offset %d in %d to %d: going on at %d", partition, offset, start, end, target)
        self.statistics.resets += 1
        partition.fetch_offset = target
        if not partition.buffer:
            partition.position = target

    def _fail(self, partition: AssignedPartition, error: TailraceError) -> None:
        partition.failure = error
        self._recall(partition)
        self._show(partition)

    def _show(self, partition: AssignedPartition) -> None:
        """Let it have its turn, if there is something to hand over or to raise."""
        if (partition.buffer or partition.failure) and not (partition.paused or partition.aside):
            self.ready.setdefault(partition.key, partition)

    def _drop_paused(self) -> None:
        """Paused partitions must not keep the room that the others need. They are fetched again later."""
        for partition in self.partitions.values():
            if (partition.paused or partition.aside) and partition.buffer:
                self.seek(partition, partition.position)
