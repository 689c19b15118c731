"""Whatever is lost, repeated, refused or late: each log holds what was sent, in order, nothing twice."""

from collections import deque
from collections.abc import Iterator
from math import inf
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tailrace.producer import lane
from tailrace.producer.batch import Batch
from tailrace.producer.sender import Sender, Shipment
from tailrace.protocol.cluster import NO_LEADER, PartitionInfo
from tailrace.protocol.errors import (
    ConnectionFailedError,
    ErrorCode,
    TailraceError,
    TimedOutError,
    error_from,
)
from tailrace.protocol.messages import ProduceResult

from . import model
from .model import Copy, Ids, Log, in_order, refusal, sealed

PARTITIONS = 3
NODES = (1, 2)
IN_FLIGHT_BATCHES_MAX = 4
PRODUCER_WINDOW_BATCHES = 8
"""So few that an example has more."""
SETTLED_WITHIN_S = 30.0
"""Longer than all pauses, shorter than a batch lives: what is not late by then must not fail as late."""
MOMENTARY = [
    ErrorCode.BUSY,
    ErrorCode.STORAGE_FULL,
    ErrorCode.NOT_LEADER,
    ErrorCode.UNKNOWN_LEADER_EPOCH,
    ErrorCode.UNKNOWN_TOPIC,
]
FINAL = [ErrorCode.INVALID_TIMESTAMP, ErrorCode.CORRUPT_BATCH, ErrorCode.BATCH_TOO_LARGE]
DOUBTFUL = [
    ErrorCode.NOT_COMMITTED,
    ErrorCode.STORAGE_FAULT,
    ErrorCode.TIMED_OUT,
    ErrorCode.SHUTTING_DOWN,
    ErrorCode.UNKNOWN,
]


@pytest.fixture(scope="module", autouse=True)
def small_window() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lane, "IN_FLIGHT_BATCHES_MAX", IN_FLIGHT_BATCHES_MAX)
        for module in (lane, model):
            patch.setattr(module, "PRODUCER_WINDOW_BATCHES", PRODUCER_WINDOW_BATCHES)
        yield


class Request:
    """A shipment as bytes on the wire, which may outlive the connection that they were sent on."""

    def __init__(self, shipment: Shipment) -> None:
        self.shipment = shipment
        self.node_id = shipment.node_id
        self.copies = [Copy(batch) for batch in shipment.batches]
        self.awaited = True
        self.results: list[ProduceResult] = []


class ProducerAndNodes(RuleBasedStateMachine):
    """One sender, nodes that lose connections, answers, tails of logs and leadership, and a coordinator."""

    @initialize(seed=st.integers(0, 2**32 - 1))
    def start(self, seed: int) -> None:
        self.now = 100.0
        self.leaders = [(NODES[partition % len(NODES)], 0) for partition in range(PARTITIONS)]
        self.sender = Sender(idempotent=True, lookup=self._lookup, random=Random(seed))
        self.logs = [Log() for _ in range(PARTITIONS)]
        self.ids = Ids()
        self.to_node: dict[int, deque[Request]] = {node: deque() for node in NODES}
        self.stale: list[deque[Request]] = []
        """What was sent on connections that are lost, and may still be read by the node."""
        self.to_producer: deque[Request] = deque()
        self.sent: list[list[Batch]] = [[] for _ in range(PARTITIONS)]
        self.fates: dict[Batch, tuple[int, TailraceError | None]] = {}
        self.rejected: dict[Batch, ErrorCode] = {}
        self.lost_by_node: set[Batch] = set()

    def _lookup(self, _topic_id: bytes, partition: int) -> PartitionInfo:
        leader, epoch = self.leaders[partition]
        return PartitionInfo((1,), leader, epoch, 0, (1,))

    def _append(self, copy: Copy) -> ProduceResult:
        code = self.rejected.get(copy.batch)
        return self.logs[copy.batch.partition].append(copy) if code is None else refusal(code)

    # ------------------------------------------------------------- the producer

    @rule(
        partition=st.integers(0, PARTITIONS - 1), counts=st.lists(st.integers(1, 4), min_size=1, max_size=5)
    )
    def send(self, partition: int, counts: list[int]) -> None:
        for count in counts:
            batch = sealed(partition, count, self.now)
            self.sent[partition].append(batch)
            self.sender.add(batch, self.now)

    @rule()
    def ship(self) -> None:
        self._tick()
        while (shipment := self.sender.next_shipment(self.now)) is not None:
            self.to_node[shipment.node_id].append(Request(shipment))
        self._collect()

    @rule(seconds=st.sampled_from([0.005, 0.02, 1.5, 40.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._tick()
        self._collect()

    def _tick(self) -> None:
        if self.now >= self.sender.due_at:
            self.sender.tick(self.now)

    # ------------------------------------------------------------ the coordinator

    @rule(fate=st.sampled_from(["answered", "answered", "answered", "answer lost", "unreachable"]))
    def identify(self, fate: str) -> None:
        early = self.now < self.sender.due_at
        asked = self.sender.ask_identity(self.now)
        if asked is None:
            return
        assert not early, "there is something to do before due_at"
        if fate == "unreachable":
            self.sender.unidentified(ConnectionFailedError("refused"), self.now)
            return
        identity = self.ids.init(asked)
        if fate == "answer lost":
            self.sender.unidentified(TimedOutError("no answer"), self.now)
        elif isinstance(identity, ErrorCode):
            self.sender.unidentified(error_from(identity, ""), self.now)
        else:
            self.sender.identified(identity, self.now)
        self._collect()

    # ------------------------------------------------------------------ the nodes

    @rule(node=st.sampled_from(NODES))
    def process(self, node: int) -> None:
        if self.to_node[node]:
            request = self.to_node[node].popleft()
            request.results = [self._append(copy) for copy in request.copies]
            self.to_producer.append(request)

    @rule(node=st.sampled_from(NODES), code=st.sampled_from(MOMENTARY), whole=st.booleans())
    def process_refusing(self, node: int, code: ErrorCode, whole: bool) -> None:
        """The first batch of a request is refused, for now; or all of them."""
        if self.to_node[node]:
            request = self.to_node[node].popleft()
            refused = len(request.copies) if whole else 1
            request.results = [
                refusal(code) if place < refused else self._append(copy)
                for place, copy in enumerate(request.copies)
            ]
            self.to_producer.append(request)

    @rule(node=st.sampled_from(NODES), code=st.sampled_from(FINAL), place=st.integers(0, 3))
    def process_rejecting(self, node: int, code: ErrorCode, place: int) -> None:
        """One batch can never be stored: each attempt is refused."""
        if not self.to_node[node]:
            return
        request = self.to_node[node][0]
        batch = request.copies[place % len(request.copies)].batch
        if batch not in self.logs[batch.partition].batches and not self._elsewhere(batch, request):
            self.rejected[batch] = code
            self.process(node)

    def _elsewhere(self, batch: Batch, here: Request) -> bool:
        requests = [r for queue in (*self.to_node.values(), *self.stale) for r in queue if r is not here]
        return any(copy.batch is batch for request in requests for copy in request.copies)

    @rule(node=st.sampled_from(NODES), code=st.sampled_from(DOUBTFUL), stored=st.booleans())
    def process_doubtfully(self, node: int, code: ErrorCode, stored: bool) -> None:
        """The node says that something went wrong; whether the batches are in the log, it does not know."""
        if self.to_node[node]:
            request = self.to_node[node].popleft()
            if stored:
                for copy in request.copies:
                    self._append(copy)
            request.results = [refusal(code)] * len(request.copies)
            self.to_producer.append(request)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def process_stale(self, data: st.DataObject) -> None:
        """A request of a lost connection is read after all; its answer goes nowhere."""
        queue = data.draw(st.sampled_from(self.stale))
        request = queue.popleft()
        for copy in request.copies:
            self._append(copy)
        self.stale = [queue for queue in self.stale if queue]

    @rule(partition=st.integers(0, PARTITIONS - 1), appends=st.integers(1, 3))
    def lose_tail(self, partition: int, appends: int) -> None:
        """Power is lost under `flush: relaxed`: the node forgets what it has acknowledged."""
        self.lost_by_node.update(self.logs[partition].lose_tail(appends))

    # ------------------------------------------------------------------ the links

    @rule()
    def answer(self) -> None:
        if self.to_producer:
            request = self.to_producer.popleft()
            if request.awaited:
                request.awaited = False
                self.sender.answered(request.shipment, request.results, self.now)
            self._collect()

    @rule(partition=st.integers(0, PARTITIONS - 1), too_late=st.booleans())
    def flow_past(self, partition: int, too_late: bool) -> None:
        """One answer is kept back, while more is sent and answered than a node remembers."""
        self.work()
        self.send(partition, [1])
        self.ship()
        requests = self.to_node.get(self.leaders[partition][0])
        if not requests:
            return  # the partition has no leader, or the lane pauses
        self.process(requests[0].node_id)
        kept_back = self.to_producer.popleft()
        for _ in range(PRODUCER_WINDOW_BATCHES):
            self.send(partition, [1])
            self.work()
        self.to_producer.append(kept_back)
        if too_late:
            kept_back.awaited = False
            self.sender.lost(kept_back.shipment, TimedOutError("no answer"), self.now)
            self._collect()

    @rule(node=st.sampled_from(NODES), unread=st.booleans())
    def lose_connection(self, node: int, unread: bool) -> None:
        """Answers are gone; requests are too, or the node still reads them some time."""
        requests = [request for request in self.to_producer if request.node_id == node]
        self.to_producer = deque(request for request in self.to_producer if request.node_id != node)
        requests += self.to_node[node]
        if unread and self.to_node[node]:
            self.stale.append(self.to_node[node])
        self.to_node[node] = deque()
        for request in requests:
            if request.awaited:
                request.awaited = False
                self.sender.lost(request.shipment, ConnectionFailedError("lost"), self.now)
        self._collect()

    @rule(node=st.sampled_from(NODES), place=st.integers(0, 5))
    def time_out(self, node: int, place: int) -> None:
        """The producer stops waiting for one request that is still under way."""
        requests = [r for r in (*self.to_producer, *self.to_node[node]) if r.node_id == node and r.awaited]
        if requests:
            request = requests[place % len(requests)]
            request.awaited = False
            self.sender.lost(request.shipment, TimedOutError("no answer"), self.now)
            self._collect()

    @rule(partition=st.integers(0, PARTITIONS - 1), leader=st.sampled_from([*NODES, NO_LEADER]))
    def move(self, partition: int, leader: int) -> None:
        """Another leader, which has the whole log; the old one refuses what still comes."""
        self.leaders[partition] = (leader, self.leaders[partition][1] + 1)
        self.sender.update_leaders(self.now)
        self._collect()

    # ------------------------------------------------------------------- the rules

    def _collect(self) -> None:
        for batch, base_offset, error in self.sender.take_resolved():
            assert batch not in self.fates, "resolved twice"
            self.fates[batch] = (base_offset, error)

    @invariant()
    def logs_are_in_order_and_without_duplicates(self) -> None:
        for log, sent in zip(self.logs, self.sent, strict=True):
            assert len(set(log.batches)) == len(log.batches), "stored twice"
            assert in_order(log.batches, sent), "stored out of order"

    @invariant()
    def in_flight_is_bounded(self) -> None:
        copies = [c.batch for q in self.to_node.values() for r in q if r.awaited for c in r.copies]
        for partition in range(PARTITIONS):
            assert sum(batch.partition == partition for batch in copies) <= IN_FLIGHT_BATCHES_MAX

    def teardown(self) -> None:
        """The weather clears: everything resolves, and what was said is true."""
        if hasattr(self, "sender"):
            self.settle()
            self.next_batch_is_wanted()
            self.logs_are_in_order_and_without_duplicates()
            for log, sent in zip(self.logs, self.sent, strict=True):
                for batch in sent:
                    self._check_fate(batch, log)

    def settle(self) -> None:
        """Everything works from now on."""
        for partition, (leader, epoch) in enumerate(self.leaders):
            if leader == NO_LEADER:
                self.leaders[partition] = (NODES[0], epoch + 1)
        self.sender.update_leaders(self.now)
        began = self.now
        while len(self.fates) < sum(map(len, self.sent)):
            if not self.work():
                assert self.sender.due_at < inf, "never resolved"
                self.now = max(self.now + 0.001, self.sender.due_at)
        assert self.now - began < SETTLED_WITHIN_S

    def work(self) -> bool:
        """Everything that is due is sent, processed and answered; False if there was nothing."""
        self.identify("answered")
        self.ship()
        if not any(self.to_node.values()) and not self.to_producer:
            return False
        for node in NODES:
            while self.to_node[node]:
                self.process(node)
        while self.to_producer:
            self.answer()
        return True

    def next_batch_is_wanted(self) -> None:
        """When all is resolved, nothing may keep the next batch from being sent for long."""
        for _ in range(5):
            self.work()
            self.now += 2.0
        self._tick()
        for partition in range(PARTITIONS):
            assert self.sender.wanted(sealed(partition, 1, self.now), self.now)

    def _check_fate(self, batch: Batch, log: Log) -> None:
        base_offset, error = self.fates[batch]
        if error is None and batch not in self.lost_by_node:
            assert batch in log.batches, "acknowledged and not stored"
            assert base_offset in (-1, log.offsets[batch])
        if error is not None and batch in log.batches:
            assert "perhaps stored" in str(error) or "may or may not be stored" in str(error)
            assert batch not in self.rejected


ProducerAndNodes.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestProducerAndNodes = ProducerAndNodes.TestCase


@pytest.mark.parametrize("count", [1, 50])
def test_without_faults_everything_is_stored_at_once(count: int) -> None:
    world = ProducerAndNodes()
    world.start(1)
    world.identify("answered")
    for _ in range(count):
        world.send(0, [2])
    began = world.now
    world.settle()
    assert all(error is None for _, error in world.fates.values())
    assert world.now == began
    assert world.sender.retries == 0
