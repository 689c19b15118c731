"""The whole state machine under random histories, without a socket: invariants, replay, restarts.

Nodes register, beat, fall silent, leave and come back, also with other storage; topics come and
go; producers get ids; the coordinator restarts from its rows at any point. `test_replicas.py` has
the histories of replicas.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tailrace.coordinator import machine as coordinator_machine
from tailrace.coordinator.groups.state import GroupsState
from tailrace.coordinator.machine import Machine, Outcome, Settings
from tailrace.coordinator.private_state import ControllerEpochRaised, PrivateChange
from tailrace.coordinator.state import State
from tailrace.coordinator.store import rows
from tailrace.protocol.cluster import (
    NO_LEADER,
    Listener,
    PartitionChanged,
    PartitionInfo,
    TopicChanged,
    TopicConfig,
    TopicInfo,
)
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.messages import (
    ClusterLeft,
    CreateTopic,
    DeleteTopic,
    Failed,
    GetSnapshot,
    Heartbeat,
    HeartbeatSeen,
    InitProducer,
    LeaveCluster,
    NodeRegistered,
    ProducerReady,
    RegisterNode,
    Reply,
    SnapshotTaken,
    TopicCreated,
    TopicDeleted,
    Update,
)
from tailrace.protocol.replica_messages import AlterIsr, IsrProposal

WALL_MS = 1_700_000_000_000

TIMEOUT_MS = 6_000
SETTINGS = Settings(Listener("tcp://127.0.0.1:9"), TIMEOUT_MS)
PEER = b"peer"
node_ids = st.integers(1, 4)
names = st.sampled_from(["a", "b", "c"])


def picture(state: State) -> dict[str, Any]:
    """Everything in a state, in a form that compares."""
    index = state.index
    return {
        "epochs": (state.cluster.controller_epoch, state.cluster.version),
        "nodes": state.cluster.nodes,
        "topics": state.cluster.topics,
        "names": state.cluster.topic_ids,
        "cluster id": state.cluster_id,
        "openings": state.openings,
        "producers": (state.next_producer_id, state.producer_epochs),
        "tombstones": list(state.tombstones.items()),
        "bytes": state.snapshot_bytes,
        "partitions": index.partitions,
        "loads": {n: index.load(n) for n in range(10)},
        "held": {n: dict(index.held_by(n)) for n in range(10)},
    }


class Tables:
    """A store in memory, of the same rows as the real one."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[bytes, bytes]] = {name: {} for name in rows.TABLES}
        self._execute(rows.first_rows("cluster"))

    def commit(self, updates: Sequence[Update], private: Sequence[PrivateChange]) -> None:
        for update in updates:
            for change in update.changes:
                self._execute(rows.published_operations(change))
            self._execute([rows.version_row(update.version)])
        self._execute(map(rows.private_operation, private))

    def load(self) -> State:
        return rows.state_of({name: sorted(table.items()) for name, table in self.tables.items()})

    def _execute(self, operations: Any) -> None:
        for operation in operations:
            table = self.tables[operation.table]
            if isinstance(operation, rows.Put):
                table[operation.key] = operation.value
            else:
                for key in [key for key in table if key.startswith(operation.prefix)]:
                    del table[key]


class CoordinatorHistory(RuleBasedStateMachine):
    """Drives a Machine, with `self.node_epochs` and `self.parked` as what the peers know."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.requests = 0
        self.topics_made = 0
        self.store = Tables()
        self.log: list[Update | PrivateChange] = []
        self.node_epochs: dict[int, int] = {}
        self.storage: dict[int, str] = {}
        self.heard: dict[int, float] = {}
        self.parked: dict[int, bytes] = {}
        self.applied: dict[int, int] = {}
        self.elected: dict[bytes, int] = {}
        self.leaders: dict[tuple[bytes, int, int], int] = {}
        self.last: dict[tuple[bytes, int], PartitionInfo] = {}
        self.producers: dict[int, int] = {}
        self.start()

    # ------------------------------------------------------------------ plumbing

    def start(self) -> None:
        state = self.store.load()
        raised = ControllerEpochRaised(state.cluster.controller_epoch + 1)
        state.apply_private(raised)
        self.store.commit([], [raised])
        self.log.append(raised)
        self.machine = Machine(state, GroupsState(), SETTINGS, self.now)
        self.heard = dict.fromkeys(self.alive, self.now)

    def take(self, outcome: Outcome) -> list[Reply]:
        """Store an outcome; the replies but those to parked requests, which are checked here."""
        updates = [] if outcome.update is None else [outcome.update]
        for change in () if outcome.update is None else outcome.update.changes:
            if isinstance(change, TopicChanged):
                self.elected[change.topic.topic_id] = outcome.update.version
            elif isinstance(change, PartitionChanged):
                self.elected[change.topic_id] = outcome.update.version
        self.store.commit(updates, outcome.private)
        self.log += [*updates, *outcome.private]
        replies = []
        for peer, reply in outcome.answers:
            assert peer == PEER
            topic_id = self.parked.pop(reply.request_id, None)
            if topic_id is None:
                replies.append(reply)
            elif isinstance(reply, TopicCreated):
                assert reply.topic == self.machine.state.cluster.topics[topic_id]
                assert self.is_open(topic_id)
            else:
                assert isinstance(reply, Failed)
                assert reply.error.code in (ErrorCode.TIMED_OUT, ErrorCode.UNKNOWN_TOPIC)
        return replies

    def is_open(self, topic_id: bytes) -> bool:
        """All its leaders have applied what made them leaders."""
        topic = self.machine.state.cluster.topics[topic_id]
        return all(self.applied.get(p.leader, -1) >= self.elected[topic_id] for p in topic.partitions)

    def ask(self, request: Any) -> Reply:
        [reply] = self.take(self.machine.ask(PEER, request, b"", self.now, WALL_MS))
        assert reply.request_id == self.requests
        return reply

    def next_request(self) -> int:
        self.requests += 1
        return self.requests

    def new_topic_id(self) -> bytes:
        self.topics_made += 1
        return self.topics_made.to_bytes(16, "big")

    @property
    def alive(self) -> set[int]:
        return self.machine.state.alive()

    # ------------------------------------------------------------------ events

    @rule(node_id=node_ids, other_storage=st.booleans(), topics=st.booleans())
    def register(self, node_id: int, other_storage: bool, topics: bool) -> None:
        storage = self.storage.get(node_id, "first")
        if other_storage:
            storage += "+"
        state = self.machine.state
        was_alive = node_id in self.alive
        held = [*state.cluster.topics, *state.tombstones, b"?" * 16] if topics else []
        request = RegisterNode(
            self.next_request(),
            node_id=node_id,
            listener=Listener(f"tcp://127.0.0.1:{node_id}"),
            storage_id=storage,
            topic_ids=held,
        )
        reply = self.ask(request)
        if was_alive and other_storage and node_id in self.storage:
            assert isinstance(reply, Failed)
            assert reply.error.code == ErrorCode.NODE_ID_IN_USE
            return
        assert isinstance(reply, NodeRegistered)
        assert reply.node is not None
        assert reply.node == state.cluster.nodes[node_id]
        assert reply.node.node_epoch > self.node_epochs.get(node_id, 0)
        assert reply.snapshot == state.cluster.snapshot()
        assert set(reply.deleted_topics) == (set(state.tombstones) if topics else set())
        self.node_epochs[node_id] = reply.node.node_epoch
        self.storage[node_id] = storage
        self.heard[node_id] = self.now
        self.applied.pop(node_id, None)

    @rule(node_id=node_ids, late=st.booleans(), behind=st.integers(0, 3))
    def beat(self, node_id: int, late: bool, behind: int) -> None:
        epoch = self.node_epochs.get(node_id, 0) - late
        applied = self.machine.state.cluster.version - behind
        if not late and node_id in self.alive:
            self.applied[node_id] = max(applied, self.applied.get(node_id, -1))
        request = Heartbeat(self.next_request(), node_id=node_id, node_epoch=epoch, applied_version=applied)
        reply = self.ask(request)
        if node_id not in self.node_epochs:
            assert isinstance(reply, Failed)
            assert reply.error.code == ErrorCode.UNKNOWN_NODE
        elif late or node_id not in self.alive:
            assert isinstance(reply, Failed)
            assert reply.error.code == ErrorCode.STALE_NODE_EPOCH
        else:
            assert isinstance(reply, HeartbeatSeen)
            self.heard[node_id] = self.now

    @rule(node_id=node_ids, late=st.booleans())
    def leave(self, node_id: int, late: bool) -> None:
        epoch = self.node_epochs.get(node_id, 0) - late
        reply = self.ask(LeaveCluster(self.next_request(), node_id=node_id, node_epoch=epoch))
        if node_id in self.node_epochs and not late:
            assert isinstance(reply, ClusterLeft)
            assert node_id not in self.alive
        else:
            assert isinstance(reply, Failed)

    @rule(seconds=st.floats(0.1, 8.0), beating=st.sets(node_ids))
    def time_passes(self, seconds: float, beating: set[int]) -> None:
        """In small steps, with heartbeats of some nodes: they live on, the others no longer than they may."""
        end = self.now + seconds
        beating &= self.alive
        while self.now < end:
            due = self.machine.next_tick()
            self.now = min(end, self.now + 1.0 if due is None else max(due, self.now + 0.01))
            for node_id in beating:
                epoch = self.node_epochs[node_id]
                self.ask(Heartbeat(self.next_request(), node_id=node_id, node_epoch=epoch))
                self.heard[node_id] = self.now
            before = self.alive
            outcome = self.machine.tick(self.now, WALL_MS)
            assert self.take(outcome) == []
            silent = {n for n in before if self.now - self.heard[n] >= TIMEOUT_MS / 1000}
            assert before - self.alive == silent
            assert outcome.update is not None or not silent

    @rule(name=names, partitions=st.integers(1, 6), timeout_ms=st.integers(0, 8_000))
    def create_topic(self, name: str, partitions: int, timeout_ms: int) -> None:
        exists = self.machine.state.cluster.topic(name) is not None
        alive, topic_id = self.alive, self.new_topic_id()
        request = CreateTopic(self.next_request(), name=name, partitions=partitions, timeout_ms=timeout_ms)
        replies = self.take(self.machine.ask(PEER, request, topic_id, self.now, WALL_MS))
        if exists or not alive:
            [reply] = replies
            assert isinstance(reply, Failed)
            expected = ErrorCode.TOPIC_EXISTS if exists else ErrorCode.NOT_ENOUGH_NODES
            assert reply.error.code == expected
            return
        assert replies == []
        self.parked[request.request_id] = topic_id
        topic = self.machine.state.cluster.topics[topic_id]
        led = [sum(p.leader == n for p in topic.partitions) for n in alive]
        assert sum(led) == partitions
        assert max(led) - min(led) <= 1

    @precondition(lambda self: len(self.alive) >= 3)
    @rule(minimum=st.integers(1, 3))
    def put_replicated_topic(self, minimum: int) -> None:
        cluster = self.machine.state.cluster
        a, b, c = sorted(self.alive)[:3]
        partitions = tuple(
            PartitionInfo(replicas, replicas[0], 0, 0, replicas)
            for replicas in ((a, b, c), (b, c, a), (c, a, b))
        )
        topic_id = self.new_topic_id()
        config = TopicConfig(min_insync_replicas=minimum)
        topic = TopicInfo(topic_id, f"replicated-{self.topics_made}", config, partitions)
        update = Update(cluster.controller_epoch, cluster.version + 1, [TopicChanged(topic)])
        self.machine.state.apply(update)
        self.take(Outcome(update))

    @rule(name=names)
    def delete_topic(self, name: str) -> None:
        topic = self.machine.state.cluster.topic(name)
        reply = self.ask(DeleteTopic(self.next_request(), name=name))
        if topic is None:
            assert isinstance(reply, Failed)
            assert reply.error.code == ErrorCode.UNKNOWN_TOPIC
        else:
            assert isinstance(reply, TopicDeleted)
            assert topic.topic_id in self.machine.state.tombstones
            assert topic.topic_id not in self.parked.values()
            self.last = {key: p for key, p in self.last.items() if key[0] != topic.topic_id}

    @rule()
    def new_producer(self) -> None:
        reply = self.ask(InitProducer(self.next_request()))
        assert isinstance(reply, ProducerReady)
        assert reply.producer_epoch == 0
        assert reply.producer_id not in self.producers
        self.producers[reply.producer_id] = 0

    @rule(producer_id=st.integers(0, 4), behind=st.integers(0, 3))
    def raise_epoch(self, producer_id: int, behind: int) -> None:
        current = self.producers.get(producer_id)
        epoch = (current or 0) - behind
        request = InitProducer(self.next_request(), producer_id=producer_id, producer_epoch=epoch)
        reply = self.ask(request)
        if current is None or behind > 1 or (behind == 1 and current == 0):
            assert isinstance(reply, Failed)
            assert reply.error.code == ErrorCode.FENCED_PRODUCER
            return
        assert isinstance(reply, ProducerReady)
        if behind == 0:
            assert (reply.producer_id, reply.producer_epoch) == (producer_id, current + 1)
        else:
            assert reply.producer_id not in self.producers
        self.producers[reply.producer_id] = reply.producer_epoch

    @rule()
    def snapshot(self) -> None:
        reply = self.ask(GetSnapshot(self.next_request()))
        assert isinstance(reply, SnapshotTaken)
        assert reply.snapshot == self.machine.state.cluster.snapshot()
        assert (reply.publisher, reply.cluster_id) == (SETTINGS.publisher, "cluster")

    @rule()
    def restart(self) -> None:
        before = picture(self.machine.state)
        assert picture(self.store.load()) == before
        stored = {key[: rows.TOPIC_ID_BYTES] for key in self.store.tables[rows.PARTITIONS]}
        assert stored == set(self.store.tables[rows.TOPICS]) == set(self.machine.state.cluster.topics)
        self.start()
        epoch, version = before.pop("epochs")
        after = picture(self.machine.state)
        assert after.pop("epochs") == (epoch + 1, version)
        assert after == before
        self.parked.clear()

    # ------------------------------------------------------------------ what always holds

    @invariant()
    def leaders_are_alive_and_in_sync(self) -> None:
        state = self.machine.state
        for topic_id, topic in state.cluster.topics.items():
            for index, partition in enumerate(topic.partitions):
                assert set(partition.isr) | set(partition.elr) <= set(partition.replicas)
                assert not set(partition.isr) & set(partition.elr)
                if partition.leader != NO_LEADER:
                    assert partition.leader in state.alive()
                    assert partition.leader in partition.isr
                    assert set(partition.isr) <= state.alive()
                    enough = len(partition.isr) >= topic.config.min_insync_replicas
                    assert not (enough and partition.elr)
                    key = (topic_id, index, partition.leader_epoch)
                    assert self.leaders.setdefault(key, partition.leader) == partition.leader
                elif len(partition.replicas) == 1:
                    assert partition.isr == partition.replicas
                    assert partition.leader not in state.alive()
                else:
                    assert not state.alive() & {*partition.isr, *partition.elr}
                self.check_epochs(topic_id, index, partition)

    def check_epochs(self, topic_id: bytes, index: int, partition: PartitionInfo) -> None:
        last = self.last.get((topic_id, index), partition)
        assert partition.leader_epoch >= last.leader_epoch
        assert partition.partition_epoch >= last.partition_epoch
        if partition.partition_epoch == last.partition_epoch:
            assert partition == last
        self.last[topic_id, index] = partition

    @invariant()
    def nobody_waits_for_an_open_topic(self) -> None:
        assert not any(self.is_open(topic_id) for topic_id in self.parked.values())

    @invariant()
    def index_and_size_agree_with_the_state(self) -> None:
        state = self.machine.state
        assert picture(state) == picture(self.rebuilt(state))

    def rebuilt(self, state: State) -> State:
        fresh = State(state.cluster_id, state.cluster)
        fresh.next_producer_id = state.next_producer_id
        fresh.producer_epochs = state.producer_epochs
        fresh.openings = state.openings
        fresh.tombstones = state.tombstones
        return fresh

    def teardown(self) -> None:
        updates = [entry for entry in self.log if isinstance(entry, Update)]
        assert all(b.version == a.version + 1 for a, b in pairwise(updates))
        assert all(b.controller_epoch >= a.controller_epoch for a, b in pairwise(updates))
        replayed = State("cluster")
        for entry in self.log:
            if isinstance(entry, Update):
                replayed.apply(entry)
            else:
                replayed.apply_private(entry)
        assert picture(replayed) == picture(self.machine.state) == picture(self.store.load())
        self.now += 100
        self.take(self.machine.tick(self.now, WALL_MS))
        assert self.parked == {}, "every request that waits is answered in the end"


TestCoordinatorHistory = CoordinatorHistory.TestCase
TestCoordinatorHistory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def machine_with(*nodes: int) -> Machine:
    machine = Machine(State("cluster"), GroupsState(), SETTINGS, 0.0)
    for node_id in nodes:
        request = RegisterNode(1, node_id=node_id, listener=Listener("tcp://x:1"), storage_id="s")
        machine.ask(PEER, request, b"", 0.0, WALL_MS)
    return machine


def beat(machine: Machine, node_id: int, applied_version: int) -> list[Reply]:
    epoch = machine.state.cluster.nodes[node_id].node_epoch
    request = Heartbeat(9, node_id=node_id, node_epoch=epoch, applied_version=applied_version)
    outcome = machine.ask(PEER, request, b"", 0.0, WALL_MS)
    return [reply for _, reply in outcome.answers if not isinstance(reply, HeartbeatSeen)]


def test_a_silent_node_is_dead_after_the_time_out_and_what_it_led_has_no_leader() -> None:
    machine = machine_with(1)
    machine.ask(PEER, CreateTopic(2, name="t", partitions=2, timeout_ms=1), b"t" * 16, 0.0, WALL_MS)
    for step in range(1, 13):
        outcome = machine.tick(step / 2, WALL_MS)
        assert (outcome.update is None) == (step < 12)
    assert outcome.warnings == ("node 1 is dead: not heard of for 6000 ms",)
    assert not machine.state.cluster.nodes[1].alive
    assert [p.leader for p in machine.state.cluster.topics[b"t" * 16].partitions] == [NO_LEADER] * 2


def test_a_restarted_coordinator_gives_every_node_a_full_time_out() -> None:
    machine = Machine(machine_with(1, 2).state, GroupsState(), SETTINGS, 100.0)
    for step in range(1, 13):
        outcome = machine.tick(100 + step / 2, WALL_MS)
        assert machine.state.alive() == ({1, 2} if step < 12 else set())
    assert outcome.update is not None
    assert len(outcome.update.changes) == 2


def test_too_many_deaths_for_one_update_follow_each_other_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_machine, "PARTITIONS_PER_UPDATE_MAX", 5)
    machine = machine_with(1, 2, 3)
    machine.ask(PEER, CreateTopic(2, name="t", partitions=6, timeout_ms=60_000), b"t" * 16, 0.0, WALL_MS)
    for step in range(1, 12):
        assert machine.tick(step / 2, WALL_MS).update is None
    alive = []
    for _ in range(2):
        due = machine.next_tick()
        assert due is not None
        assert due <= 6.0
        machine.tick(6.0, WALL_MS)
        alive.append(machine.state.alive())
    assert alive == [{3}, set()]
    assert machine.next_tick() == 60.0


def test_a_creation_waits_for_the_leaders_of_the_day() -> None:
    machine = machine_with(1, 2)
    machine.ask(PEER, CreateTopic(2, name="t", partitions=2), b"t" * 16, 0.0, WALL_MS)
    created = machine.state.cluster.version
    assert beat(machine, 1, created) == []
    epoch = machine.state.cluster.nodes[1].node_epoch
    machine.ask(PEER, LeaveCluster(3, node_id=1, node_epoch=epoch), b"", 0.0, WALL_MS)
    assert beat(machine, 2, machine.state.cluster.version) == []
    request = RegisterNode(4, node_id=1, listener=Listener("tcp://x:1"), storage_id="s")
    machine.ask(PEER, request, b"", 0.0, WALL_MS)
    elected = machine.state.cluster.version
    assert beat(machine, 2, elected) == []
    assert beat(machine, 1, elected - 1) == []
    topic = machine.state.cluster.topics[b"t" * 16]
    assert beat(machine, 1, elected) == [TopicCreated(2, topic=topic)]


def test_too_many_waiting_creations_are_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_machine, "PARKED_CREATIONS_MAX", 1)
    machine = machine_with(1)
    assert machine.ask(PEER, CreateTopic(2, name="t"), b"t" * 16, 0.0, WALL_MS).answers == ()
    [(_, reply)] = machine.ask(PEER, CreateTopic(3, name="u"), b"u" * 16, 0.0, WALL_MS).answers
    assert isinstance(reply, Failed)
    assert reply.error.code == ErrorCode.BUSY
    assert machine.state.cluster.topic("u") is None


def test_those_who_wait_are_told_when_the_coordinator_stops() -> None:
    machine = machine_with(1)
    machine.ask(PEER, CreateTopic(2, name="t"), b"t" * 16, 0.0, WALL_MS)
    [(peer, reply)] = machine.stop().answers
    assert isinstance(reply, Failed)
    assert (peer, reply.request_id, reply.error.code) == (PEER, 2, ErrorCode.SHUTTING_DOWN)


def test_leadership_goes_back_some_seconds_after_a_node_is_in_sync_again() -> None:
    machine = machine_with(1, 2)
    creation = CreateTopic(2, name="t", partitions=2, replication_factor=2)
    machine.ask(PEER, creation, b"t" * 16, 0.0, WALL_MS)
    epoch = machine.state.cluster.nodes[1].node_epoch
    machine.ask(PEER, LeaveCluster(3, node_id=1, node_epoch=epoch), b"", 0.0, WALL_MS)
    request = RegisterNode(4, node_id=1, listener=Listener("tcp://x:1"), storage_id="s")
    machine.ask(PEER, request, b"", 1.0, WALL_MS)

    def led() -> list[int]:
        return [p.leader for p in machine.state.cluster.topics[b"t" * 16].partitions]

    now = 1.0
    for isr in ((2,), (1, 2)):
        epochs = {node.node_id: node.node_epoch for node in machine.state.cluster.nodes.values()}
        partitions = machine.state.cluster.topics[b"t" * 16].partitions
        proposals = [
            IsrProposal(b"t" * 16, index, p.leader_epoch, p.partition_epoch, isr)
            for index, p in enumerate(partitions)
        ]
        alteration = AlterIsr(5, node_id=2, node_epoch=epochs[2], proposals=proposals, member_epochs=epochs)
        machine.ask(PEER, alteration, b"", now, WALL_MS)
        for step in range(1, 11):
            now += 0.5
            beat_all(machine, now)
            outcome = machine.tick(now, WALL_MS)
            assert (outcome.notes != ()) == (isr == (1, 2) and step == 10), (isr, step)
    assert outcome.notes == ("1 partition led by the first replica again",)
    assert led() == [1, 2]


def beat_all(machine: Machine, now: float) -> None:
    for node in machine.state.cluster.nodes.values():
        request = Heartbeat(9, node_id=node.node_id, node_epoch=node.node_epoch)
        machine.ask(PEER, request, b"", now, WALL_MS)


def test_a_node_whose_connection_ends_is_dead_once_its_address_refuses_another() -> None:
    machine = machine_with(1)
    machine.refused([1])
    machine.gone([b"other"], 0.0)
    assert machine.missing() == {}
    machine.gone([PEER], 0.0)
    assert machine.missing() == {1: machine.state.cluster.nodes[1].listener}
    assert machine.tick(1.0, WALL_MS).update is None
    machine.refused([1])
    assert machine.next_tick() == -inf
    outcome = machine.tick(1.0, WALL_MS)
    assert outcome.update is not None
    assert outcome.warnings == ("node 1 is dead: its connection ended, and its address refuses another",)
    assert machine.missing() == {}
