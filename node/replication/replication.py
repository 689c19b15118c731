"""The edge of replication: connections to the other nodes, what comes in over them, what has to go out.

Belongs to the network thread. `LeadReplica` and `Copier` decide; the writer does what needs a transaction.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from random import Random
from typing import Final

from tailrace.client.connections import Connections
from tailrace.client.link import COORDINATOR, Location
from tailrace.protocol.errors import (
    BusyError,
    ConnectionFailedError,
    LeaderNotAvailableError,
    MalformedRequestError,
    NotEnoughReplicasError,
    NotLeaderError,
    StorageFaultError,
    TailraceError,
)
from tailrace.protocol.limits import WAITING_PRODUCES_MAX
from tailrace.protocol.messages import ACKS_ALL, Reply
from tailrace.protocol.replica_messages import (
    AlterIsr,
    IsrProposal,
    LeaveIsr,
    ReplicaFetched,
)
from tailrace.protocol.wire import encode
from tailrace.transport.connection import Connection
from tailrace.transport.pipes import Pipes
from tailrace.transport.poller import Poller, Source
from tailrace.transport.server import Buffer

from ..leaders import Led
from ..membership import Membership
from ..storage.environment import Storage
from ..storage.partition_log import PartitionKey, PartitionLog
from ..work import PendingCopy, PendingProduce
from ..writer import Writer
from .copying import Copier, CopyFetch, CopyStep
from .copying import Source as CopySource
from .failing import Failing
from .faulty import FaultyLogs
from .fetching import send_acks, send_fetch
from .leading import LeadReplica, seen_members
from .leaving import OnReply, answers_of, leave_isr
from .waiting import WaitingProduces

LOOK_S: Final = 0.5
"""How often a leader looks whether a follower has become too late."""
REQUEST_TIMEOUT_S: Final = 5.0

logger: Final = logging.getLogger(__name__)


class Replication:
    """What this node leads with others, and what it follows."""

    def __init__(
        self,
        node_id: int,
        *,
        connect: Callable[[str], Connection],
        poller: Poller,
        membership: Membership,
        coordinators: tuple[str, ...],
        storage: Storage,
        writer: Writer,
        random: Random,
    ) -> None:
        self._node_id = node_id
        self._membership = membership
        self._coordinators = deque(coordinators)
        self._storage = storage
        self._writer = writer
        self._led: dict[PartitionKey, tuple[PartitionLog, LeadReplica]] = {}
        self._moved: dict[PartitionKey, PartitionLog] = {}
        """Of these the high watermark may have moved."""
        self._looks: dict[PartitionKey, None] = {}
        """Both in their order, so that one run is as another."""
        self._look_at = inf
        self._unheard = False
        """Did the coordinator not answer the last time? Then that was logged."""
        self._now = 0.0
        self._actions: deque[Callable[[], None]] = deque()
        self.waiting = WaitingProduces()
        self.faulty = FaultyLogs()
        self._failing = Failing()
        self.copier = Copier(end_of_epoch=storage.end_of_epoch, last_epoch=storage.last_epoch, random=random)
        self._connections = Connections(
            poller=poller,
            connect=connect,
            locate=self._locate,
            defer=self._actions.append,
            on_ready=lambda _: None,
            on_impatient=self._impatient,
            random=random,
        )

    # ------------------------------------------------------------------- leading

    def lead(self, led: Mapping[PartitionKey, Led], now: float) -> None:
        """These are led from now on; of those with more replicas, the followers are looked after."""
        for key, (log, leader_epoch) in led.items():
            topic = self._membership.cluster.topics.get(key[0])
            info = None if topic is None else topic.partitions[key[1]]
            if log.sole_replica:
                self._moved[key] = log
            if topic is None or info is None or log.sole_replica or info.leader_epoch != leader_epoch:
                self._led.pop(key, None)
                continue
            known = self._led.get(key)
            if known is not None and known[1].leader_epoch == leader_epoch:
                continue
            replica = LeadReplica(
                self._node_id, info, topic.config.min_insync_replicas, start=log.epoch_start, now=now
            )
            self._led[key] = (log, replica)
            self._moved[key] = log
        if self._led:  # never later than it was: states may follow each other faster than this
            self._look_at = min(self._look_at, now + LOOK_S)

    def resign(self, keys: Iterable[PartitionKey]) -> list[PendingProduce]:
        """These are not led any more. Returns the requests that nobody can answer but with an error."""
        keys = list(keys)
        for key in keys:
            self._led.pop(key, None)
            self._moved.pop(key, None)
            self._looks.pop(key, None)
        return self.waiting.give_up(keys)

    def follow_state(self, topic_ids: Iterable[bytes] | None, now: float) -> None:
        """The cluster state has moved on, for these topics or (None) for all."""
        topics = self._membership.cluster.topics
        touched = None if topic_ids is None else set(topic_ids)
        for key, (log, replica) in self._led.items():
            if touched is not None and key[0] not in touched:
                continue
            topic = topics.get(key[0])
            if topic is not None and key[1] < len(topic.partitions):
                info = topic.partitions[key[1]]
                if info.leader_epoch == replica.leader_epoch:
                    replica.follow(info, topic.config.min_insync_replicas)
                    self._moved[key] = log
        for topic_id in topics.keys() if touched is None else touched:
            self._bound_copies(topic_id, now)
        self._connections.relocate(now)

    def _bound_copies(self, topic_id: bytes, now: float) -> None:
        """What moves to this node may be bounded."""
        topic = self._membership.cluster.topics.get(topic_id)
        partitions = () if topic is None else topic.partitions
        rates = {i: p.throttle for i, p in enumerate(partitions) if p.throttle and self._node_id in p.adding}
        self.copier.throttle.bound(topic_id, rates, now)

    def refuse_unwritable(self, log: PartitionLog, acks: int, now: float) -> None:
        """Raises NotEnoughReplicasError, BusyError, LeaderNotAvailableError, if nothing may be appended now.

        What only the leader has is safe only while it surely leads (RELIABILITY R13).
        """
        if log.sole_replica:
            return
        led = self._led.get(log.key)
        if led is None:
            raise NotLeaderError(f"{log.name} is not led here")
        if acks != ACKS_ALL:
            self._refuse_past_lease(log, now)
        else:
            if not led[1].enough:
                raise NotEnoughReplicasError(f"{log.name}: fewer than min_insync_replicas are in sync")
            if self.waiting.count >= WAITING_PRODUCES_MAX:
                raise BusyError(
                    f"{WAITING_PRODUCES_MAX} requests wait for other replicas already; retry later"
                )

    def refuse_end(self, log: PartitionLog, now: float) -> None:
        """Raises LeaderNotAvailableError, if nobody may be told where the log ends, or that nothing is there.

        Until its high watermark has reached the start of its own epoch, a new leader may be behind what was
        read before (R8); an old one that is cut off may be behind its successor (R13).
        """
        if log.high_watermark < log.epoch_start:
            raise LeaderNotAvailableError(f"the new leader of {log.name} finds out what is committed")
        if not log.sole_replica:
            self._refuse_past_lease(log, now)

    def past_lease(self, now: float) -> bool:
        """A node that has not heard of the coordinator for its lease may have been replaced."""
        return now > self._membership.lease_until

    def _refuse_past_lease(self, log: PartitionLog, now: float) -> None:
        if self.past_lease(now):
            raise LeaderNotAvailableError(f"{log.name}: this node has not heard of the coordinator for long")

    def replaceable(self, log: PartitionLog) -> bool:
        """Could another replica lead in place of this one?"""
        led = self._led.get(log.key)
        return led is not None and led[1].accompanied

    def is_replica(self, key: PartitionKey, node_id: int) -> bool:
        """May this node follow?"""
        led = self._led.get(key)
        return led is not None and led[1].is_replica(node_id)

    def fetched(self, key: PartitionKey, node_id: int, node_epoch: int, offset: int, now: float) -> None:
        """A follower says what it has on disk."""
        log, replica = self._led[key]
        replica.fetched(node_id, node_epoch, offset, end_offset=log.log_end_offset, now=now)
        self._moved[key] = log

    def acknowledged(self, key: PartitionKey, node_id: int, node_epoch: int, offset: int, now: float) -> None:
        """A follower that has fetched has more on disk."""
        led = self._led.get(key)
        if led is not None and led[1].acknowledged(
            node_id, node_epoch, offset, end_offset=led[0].log_end_offset, now=now
        ):
            self._moved[key] = led[0]

    def grown(self, sizes: Mapping[PartitionKey, int]) -> Mapping[PartitionKey, int]:
        """These were appended to, by so many bytes. Returns those that wait for no other replica."""
        if not self._led:
            return sizes
        self._moved.update((key, self._led[key][0]) for key in sizes if key in self._led)
        return {key: size for key, size in sizes.items() if key not in self._led}

    def take_moved(self) -> list[tuple[PartitionKey, list[PendingProduce]]]:
        """The partitions whose high watermark has moved since the last call, and what waited for that."""
        moved = []
        for key, log in self._moved.items():
            led = self._led.get(key)
            if led is None:  # it has become the only replica: all of its log is committed
                moved.append((key, self.waiting.advanced(key, log.high_watermark)))
                continue
            self._looks[key] = None
            high_watermark = led[1].high_watermark(log.high_watermark, log.log_end_offset)
            if self._storage.raise_high_watermark(log, high_watermark):
                moved.append((key, self.waiting.advanced(key, high_watermark)))
        self._moved.clear()
        return moved

    # ----------------------------------------------------------------- following

    def copy(self, logs: Mapping[PartitionKey, tuple[PartitionLog, CopySource]]) -> None:
        """These are followed from now on, but for logs that are faulty."""
        self.copier.copy(
            {key: (log, source) for key, (log, source) in logs.items() if not self.faulty.holds(log)}
        )

    def leave(self, keys: Iterable[PartitionKey]) -> None:
        """These are not followed any more, or not from the same leader."""
        keys = list(keys)
        self.copier.stop(keys)
        self._failing.forget(keys)

    def copied(
        self, results: Sequence[tuple[CopyStep, TailraceError | None]], seconds: float, now: float
    ) -> None:
        """The writer is through with a group, with these steps in it, and was at it for so long."""
        self.copier.pace.committed(max([step.size for step, _ in results]) if results else 0, seconds)
        for step, error in results:
            if self.copier.follows(step) and (told := self._failing.take(step, error, now)) is not None:
                logger.warning("%s", told)
            self.copier.done(step, error, now)
            if isinstance(error, StorageFaultError):
                self.found_faulty(step.log)

    def found_faulty(self, log: PartitionLog) -> None:
        """This log cannot be written or read: others have to lead it, and it is made anew."""
        if self.faulty.found(log):
            logger.error("the log of %s is faulty; it is to be copied anew from another node", log.name)
            self.copier.stop([log.key])

    # ------------------------------------------------------------------ the loop

    @property
    def busy(self) -> bool:
        """May there be more to do than `next_tick` tells the time of? Not while no partition is shared."""
        return bool(self._led or self._moved or self._actions or self.copier or self.faulty)

    def step(self, ready: Iterable[Source], now: float) -> None:
        """Take in what has come, send what is to be sent."""
        self._now = now
        for source in ready:
            if isinstance(source, Connection | Pipes):
                self._connections.receive(source, now)
        for _ in range(len(self._actions)):
            self._actions.popleft()()
        self._connections.advance(now)
        node_epoch = self._membership.node_epoch
        node = (self._node_id, node_epoch or 0)
        for fetch in self.copier.plan(now):
            on_reply = partial(self._fetch_answered, fetch)
            send_fetch(
                self._connections, fetch, node, on_reply=on_reply, timeout_s=REQUEST_TIMEOUT_S, now=now
            )
        send_acks(self._connections, self.copier.take_acks(), node, now)
        self._propose(now)
        if now >= self.faulty.next_tick() and node_epoch is not None:
            request_id = self._connections.next_id()
            leave_isr(self.faulty, self._ask, request_id, self._node_id, node_epoch=node_epoch, now=now)
        steps = self.copier.take_steps()
        if steps:  # last: the writer, once woken, takes the interpreter from this thread
            self._writer.submit(PendingCopy(steps, sum(step.size for step in steps)))

    def next_tick(self, now: float) -> float:
        """When `step` has something to do at the latest."""
        if self._actions:
            return now
        return min(
            self._connections.due(now), self.copier.next_tick(), self._look_at, self.faulty.next_tick()
        )

    def close(self) -> None:
        """Close the connections."""
        self._connections.close(ConnectionFailedError("this node stops"))

    # ------------------------------------------------------------------ inside

    def _fetch_answered(
        self, fetch: CopyFetch, reply: Reply | TailraceError, frames: Sequence[Buffer]
    ) -> None:
        if isinstance(reply, ReplicaFetched) and sum(r.batches for r in reply.results) == len(frames):
            # Copies: what the writer checks and stores must not be memory that the leader can write to.
            batches = list(map(bytes, frames))
            self.copier.replied(fetch.fetch_id, reply.results, batches, self._now)
            return
        if not isinstance(reply, TailraceError):
            reply = MalformedRequestError(f"got {reply!r:.200} with {len(frames)} frames")
        logger.debug("fetching from node %d: %s", fetch.leader, reply)
        self.copier.failed(fetch.fetch_id, self._now)

    def _propose(self, now: float) -> None:
        keys: Iterable[PartitionKey] = self._looks
        if now >= self._look_at:
            self._look_at = now + LOOK_S if self._led else inf
            keys = tuple(self._led)
        if not keys or self._membership.node_epoch is None:
            return
        self._looks = {}
        nodes = self._membership.cluster.nodes.values()
        node_epochs = {node.node_id: node.node_epoch for node in nodes if node.alive}
        proposals: dict[PartitionKey, tuple[LeadReplica, IsrProposal]] = {}
        for key in keys:
            if key not in self._led:
                continue
            log, replica = self._led[key]
            isr = replica.propose(log.high_watermark, node_epochs, now)
            if isr is not None:
                proposal = IsrProposal(*key, replica.leader_epoch, replica.partition_epoch, isr)
                proposals[key] = (replica, proposal)
        if proposals:
            self._ask_coordinator(proposals, now)

    def _ask_coordinator(
        self, proposals: dict[PartitionKey, tuple[LeadReplica, IsrProposal]], now: float
    ) -> None:
        request = AlterIsr(
            self._connections.next_id(),
            node_id=self._node_id,
            node_epoch=self._membership.node_epoch or 0,
            proposals=[proposal for _, proposal in proposals.values()],
            member_epochs=seen_members(replica for replica, _ in proposals.values()),
        )

        def on_reply(reply: Reply | TailraceError, _frames: Sequence[Buffer]) -> None:
            answers = answers_of(reply, len(proposals))
            was_unheard, self._unheard = self._unheard, None in answers
            if self._unheard and not was_unheard:
                logger.warning("the coordinator was asked for other in-sync replicas: %s", reply)
            for (key, (replica, _)), answer in zip(proposals.items(), answers, strict=True):
                if answer is None:
                    replica.unanswered()
                else:
                    replica.answered(answer.partition)
                if key in self._led and self._led[key][1] is replica:
                    self._moved[key] = self._led[key][0]

        self._ask(request, on_reply, now)

    def _ask(self, request: AlterIsr | LeaveIsr, on_reply: OnReply, now: float) -> None:
        ask = partial(self._connections.request, COORDINATOR, request.request_id, encode(request), ())
        ask(on_reply=on_reply, timeout_s=REQUEST_TIMEOUT_S, now=now)

    def _locate(self, destination: int) -> Location | TailraceError:
        if destination == COORDINATOR:
            return Location(self._coordinators[0])
        node = self._membership.cluster.nodes.get(destination)
        if node is None or not node.alive:
            return ConnectionFailedError(f"node {destination} is down")
        return Location(node.listener, node.node_epoch)

    def _impatient(self, destination: int) -> None:
        if destination == COORDINATOR:
            self._coordinators.rotate(-1)
