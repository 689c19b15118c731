"""What to send to which node, and what the answers mean. Pure: no socket, clock or thread.

Each partition is a `Lane`; the lanes that a node leads share its requests. The one who asks:

    sender.add(batch, now)                     sealed batches
    sender.tick(now)                           what is due by time
    while shipment := sender.next_shipment(now):
        ... send it; later sender.answered(shipment, results, now) or sender.lost(shipment, error, now)
    sender.ask_identity(now)                   a producer id is wanted: sender.identified or .unidentified
    sender.take_resolved()                     tell the application
    sender.due_at                              when to come again
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from math import inf
from random import Random
from typing import Final

import msgspec

from tailrace.client.retry import Backoff
from tailrace.protocol.cluster import PartitionInfo
from tailrace.protocol.errors import (
    ErrorCode,
    TailraceError,
    error_from,
)
from tailrace.protocol.limits import (
    PRODUCE_BATCHES_MAX,
    PRODUCE_IN_FLIGHT_BYTES_MAX,
    PRODUCE_REQUEST_BYTES,
)
from tailrace.protocol.messages import OK, ProduceEntry, ProduceResult

from .batch import ANONYMOUS, Batch, Identity
from .lane import Lane, Resolved, deleted

SENT: Final = ProduceResult(OK, -1, -1)
"""What became of a batch that nobody will answer (acks=0)."""
PartitionLookup = Callable[[bytes, int], PartitionInfo | None]
"""(topic id, partition) -> what the cluster state says of it, None if there is no such partition."""


class Shipment(msgspec.Struct, eq=False):
    """Batches that travel in one request to one node."""

    node_id: int
    lanes: list[Lane] = []
    batches: list[Batch] = []
    entries: list[ProduceEntry] = []
    size: int = 0

    def add(self, lane: Lane, batch: Batch) -> None:
        """One more batch, under the leader epoch that is known now."""
        self.lanes.append(lane)
        self.batches.append(batch)
        self.entries.append(ProduceEntry(lane.topic_id, lane.partition, lane.leader_epoch))
        self.size += batch.size

    def full(self, next_size: int) -> bool:
        """With batches in it, is there no place for one more of `next_size` bytes?"""
        return len(self.batches) >= PRODUCE_BATCHES_MAX or self.size + next_size > PRODUCE_REQUEST_BYTES


class Sender:
    """All lanes of one producer. `cut_off`: is there no connection to a node that it has something for?"""

    def __init__(
        self,
        *,
        idempotent: bool,
        lookup: PartitionLookup,
        random: Random,
        cut_off: Callable[[int], bool] = lambda node_id: False,
    ) -> None:
        self.identity: Identity | None = None
        self.retries = 0
        """Batches that were sent again."""
        self.batches_in_flight = 0
        """Batches that were sent and not answered yet."""
        self.queues: dict[int, deque[Lane]] = {}
        """Lanes that may have something to send, by node, in turn. Without any there is no next shipment."""
        self.resolved: list[Resolved] = []
        """What the application must be told of, in order."""
        self.due_at = 0.0
        """Before this (monotonic s) there is nothing that is due by time, and no identity to ask for."""
        self.fatal: TailraceError | None = None
        """Why nothing can be sent any more."""
        self._idempotent = idempotent
        self._lookup = lookup
        self._random = random
        self._cut_off = cut_off
        self._lanes: dict[tuple[bytes, int], Lane] = {}
        self._unacked_bytes: defaultdict[int, int] = defaultdict(int)
        self._pausing: set[Lane] = set()
        self._starving: set[Lane] = set()
        self._expiry = inf
        """No batch expires before this."""
        self._asking = False
        self._ask_at = 0.0
        self._ask_backoff = Backoff(random)
        self._ask_error: TailraceError | None = None

    # ----------------------------------------------------------------- batches

    def add(self, batch: Batch, now: float) -> None:
        """A sealed batch, to be sent behind all others of its partition."""
        lane = self._lanes.get((batch.topic_id, batch.partition))
        if lane is None or lane.gone or self.fatal is not None:
            lane = self._new_lane(batch, now)
            if lane is None:
                return
        lane.add(batch)
        if batch.deadline < self._expiry:
            self._expiry = batch.deadline
            self.due_at = min(self.due_at, batch.deadline)
        self._look_at(lane, now)

    def wanted(self, batch: Batch, now: float) -> bool:
        """Would this batch be sent at once if it were sealed? If not, it may as well fill up."""
        lane = self._lanes.get((batch.topic_id, batch.partition))
        if lane is None:
            return not self._idempotent or self.identity is not None
        return (
            not lane.waiting
            and self._unacked_bytes[lane.leader] < PRODUCE_IN_FLIGHT_BYTES_MAX
            and lane.free(now)
        )

    def waits_for(self, batch: Batch, now: float) -> Lane | None:
        """The lane of a batch, if that would be the next thing to be sent, alone."""
        lane = self._lanes.get((batch.topic_id, batch.partition))
        idle = not self.queues and now < self.due_at and self.fatal is None
        return lane if lane is not None and idle and self.wanted(batch, now) else None

    def next_shipment(self, now: float) -> Shipment | None:
        """The next request to send, if any node has both something to get and room for it."""
        for node_id in tuple(self.queues):
            if self._unacked_bytes[node_id] < PRODUCE_IN_FLIGHT_BYTES_MAX:
                shipment = self._fill(node_id, self.queues[node_id], now)
                if not self.queues[node_id]:
                    del self.queues[node_id]
                if shipment.batches:
                    self._unacked_bytes[node_id] += shipment.size
                    self.batches_in_flight += len(shipment.batches)
                    return shipment
        return None

    # ----------------------------------------------------------------- answers

    def answered(self, shipment: Shipment, results: Sequence[ProduceResult], now: float) -> None:
        """The node's reply, batch by batch."""
        if len(results) != len(shipment.batches):
            count = f"{len(results)} results for {len(shipment.batches)} batches"
            self.lost(shipment, TailraceError(f"node {shipment.node_id} gave {count}"), now)
            return
        self._landed(shipment)
        for lane, batch, result in zip(shipment.lanes, shipment.batches, results, strict=True):
            if result.error.code == ErrorCode.NONE:
                lane.stored(batch, result.base_offset, now)
            else:
                self._failed(lane, batch, error_from(result.error.code, result.error.message), now)
        self._look_at_all(shipment.lanes, now)

    def lost(self, shipment: Shipment, error: TailraceError, now: float) -> None:
        """There is no reply, or the whole request failed."""
        self._landed(shipment)
        for lane, batch in zip(shipment.lanes, shipment.batches, strict=True):
            self._failed(lane, batch, error, now)
        self._look_at_all(shipment.lanes, now)

    def refused(self, shipment: Shipment, batch: Batch, error: TailraceError, now: float) -> None:
        """The batch cannot be encoded: it leaves the shipment, which has not gone yet."""
        at = shipment.batches.index(batch)
        lane = shipment.lanes.pop(at)
        del shipment.batches[at], shipment.entries[at]
        shipment.size -= batch.size
        self._unacked_bytes[shipment.node_id] -= batch.size
        self.batches_in_flight -= 1
        self._failed(lane, batch, error, now)
        self._look_at(lane, now)

    def handed_over(self, shipment: Shipment, now: float) -> None:
        """With acks=0: the request has gone, and nobody will answer."""
        self.answered(shipment, [SENT] * len(shipment.batches), now)

    def take_resolved(self) -> list[Resolved]:
        """The batches that the application must be told of, in order."""
        resolved = self.resolved[:]
        self.resolved.clear()
        return resolved

    def obstacle(self) -> TailraceError | None:
        """Why what was taken is not stored yet, as far as that is known. Any thread may ask."""
        if self._idempotent and self.identity is None:
            return self._ask_error
        obstacles = (lane.obstacle() for lane in tuple(self._lanes.values()))
        return next((obstacle for obstacle in obstacles if obstacle is not None), None)

    # --------------------------------------------------------------- identity

    def ask_identity(self, now: float) -> Identity | None:
        """What to ask the coordinator with: ANONYMOUS for a first identity, else the one to follow.

        None while there is nothing to ask. Exactly one of `identified` and `unidentified` must follow.
        """
        if not self._idempotent or self._asking or now < self._ask_at or self.fatal is not None:
            return None
        if self.identity is not None and not self._starving:
            return None
        self._asking = True
        self.due_at = self._next_due()
        return self.identity or ANONYMOUS

    def identified(self, identity: Identity, now: float) -> None:
        """The coordinator's answer."""
        self._asking = False
        self._ask_backoff.reset()
        self.identity = identity
        self._starving.clear()
        self._look_at_all(self._lanes.values(), now)

    def unidentified(self, error: TailraceError, now: float) -> None:
        """There was none. Being fenced means that an answer got lost: then a new producer id is asked for."""
        self._asking = False
        if error.code == ErrorCode.FENCED_PRODUCER and self.identity is not None:
            self.identity = None
        elif error.retriable:
            self._ask_at = now + self._ask_backoff.pause()
            self._ask_error = error
        else:
            self.fail(error)
        self.due_at = self._next_due()

    # ------------------------------------------------------------ cluster, time

    def update_leaders(self, now: float) -> None:
        """The cluster state has changed: lanes go to the queues of other nodes, or end."""
        self.queues.clear()
        for key, lane in tuple(self._lanes.items()):
            lane.queued = False
            self._lead(lane, now)
            if lane.gone and not lane.unresolved():
                del self._lanes[key]
        self._look_at_all(self._lanes.values(), now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._expiry <= now:
            for lane in self._lanes.values():
                lane.expire(now, cut_off=self._cut_off(lane.leader))
            deadlines = [lane.next_deadline() for lane in self._lanes.values()]
            self._expiry = min((at for at in deadlines if at is not None), default=inf)
            self._look_at_all(self._lanes.values(), now)
        for lane in tuple(self._pausing):
            if lane.not_before <= now:
                self._pausing.discard(lane)
                self._look_at(lane, now)
        self.due_at = self._next_due()

    def _next_due(self) -> float:
        due = [self._expiry, *(lane.not_before for lane in self._pausing)]
        hungry = self._idempotent and (self.identity is None or self._starving)
        if hungry and not self._asking and self.fatal is None:
            due.append(self._ask_at)
        return min(due)

    def fail(self, error: TailraceError) -> None:
        """Resolve everything with `error`, now and from now on."""
        if self.fatal is None:
            self.fatal = error
            for lane in self._lanes.values():
                lane.abort(error)

    # ------------------------------------------------------------------ inside

    def _new_lane(self, batch: Batch, now: float) -> Lane | None:
        """A lane for a batch that has none; None if it was resolved instead, since it has no place to go."""
        key = (batch.topic_id, batch.partition)
        error = self.fatal
        if error is None and key not in self._lanes:
            lane = Lane(
                *key, idempotent=self._idempotent, backoff=Backoff(self._random), resolved=self.resolved
            )
            self._lead(lane, now)
            self._lanes[key] = lane
            if not lane.gone:
                return lane
        self.resolved.append(Resolved(batch, -1, error or deleted(batch.outcome.topic)))
        return None

    def _lead(self, lane: Lane, now: float) -> None:
        info = self._lookup(lane.topic_id, lane.partition)
        if info is not None:
            lane.lead(info.leader, info.leader_epoch, now)
        elif not lane.gone:
            lane.remove()

    def _look_at(self, lane: Lane, now: float) -> None:
        """Something has changed for the lane: does it have to be served, woken or fed?"""
        if lane.identity is None and lane.starving():
            if self.identity is not None and self.identity != lane.spent:
                lane.adopt(self.identity)
            else:
                self._starving.add(lane)
                self.due_at = min(self.due_at, self._ask_at)
        if not lane.waiting:
            return
        if lane.not_before > now:
            self._pausing.add(lane)
            self.due_at = min(self.due_at, lane.not_before)
        elif not lane.queued and lane.free(now):
            lane.queued = True
            self.queues.setdefault(lane.leader, deque()).append(lane)

    def _look_at_all(self, lanes: Iterable[Lane], now: float) -> None:
        for lane in lanes:
            self._look_at(lane, now)

    def _fill(self, node_id: int, queue: deque[Lane], now: float) -> Shipment:
        """Take one batch of each lane in turn until the request is full."""
        shipment = Shipment(node_id)
        while queue:
            lane = queue[0]
            if not (lane.waiting and lane.free(now)):
                queue.popleft().queued = False
                self._look_at(lane, now)
                continue
            if shipment.batches and shipment.full(lane.waiting[0].size):
                break
            batch = lane.take()
            if lane.waiting:
                queue.rotate(-1)
            else:
                queue.popleft().queued = False
            self.retries += batch.attempts > 1
            shipment.add(lane, batch)
        return shipment

    def _landed(self, shipment: Shipment) -> None:
        self._unacked_bytes[shipment.node_id] -= shipment.size
        self.batches_in_flight -= len(shipment.batches)

    def _failed(self, lane: Lane, batch: Batch, error: TailraceError, now: float) -> None:
        lane.failed(batch, error, now)
        if error.code == ErrorCode.FENCED_PRODUCER:
            self.fail(error)
