"""Small producers and consumers, on the production client's connections and copy of the cluster state."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from tailrace.client.connections import Connections
from tailrace.client.link import COORDINATOR as TO_COORDINATOR
from tailrace.client.link import Location
from tailrace.producer.lane import NOT_STORED
from tailrace.protocol.batch import parse_header
from tailrace.protocol.cluster import NO_LEADER, PartitionInfo
from tailrace.protocol.cluster_copy import ClusterCopy
from tailrace.protocol.columns import encode as encode_batch
from tailrace.protocol.errors import ConnectionFailedError, ErrorCode, FencedProducerError, TailraceError
from tailrace.protocol.messages import (
    ACKS_LEADER,
    EARLIEST,
    LATEST,
    Fetch,
    Fetched,
    FetchEntry,
    GetSnapshot,
    InitProducer,
    ListOffsets,
    OffsetQuery,
    OffsetsListed,
    Produce,
    Produced,
    ProduceEntry,
    ProducerReady,
    SnapshotTaken,
)
from tailrace.protocol.wire import encode

from .checker import Checker, Key
from .node_process import COORDINATOR
from .schedule import Process, Schedule, Violation
from .sockets import Network, SimConnection, SimPoller

REFRESH_S = 0.4
RETRY_S = 0.05
TIMEOUT_S = 0.7
TOKEN_MS = 1_600_000_000_000
"""A batch is known by its timestamp: this and its number."""
LOST_TRACK = frozenset(
    {ErrorCode.OUT_OF_ORDER_SEQUENCE, ErrorCode.UNKNOWN_PRODUCER_ID, ErrorCode.FENCED_PRODUCER}
)


class Client(Process):
    """Knows the cluster, and asks nodes."""

    def __init__(self, name: str, schedule: Schedule, network: Network, checker: Checker) -> None:
        super().__init__(name, schedule)
        self.checker = checker
        self.copy = ClusterCopy()
        self.quiet = False
        """Nothing new is begun."""
        self._poller = SimPoller()
        self._actions: deque[Callable[[], None]] = deque()
        self._refresh_at = 0.0
        self._refreshing = False
        self._connections = Connections(
            poller=self._poller,
            connect=partial(SimConnection, network, self),
            locate=self._locate,
            defer=self._actions.append,
            on_ready=lambda _: None,
            on_impatient=lambda _: None,
            random=Random(schedule.random.getrandbits(32)),
        )

    def _locate(self, destination: int) -> Location | TailraceError:
        if destination == TO_COORDINATOR:
            return Location(COORDINATOR)
        node = self.copy.state.nodes.get(destination)
        if node is None or not node.alive:
            return ConnectionFailedError(f"node {destination} is down")
        return Location(node.listener, node.node_epoch)

    def ask(self, destination: int, request: Any, frames: Any, on_reply: Callable[..., None]) -> None:
        def checked(reply: Any, frames: Any) -> None:
            if isinstance(reply, TailraceError) and str(reply).startswith("internal error"):
                raise Violation(f"{destination} to {type(request).__name__}: {reply}")
            on_reply(reply, frames)

        self._connections.request(
            destination,
            request.request_id,
            encode(request),
            frames,
            on_reply=checked,
            timeout_s=TIMEOUT_S,
            now=self.schedule.now,
        )

    def next_id(self) -> int:
        return self._connections.next_id()

    def leader(self, key: Key) -> PartitionInfo | None:
        topic = self.copy.state.topics.get(key[0])
        info = None if topic is None else topic.partitions[key[1]]
        return None if info is None or info.leader == NO_LEADER else info

    def refresh(self) -> None:
        self._refresh_at = min(self._refresh_at, self.schedule.now + RETRY_S / 2)

    def step(self) -> None:
        now = self.schedule.now
        for connection in self._poller.ready():
            self._connections.receive(connection, now)
        for _ in range(len(self._actions)):
            self._actions.popleft()()
        self._connections.advance(now)
        if now >= self._refresh_at and not self._refreshing:
            self._refreshing, self._refresh_at = True, now + REFRESH_S
            self.ask(TO_COORDINATOR, GetSnapshot(self.next_id()), (), self._refreshed)
        due = self.work(now)
        if self._actions or self._poller.ready():
            due = now
        refresh_at = now + REFRESH_S if self._refreshing else self._refresh_at
        self.wake(min(due, refresh_at, self._connections.due(now) or 1e12))

    def _refreshed(self, reply: Any, _frames: Any) -> None:
        self._refreshing = False
        if isinstance(reply, SnapshotTaken):
            self.copy.take_snapshot(reply.snapshot)
            self._connections.relocate(self.schedule.now)

    def work(self, now: float) -> float:
        raise NotImplementedError


@dataclass
class Batch:
    token: int
    count: int
    sequence: int
    asked: bool = False
    retry_at: float = 0.0
    attempts: int = 0
    maybe_stored: bool = False
    """An attempt was not answered, or by an error that leaves that open."""


@dataclass
class Stream:
    """What a producer sends to one partition, in its order, under an id of its own."""

    sequence: int = 0
    unacked: list[Batch] = field(default_factory=list)
    next_at: float = 0.0
    id: int = -1
    epoch: int = -1
    asked_id: bool = False
    lost_track: bool = False
    """The old id and epoch lead nowhere: nothing is sent before there are others."""


class Producer(Client):
    """Idempotent. Sends up to three batches at once to each partition, and each until it is acknowledged."""

    def __init__(self, *args: Any, keys: list[Key], acks: int, pause_s: float) -> None:
        super().__init__(*args)
        self.acks = acks
        self._pause_s = pause_s
        self.lull_until = 0.0
        self.streams = {key: Stream() for key in keys}

    @property
    def idle(self) -> bool:
        return not any(stream.unacked for stream in self.streams.values())

    def work(self, now: float) -> float:
        due = now + 0.2
        silent = self.quiet or now < self.lull_until
        for key, stream in self.streams.items():
            if stream.id < 0 or stream.lost_track:
                self._init(stream)
                continue
            if now >= stream.next_at and len(stream.unacked) < 3 and not silent:
                count = self.schedule.random.randint(1, 3)
                stream.unacked.append(Batch(self.checker.new_token(self.acks), count, stream.sequence))
                stream.sequence += count
                stream.next_at = now + self.schedule.between(0, 2 * self._pause_s)
            if len(stream.unacked) < 3 and not silent:
                due = min(due, stream.next_at)
            for batch in stream.unacked:
                if not batch.asked and now >= batch.retry_at:
                    self._send(key, batch, now)
                if not batch.asked:
                    due = min(due, batch.retry_at)
        return due

    def _init(self, stream: Stream) -> None:
        if not stream.asked_id:
            stream.asked_id = True
            request = InitProducer(self.next_id(), producer_id=stream.id, producer_epoch=stream.epoch)
            self.ask(TO_COORDINATOR, request, (), partial(self._inited, stream))

    def _inited(self, stream: Stream, reply: Any, _frames: Any) -> None:
        stream.asked_id = False
        if isinstance(reply, ProducerReady):
            stream.id, stream.epoch = reply.producer_id, reply.producer_epoch
            stream.sequence, stream.lost_track = 0, False
            for batch in stream.unacked:
                batch.sequence = stream.sequence
                stream.sequence += batch.count
        elif isinstance(reply, FencedProducerError):  # an answer was lost
            stream.id = stream.epoch = -1

    def _send(self, key: Key, batch: Batch, now: float) -> None:
        info = self.leader(key)
        batch.retry_at = now + RETRY_S
        if info is None:
            self.refresh()
            return
        stream = self.streams[key]
        data = encode_batch(
            [b"x"] * batch.count,
            timestamps=TOKEN_MS + batch.token,
            producer_id=stream.id,
            producer_epoch=stream.epoch,
            base_sequence=batch.sequence,
        )
        batch.asked, batch.attempts = True, batch.attempts + 1
        sent_as = (stream.id, stream.epoch, batch is stream.unacked[0])
        entry = ProduceEntry(*key, info.leader_epoch)
        request = Produce(self.next_id(), acks=self.acks, entries=[entry])
        self.ask(info.leader, request, (data,), partial(self._answered, key, batch, sent_as, info, now))

    def _answered(
        self,
        key: Key,
        batch: Batch,
        sent_as: tuple[int, int, bool],
        info: PartitionInfo,
        asked_at: float,
        reply: Any,
        _frames: Any,
    ) -> None:
        batch.asked = False
        stream = self.streams[key]
        error = reply if isinstance(reply, TailraceError) else None
        if isinstance(reply, Produced):
            [result] = reply.results
            if result.error.code == ErrorCode.NONE:
                if batch in stream.unacked:
                    stream.unacked.remove(batch)
                self.checker.acked(self, key, batch.token, info.leader_epoch, result.base_offset)
                if self.acks == ACKS_LEADER:
                    what = f"that batch {batch.token} is stored"
                    self.checker.said_alone(info.leader, key, asked_at, what)
                return
            code: Any = ErrorCode(result.error.code)
        else:
            code = error.code if error is not None else None
        batch.maybe_stored = batch.maybe_stored or code not in NOT_STORED
        batch.retry_at = self.schedule.now + self.schedule.between(RETRY_S / 2, RETRY_S)
        self.refresh()
        if code in LOST_TRACK and sent_as == (stream.id, stream.epoch, True):
            self.checker.lost_track(self, key, batch.token, code)
            # As production's: what may be stored is given up, and never sent under other numbers.
            stream.unacked = [each for each in stream.unacked if not (each.maybe_stored or each.asked)]
            stream.lost_track = True


class Consumer(Client):
    """Reads each partition from the start; sometimes asks where it ends.

    With `again_s` it reads one batch in so many seconds, and begins anew at each end that it is told.
    """

    def __init__(self, *args: Any, keys: list[Key], again_s: float = 0.0) -> None:
        super().__init__(*args)
        self.positions = dict.fromkeys(keys, 0)
        self._again_s = again_s
        self._busy: set[Key] = set()
        self._lost: set[Key] = set()
        """Their positions are out of range: where do they start?"""
        self._retry_at = dict.fromkeys(keys, 0.0)
        self._ask_end_at = 0.0

    def work(self, now: float) -> float:
        due = now + 0.2
        for key in self.positions:
            if key not in self._busy:
                if now >= self._retry_at[key]:
                    self._go_on(key, now)
                due = min(due, self._retry_at[key])
        if now >= self._ask_end_at:
            self._ask_end_at = now + self.schedule.between(0.02, 0.2)
            key = self.schedule.random.choice(list(self.positions))
            if (info := self.leader(key)) is not None:
                floor = self.checker.floor(self, key)
                self._look_up(key, info, LATEST, partial(self._told_end, key, floor, info.leader, now))
        return min(due, self._ask_end_at)

    def _look_up(self, key: Key, info: PartitionInfo, which: int, on_reply: Callable[..., None]) -> None:
        request = ListOffsets(self.next_id(), queries=[OffsetQuery(*key, info.leader_epoch, which)])
        self.ask(info.leader, request, (), on_reply)

    def _told_end(
        self, key: Key, floor: int, node_id: int, asked_at: float, reply: Any, _frames: Any
    ) -> None:
        if isinstance(reply, OffsetsListed) and reply.results[0].error.code == ErrorCode.NONE:
            self.checker.told_end(self, key, reply.results[0].offset, floor)
            self.checker.said_alone(node_id, key, asked_at, "where it ends")

    def _go_on(self, key: Key, now: float) -> None:
        info = self.leader(key)
        self._retry_at[key] = now + RETRY_S
        if info is None:
            self.refresh()
            return
        self._busy.add(key)
        if key in self._lost:
            self._look_up(key, info, EARLIEST, partial(self._told_start, key))
            return
        request_id = self.next_id()
        # One batch at a time, mostly: it is behind the high watermark that it was told.
        max_bytes = 1 if self._again_s or request_id % 3 else 1 << 20
        entry = FetchEntry(*key, info.leader_epoch, self.positions[key], max_bytes)
        request = Fetch(request_id, max_wait_ms=200, entries=[entry])
        self.ask(info.leader, request, (), partial(self._fetched, key, self.checker.floor(self, key)))

    def _told_start(self, key: Key, reply: Any, _frames: Any) -> None:
        self._busy.discard(key)
        if isinstance(reply, OffsetsListed) and reply.results[0].error.code == ErrorCode.NONE:
            self._lost.discard(key)
            self.positions[key] = max(self.positions[key], reply.results[0].offset)
        else:
            self.refresh()

    def _fetched(self, key: Key, floor: int, reply: Any, frames: list[bytes]) -> None:
        self._busy.discard(key)
        now = self.schedule.now
        if not isinstance(reply, Fetched):
            self._retry_at[key] = now + RETRY_S
            self.refresh()
            return
        self._retry_at[key] = now + self._again_s
        if self._again_s and not reply.results:
            self.positions[key] = 0
        for result in reply.results:
            code = ErrorCode(result.error.code)
            if code is not ErrorCode.NONE:
                self._retry_at[key] = now + RETRY_S
                self.refresh()
                if code is ErrorCode.OFFSET_OUT_OF_RANGE:
                    self.checker.out_of_range(self, key, self.positions[key])
                    self._lost.add(key)
                continue
            if result.high_watermark >= 0:
                self.checker.told_end(self, key, result.high_watermark, floor)
            for frame in frames:
                header = parse_header(frame)
                self.checker.read(self, key, header, self.positions[key], result.high_watermark)
                self.positions[key] = header.last_offset + 1
