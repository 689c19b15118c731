"""A model of replicas around a Machine: who has every committed record, and what leaders have yet to propose.

`complete` are, for each partition, the nodes that have every record that was acknowledged to all. Whoever
may be elected without the topic's consent to a loss must be one of them: that is what all guards are for.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from tailrace.coordinator.election import is_sole_replica
from tailrace.coordinator.groups.state import GroupsState
from tailrace.coordinator.machine import Machine, Outcome, Settings
from tailrace.coordinator.private_state import ControllerEpochRaised
from tailrace.protocol.admin_messages import DrainNode, ElectLeaders, MovePartitions, PartitionMove
from tailrace.protocol.cluster import NO_LEADER, Listener, PartitionInfo
from tailrace.protocol.messages import (
    AlterTopic,
    CreateTopic,
    Failed,
    Heartbeat,
    LeaveCluster,
    NodeRegistered,
    RegisterNode,
    Reply,
)
from tailrace.protocol.replica_messages import AlterIsr, IsrAltered, IsrProposal, IsrResult

from .test_machine import Tables

WALL_MS = 1_700_000_000_000
TIMEOUT_MS = 6_000
SETTINGS = Settings(Listener("tcp://127.0.0.1:9"), TIMEOUT_MS)

Place = tuple[bytes, int]


class Cluster:
    """A Machine, its store, and the nodes' side of the story."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.requests = 0
        self.store = Tables()
        self.storage: dict[int, int] = {}
        self.emptied: set[int] = set()
        """Whose last start was with other storage."""
        self.complete: dict[Place, set[int]] = {}
        self.sent: list[AlterIsr] = []
        self.last: dict[Place, PartitionInfo] = {}
        self.leaders: dict[tuple[bytes, int, int], int] = {}
        self.unclean = 0
        self.start()

    # ------------------------------------------------------------------ plumbing

    def start(self) -> None:
        state = self.store.load()
        raised = ControllerEpochRaised(state.cluster.controller_epoch + 1)
        state.apply_private(raised)
        self.store.commit([], [raised])
        self.machine = Machine(state, GroupsState(), SETTINGS, self.now)
        self.unclean = 0

    @property
    def alive(self) -> set[int]:
        return self.machine.state.alive()

    def partitions(self) -> Iterator[tuple[Place, PartitionInfo]]:
        for topic_id, topic in self.machine.state.cluster.topics.items():
            for index, partition in enumerate(topic.partitions):
                yield (topic_id, index), partition

    def at(self, place: Place) -> PartitionInfo:
        return self.machine.state.cluster.topics[place[0]].partitions[place[1]]

    def epoch(self, node_id: int) -> int:
        return self.machine.state.cluster.nodes[node_id].node_epoch

    def ask(self, request_type: Any, peer: bytes = b"admin", **fields: Any) -> Reply | None:
        self.requests += 1
        return self.deliver(request_type(self.requests, **fields), peer)

    def deliver(self, request: Any, peer: bytes = b"admin") -> Reply | None:
        new_id = self.requests.to_bytes(16, "big")
        outcome = self.machine.ask(peer, request, new_id, self.now, WALL_MS)
        self.take(outcome)
        replies = [reply for _, reply in outcome.answers if reply.request_id == request.request_id]
        return replies[0] if replies else None

    def take(self, outcome: Outcome) -> None:
        self.store.commit([] if outcome.update is None else [outcome.update], outcome.private)
        if outcome.update is not None:
            self.check(outcome)

    # -------------------------------------------------------------------- events

    def register(
        self, node_id: int, *, clean: bool = True, durable: bool = True, wiped: bool = False
    ) -> None:
        """A node starts; whatever ran under its id before has ended."""
        known = self.machine.state.cluster.nodes.get(node_id)
        wiped = wiped and known is not None and not known.alive
        self.storage[node_id] = self.storage.get(node_id, 0) + wiped
        self.emptied = self.emptied | {node_id} if wiped else self.emptied - {node_id}
        if known is not None and (wiped or not (clean or durable)):
            for place, partition in self.partitions():
                if not is_sole_replica(partition, node_id):
                    self.complete[place].discard(node_id)
        reply = self.ask(
            RegisterNode,
            b"%d" % node_id,
            node_id=node_id,
            listener=Listener("tcp://x:1"),
            storage_id=f"s{self.storage[node_id]}",
            rack="ab"[node_id % 2],
            clean=clean,
            durable=durable,
        )
        assert isinstance(reply, NodeRegistered)

    def leave(self, node_id: int) -> None:
        if node_id in self.alive:
            self.ask(LeaveCluster, node_id=node_id, node_epoch=self.epoch(node_id))

    def cut_off(self, node_ids: Iterable[int], *, killed: bool = True) -> None:
        """Connections end; of those that were not killed a heartbeat comes over another one."""
        self.beat(node_ids, "old")
        self.machine.gone([b"old %d" % node_id for node_id in node_ids], self.now)
        if not killed:
            self.beat(node_ids, "new")
        self.machine.refused(node_ids if killed else ())
        self.pass_time(0.3, besides=node_ids if killed else ())
        assert not killed or not self.alive.intersection(node_ids)

    def beat(self, node_ids: Iterable[int], connection: str) -> None:
        for node_id in self.alive.intersection(node_ids):
            peer = f"{connection} {node_id}".encode()
            self.ask(Heartbeat, peer, node_id=node_id, node_epoch=self.epoch(node_id))

    def pass_time(self, seconds: float, besides: Iterable[int] = ()) -> None:
        """All who live beat."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.13 if seconds < 1 else self.now + 1.4)
            self.beat(self.alive.difference(besides), "new")
            self.take(self.machine.tick(self.now, WALL_MS))

    def create(self, name: str, replicas: int, **config: int) -> None:
        before = set(self.machine.state.cluster.topics)
        fields = {"partitions": 2, "replication_factor": replicas, "config": config, "timeout_ms": 0}
        self.ask(CreateTopic, name=name, **fields)
        for topic_id in self.machine.state.cluster.topics.keys() - before:
            for index, partition in enumerate(self.machine.state.cluster.topics[topic_id].partitions):
                self.complete[topic_id, index] = set(partition.replicas)

    def alter(self, name: str, **config: int) -> None:
        self.ask(AlterTopic, name=name, config=config)

    def propose(self, place: Place, isr: Iterable[int]) -> None:
        """The leader sends what it finds; it arrives later, or never."""
        partition = self.at(place)
        self.requests += 1
        proposal = IsrProposal(*place, partition.leader_epoch, partition.partition_epoch, tuple(isr))
        self.sent.append(
            AlterIsr(
                self.requests,
                node_id=partition.leader,
                node_epoch=self.epoch(partition.leader),
                proposals=[proposal],
                member_epochs={n: self.epoch(n) for n in isr},
            )
        )

    def catch_up(self, place: Place, node_id: int) -> None:
        """A follower has everything that the leader has, which proposes it."""
        partition = self.at(place)
        if partition.leader != NO_LEADER and node_id in self.alive.intersection(partition.replicas):
            self.complete[place].add(node_id)
            self.propose(place, {*partition.isr, node_id})

    def drop(self, place: Place, node_id: int) -> None:
        """A follower is too slow."""
        partition = self.at(place)
        if partition.leader not in (NO_LEADER, node_id):
            self.propose(place, [n for n in partition.isr if n != node_id])

    def arrive(self, number: int = -1, *, again: bool = False) -> IsrResult | None:
        """One of the proposals reaches the coordinator; it may come a second time."""
        request = self.sent[number] if again else self.sent.pop(number)
        reply = self.deliver(request)
        assert isinstance(reply, IsrAltered | Failed)
        if not isinstance(reply, IsrAltered):
            return None
        [result] = reply.results
        place = (request.proposals[0].topic_id, request.proposals[0].partition)
        assert result.partition == self.at(place)
        return result

    def commit(self, place: Place) -> None:
        """A record is acknowledged by all: by the ISR, and by those the leader has proposed (KIP-497)."""
        topic, partition = self.machine.state.cluster.topics[place[0]], self.at(place)
        if partition.leader == NO_LEADER or len(partition.isr) < topic.config.min_insync_replicas:
            return
        maximal = set(partition.isr)
        for request in self.sent:
            [proposal] = request.proposals
            if (proposal.topic_id, proposal.partition) != place or not self.is_open(request):
                continue
            if any(n not in self.alive or self.epoch(n) != e for n, e in request.member_epochs.items()):
                return
            maximal.update(proposal.isr)
        self.complete[place] = maximal

    def is_open(self, request: AlterIsr) -> bool:
        """Does the leader still wait for it?"""
        [proposal] = request.proposals
        partition = self.at((proposal.topic_id, proposal.partition))
        same = (partition.leader, partition.leader_epoch, partition.partition_epoch)
        return same == (request.node_id, proposal.leader_epoch, proposal.partition_epoch) and (
            self.epoch(request.node_id) == request.node_epoch
        )

    def move(self, place: Place, target: Iterable[int]) -> Reply | None:
        return self.ask(MovePartitions, moves=[PartitionMove(*place, tuple(target))])

    def drain(self, node_id: int, *, draining: bool = True) -> Reply | None:
        return self.ask(DrainNode, node_id=node_id, draining=draining)

    def elect(self) -> Reply | None:
        return self.ask(ElectLeaders)

    # ------------------------------------------------------- what always holds

    def check(self, outcome: Outcome) -> None:
        state = self.machine.state
        risked = state.unclean_elections - self.unclean
        self.unclean = state.unclean_elections
        assert not risked or any("unclean election" in warning for warning in outcome.warnings)
        for place, partition in self.partitions():
            if place not in self.complete:
                continue  # its creation is on its way here
            config = state.cluster.topics[place[0]].config
            self.check_epochs(place, partition)
            last = self.last.get(place, partition)
            if partition.leader_epoch > last.leader_epoch and partition.leader not in self.complete[place]:
                assert config.unclean_leader_election, "a replica that lacks records leads unasked"
                assert risked > 0, "a loss was silent"
                assert not state.alive().intersection(last.isr, self.complete[place])
                self.complete[place] = {partition.leader}
            self.check_members(place, partition, config.min_insync_replicas)
            if partition.leader == NO_LEADER and config.unclean_leader_election:
                waiting = state.alive() & set(partition.replicas).difference(partition.adding)
                assert waiting <= self.emptied
                assert not waiting or partition.isr or partition.elr, "they wait for nobody"
            self.last[place] = partition

    def check_members(self, place: Place, partition: PartitionInfo, min_insync: int) -> None:
        isr, elr, replicas = set(partition.isr), set(partition.elr), set(partition.replicas)
        state = self.machine.state
        assert len(replicas) == len(partition.replicas)
        assert isr <= replicas
        assert elr <= replicas
        assert not isr & elr
        assert set(partition.target) <= replicas
        assert not partition.target or not set(partition.target) <= isr
        assert isr | elr <= self.complete[place], "who may be elected lacks records"
        if partition.leader == NO_LEADER:
            assert not state.alive() & (isr | elr)
            return
        assert partition.leader in isr <= state.alive()
        assert len(isr) < min_insync or not elr
        assert partition.leader not in state.draining() or isr <= state.draining()

    def check_epochs(self, place: Place, partition: PartitionInfo) -> None:
        last = self.last.get(place, partition)
        step = partition.partition_epoch - last.partition_epoch
        assert step == (partition != last), "the partition epoch counts changes"
        assert partition.leader_epoch - last.leader_epoch in (0, 1)
        if partition.leader not in (last.leader, NO_LEADER):
            assert partition.leader_epoch == last.leader_epoch + 1, "an election has an epoch of its own"
        if partition.leader != NO_LEADER:
            key = (*place, partition.leader_epoch)
            assert self.leaders.setdefault(key, partition.leader) == partition.leader
