"""What to send to which node, and what the answers mean. Pure: no socket, clock or thread.

Each partition is a `Lane`; the lanes that a node leads share its requests. The one who asks:

    sender.add(batch, now)                     sealed batches
    sender.tick(now)                           what is due by time
    while shipment := sender.next_shipment(now):
        ... send it; later sender.answered(shipment, results, now) or sender.lost(shipment, error, now)
    sender.ask_identity(now)                   a producer id is wanted: sender.identified or .unidentified
    sender.take_resolved()                     tell the application
    sender.wake_at()                           when to come again
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from random import Random

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

PartitionLookup = Callable[[bytes, int], PartitionInfo | None]
"""(topic id, partition) -> what the cluster state says of it, None if there is no such partition."""


class Shipment:
    """Batches that travel in one request to one node."""

    __slots__ = ("batches", "entries", "lanes", "node_id", "size")

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        self.lanes: list[Lane] = []
        self.batches: list[Batch] = []
        self.entries: list[ProduceEntry] = []
        self.size = 0

    def add(self, lane: Lane, batch: Batch) -> None:
        """One more batch, under the leader epoch that is known now."""
        self.lanes.append(lane)
        self.batches.append(batch)
        self.entries.append(ProduceEntry(lane.topic_id, lane.partition, lane.leader_epoch))
        self.size += batch.size

    def full(self, next_size: int) -> bool:
        """Is there no place for one of `next_size` bytes?"""
        return len(self.batches) >= PRODUCE_BATCHES_MAX or (
            bool(self.batches) and self.size + next_size > PRODUCE_REQUEST_BYTES
        )


class Sender:
    """All lanes of one producer."""

    def __init__(self, *, idempotent: bool, lookup: PartitionLookup, random: Random) -> None:
        self.identity: Identity | None = None
        self.retries = 0
        """Batches that were sent again."""
        self.batches_in_flight = 0
        """Batches that were sent and not answered yet."""
        self._idempotent = idempotent
        self._lookup = lookup
        self._random = random
        self._lanes: dict[tuple[bytes, int], Lane] = {}
        self._queues: dict[int, deque[Lane]] = {}
        """Lanes that may have something to send, by node, in turn."""
        self._unacked_bytes: defaultdict[int, int] = defaultdict(int)
        self._pausing: set[Lane] = set()
        self._starving: set[Lane] = set()
        self._expiry: float | None = None
        """No batch expires before this."""
        self._resolved: list[Resolved] = []
        self._asking = False
        self._ask_at = 0.0
        self._ask_backoff = Backoff(random)
        self._ask_error: TailraceError | None = None
        self._fatal: TailraceError | None = None

    # ----------------------------------------------------------------- batches

    def add(self, batch: Batch, now: float) -> None:
        """A sealed batch, to be sent behind all others of its partition."""
        lane = self._lane(batch, now)
        if lane is None:
            return
        lane.add(batch)
        if self._expiry is None or batch.deadline < self._expiry:
            self._expiry = batch.deadline
        self._look_at(lane, now)

    def wanted(self, batch: Batch, now: float) -> bool:
        """Would this batch be sent at once if it were sealed? If not, it may as well fill up."""
        lane = self._lanes.get((batch.topic_id, batch.partition))
        if lane is None:
            return not self._idempotent or self.identity is not None
        return not lane.waiting and lane.free(now) and self._has_room(lane.leader)

    def next_shipment(self, now: float) -> Shipment | None:
        """The next request to send, if any node has both something to get and room for it."""
        for node_id, queue in self._queues.items():
            if queue and self._has_room(node_id):
                shipment = self._fill(node_id, queue, now)
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
        self.answered(shipment, [ProduceResult(OK, -1, -1)] * len(shipment.batches), now)

    def take_resolved(self) -> list[Resolved]:
        """The batches that the application must be told of, in order."""
        resolved = self._resolved[:]
        self._resolved.clear()
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
        if not self._idempotent or self._asking or now < self._ask_at or self._fatal is not None:
            return None
        if self.identity is not None and not self._starving:
            return None
        self._asking = True
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

    # ------------------------------------------------------------ cluster, time

    def update_leaders(self, now: float) -> None:
        """The cluster state has changed: lanes go to the queues of other nodes, or end."""
        self._queues.clear()
        for key, lane in tuple(self._lanes.items()):
            lane.queued = False
            self._lead(lane, now)
            if lane.gone and not lane.unresolved():
                del self._lanes[key]
        self._look_at_all(self._lanes.values(), now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._expiry is not None and self._expiry <= now:
            for lane in self._lanes.values():
                lane.expire(now)
            deadlines = [lane.next_deadline() for lane in self._lanes.values()]
            self._expiry = min((at for at in deadlines if at is not None), default=None)
            self._look_at_all(self._lanes.values(), now)
        for lane in tuple(self._pausing):
            if lane.not_before <= now:
                self._pausing.discard(lane)
                self._look_at(lane, now)

    def wake_at(self) -> float | None:
        """When there is something to do without any answer or new batch."""
        due = [lane.not_before for lane in self._pausing]
        if self._expiry is not None:
            due.append(self._expiry)
        hungry = self._idempotent and (self.identity is None or self._starving)
        if hungry and not self._asking and self._fatal is None:
            due.append(self._ask_at)
        return min(due, default=None)

    def fail(self, error: TailraceError) -> None:
        """Resolve everything with `error`, now and from now on."""
        if self._fatal is None:
            self._fatal = error
            for lane in self._lanes.values():
                lane.abort(error)

    @property
    def fatal(self) -> TailraceError | None:
        """Why nothing can be sent any more."""
        return self._fatal

    # ------------------------------------------------------------------ inside

    def _lane(self, batch: Batch, now: float) -> Lane | None:
        """The lane of a batch; None if it was resolved instead, since it has no place to go."""
        key = (batch.topic_id, batch.partition)
        lane = self._lanes.get(key)
        error = self._fatal
        if lane is None and error is None:
            lane = Lane(
                *key, idempotent=self._idempotent, backoff=Backoff(self._random), resolved=self._resolved
            )
            self._lead(lane, now)
            self._lanes[key] = lane
        if error is None and lane is not None and lane.gone:
            error = deleted(batch.outcome.topic)
        if error is not None:
            self._resolved.append(Resolved(batch, -1, error))
            return None
        return lane

    def _lead(self, lane: Lane, now: float) -> None:
        info = self._lookup(lane.topic_id, lane.partition)
        if info is not None:
            lane.lead(info.leader, info.leader_epoch, now)
        elif not lane.gone:
            lane.remove()

    def _look_at(self, lane: Lane, now: float) -> None:
        """Something has changed for the lane: does it have to be served, woken or fed?"""
        if lane.starving():
            if self.identity is not None and self.identity != lane.spent:
                lane.adopt(self.identity)
            else:
                self._starving.add(lane)
        if lane.not_before > now and lane.waiting:
            self._pausing.add(lane)
        elif not lane.queued and lane.sendable(now):
            lane.queued = True
            self._queues.setdefault(lane.leader, deque()).append(lane)

    def _look_at_all(self, lanes: Iterable[Lane], now: float) -> None:
        for lane in lanes:
            self._look_at(lane, now)

    def _has_room(self, node_id: int) -> bool:
        return self._unacked_bytes[node_id] < PRODUCE_IN_FLIGHT_BYTES_MAX

    def _fill(self, node_id: int, queue: deque[Lane], now: float) -> Shipment:
        """Take one batch of each lane in turn until the request is full."""
        shipment = Shipment(node_id)
        while queue:
            lane = queue[0]
            if not lane.sendable(now):
                queue.popleft().queued = False
                self._look_at(lane, now)
                continue
            if shipment.full(lane.waiting[0].size):
                break
            queue.rotate(-1)
            batch = lane.take()
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
