"""Every interleaving of a small cluster, by breadth-first search over what production decides.

Two nodes, a coordinator, one partition, two records. The nodes' parts are production's: `LeadReplica`,
`Copier`, `Leaders`, what the leader makes of a fetch (`replica_fetch._look`), the epochs of logs; and the
coordinator's deciders on its `State`. Between the nodes is one lossy link: a fetch, or its answer, may be
lost, and may come late. Twice in all a node crashes, or is taken for dead although it lives; what it had on
disk it has when it returns.
"""

import pickle
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from tailrace.coordinator.handlers import alter_isr, leave_cluster, register_node
from tailrace.coordinator.state import State
from tailrace.node.handlers import replica_fetch
from tailrace.node.replication.leading import LeadReplica
from tailrace.protocol.cluster import Listener, NodeInfo, PartitionInfo, TopicChanged, TopicConfig, TopicInfo
from tailrace.protocol.errors import OffsetOutOfRangeError, TailraceError
from tailrace.protocol.message import OK
from tailrace.protocol.messages import RegisterNode, Update
from tailrace.protocol.replica_messages import AlterIsr, IsrProposal, ReplicaFetch, ReplicaFetchResult
from tailrace.protocol.wire import error_info

from .schedule import Violation
from .small_node import KEY, TOPIC, Node, end_of_epoch

NODES = (1, 2)
CRASHES_MAX = 2
RECORDS_MAX = 2
LOSSES_MAX = 1
SESSION_MS = 1_000

Action = tuple[str, int]


class Model:
    """A state of the whole, and the actions that lead on from it."""

    def __init__(self) -> None:
        self.state = State("cluster")
        info = PartitionInfo(NODES, 1, 1, 0, NODES)
        nodes = [NodeInfo(n, n, Listener(f"sim://{n}"), str(n), alive=True) for n in NODES]
        topic = TopicInfo(TOPIC, "t", TopicConfig(), (info,))
        self.state.apply(Update(0, 1, [TopicChanged(topic)]))
        self.state.cluster.nodes = {node.node_id: node for node in nodes}
        self.nodes = {n: Node(n, node_epoch=n) for n in NODES}
        for node in self.nodes.values():
            node.follow(info)
        self.fetch: tuple[int, ReplicaFetch, int] | None = None
        """(follower, what it asks, to whom) on the link; and the answer."""
        self.answer: tuple[int, Any, ReplicaFetchResult, list[tuple[int, int]]] | None = None
        self.numbers = self.crashes = self.losses = 0
        self.committed: list[tuple[int, int]] = []
        self.leaders: dict[int, int] = {}

    @property
    def info(self) -> PartitionInfo:
        return self.state.cluster.topics[TOPIC].partitions[0]

    def key(self) -> Any:
        """Two states with the same key go on alike."""
        nodes = tuple(
            (
                tuple(n.log.records),
                n.log.epochs,
                n.log.high_watermark,
                n.up,
                n.node_epoch,
                n.info,
                _lead_key(n.lead),
                n.flight,
                n.asked,
                n.copier is not None,
            )
            for n in self.nodes.values()
        )
        cluster = (self.info, tuple((n.alive, n.node_epoch) for n in self.state.cluster.nodes.values()))
        link = (self.fetch, self.answer)
        return repr((nodes, cluster, link, self.numbers, self.crashes, self.losses, self.committed))

    def actions(self) -> Iterator[Action]:
        alive = self.state.alive()
        for n, node in self.nodes.items():
            if n in alive and (not node.up or (len(alive) == 2 and self.crashes < CRASHES_MAX)):
                yield "bury", n  # if it is up, its heartbeats were late
            if not node.up or n not in alive:
                yield "restart", n  # if it is up, it registers again
            if node.up:
                yield from ((action, n) for action in self._actions_of(node))
        if self.fetch is not None:
            yield "serve", self.fetch[2]
        if self.answer is not None:
            yield "take", self.answer[0]
        if self.losses < LOSSES_MAX and (self.fetch or self.answer):
            yield "lose", 0

    def _actions_of(self, node: Node) -> Iterator[str]:
        if node.info != self.info:
            yield "hear"
        if node.lead is not None and self.numbers < RECORDS_MAX:
            yield "produce"
        if node.copier is not None and node.flight is None and self.fetch is None and self.answer is None:
            yield "ask"
        if node.lead is not None:
            yield "propose" if node.asked is None else "alter"
        if self.crashes < CRASHES_MAX:
            yield "crash"

    def do(self, action: Action) -> None:
        name, number = action
        getattr(self, f"_{name}")(self.nodes.get(number))
        for node in self.nodes.values():
            node.settle()
        self._check()

    # ----------------------------------------------------------------- actions

    def _produce(self, node: Node) -> None:
        self.numbers += 1
        node.log.records.append((node.log.leader_epoch, self.numbers))

    def _ask(self, node: Node) -> None:
        [fetch] = node.copier.plan(1e9) or [None]
        if fetch is None:
            return
        node.flight = fetch
        request = ReplicaFetch(1, node_id=node.node_id, node_epoch=node.node_epoch, entries=fetch.entries)
        self.fetch = (node.node_id, request, fetch.leader)

    def _serve(self, node: Node) -> None:
        follower, request, _ = self.fetch
        self.fetch = None
        if not node.up:
            return
        [entry] = request.entries
        storage = SimpleNamespace(end_of_epoch=end_of_epoch)
        lead = node.lead
        replication = SimpleNamespace(
            is_replica=lambda _, n: lead is not None and lead.is_replica(n),
            fetched=lambda _, n, epoch, offset, now: lead.fetched(
                n, epoch, offset, end_offset=node.log.log_end_offset, now=now
            ),
        )
        broker = SimpleNamespace(leaders=node.leaders, replication=replication, storage=storage)
        records: list[tuple[int, int]] = []
        try:
            found = replica_fetch._look(broker, request, entry, 0.0)
        except TailraceError as error:
            start = 0 if isinstance(error, OffsetOutOfRangeError) else -1
            found = ReplicaFetchResult(*KEY, error_info(error), -1, start)
        if not isinstance(found, ReplicaFetchResult):
            records = node.log.records[entry.offset :]
            found = ReplicaFetchResult(*KEY, OK, node.log.high_watermark, 0, len(records))
        self.answer = (follower, request.entries, found, records)

    def _take(self, node: Node) -> None:
        _, entries, result, records = self.answer
        self.answer = None
        if not node.up or node.flight is None or node.flight.entries != entries:
            return
        flight, node.flight = node.flight, None
        frames = [pickle.dumps(record) for record in records]
        node.copier.replied(flight.fetch_id, [result], frames, 0.0)
        for step in node.copier.take_steps():
            if step.truncate_to is not None:
                node.log.truncate(step.truncate_to)
            node.log.copy([pickle.loads(batch) for batch in step.batches])
            if step.high_watermark >= 0:
                risen = min(step.high_watermark, node.log.log_end_offset)
                node.log.high_watermark = max(node.log.high_watermark, risen)
            node.copier.done(step, None, 0.0)

    def _lose(self, _: Any) -> None:
        """What waits for it gets a time-out."""
        self.losses += 1
        follower = self.fetch[0] if self.fetch else self.answer[0]
        self.fetch = self.answer = None
        node = self.nodes[follower]
        if node.flight is not None:
            flight, node.flight = node.flight, None
            node.copier.failed(flight.fetch_id, 0.0)

    def _propose(self, node: Node) -> None:
        epochs_of = {n.node_id: n.node_epoch for n in self.state.cluster.nodes.values() if n.alive}
        isr = node.lead.propose(node.log.high_watermark, epochs_of, 0.0)
        if isr is None:
            return
        proposal = IsrProposal(*KEY, node.lead.leader_epoch, node.lead.partition_epoch, isr)
        node.asked = AlterIsr(
            1,
            node_id=node.node_id,
            node_epoch=node.node_epoch,
            proposals=[proposal],
            member_epochs=dict(node.lead.seen),
        )

    def _alter(self, node: Node) -> None:
        request, node.asked = node.asked, None
        try:
            decision = alter_isr.decide(self.state, request)
        except TailraceError:
            node.lead.unanswered()
            return
        self._apply(decision.changes)
        node.lead.answered(decision.reply.results[0].partition)

    def _hear(self, node: Node) -> None:
        node.follow(self.info)

    def _bury(self, node: Node) -> None:
        self.crashes += node.up
        self._apply(leave_cluster.die(self.state, {node.node_id}).changes)

    def _crash(self, node: Node) -> None:
        self.crashes += 1
        node.crash()

    def _restart(self, node: Node) -> None:
        request = RegisterNode(
            1, node_id=node.node_id, listener=Listener(f"sim://{node.node_id}"), storage_id=str(node.node_id)
        )
        decision = register_node.decide(self.state, request, SESSION_MS)
        self._apply(decision.changes)
        node.up, node.node_epoch = True, decision.reply.node.node_epoch
        node.follow(self.info)

    def _apply(self, changes: Any) -> None:
        if changes:
            self.state.apply(Update(0, self.state.cluster.version + 1, list(changes)))

    # ------------------------------------------------------------------ checks

    def _check(self) -> None:
        info = self.info
        for node in self.nodes.values():
            if node.lead is None:
                continue
            epoch = node.lead.leader_epoch
            if self.leaders.setdefault(epoch, node.node_id) != node.node_id:
                raise Violation(f"invariant 4: two leaders in epoch {epoch}")
            below = node.log.records[: node.log.high_watermark]
            common = min(len(below), len(self.committed))
            if below[:common] != self.committed[:common]:
                raise Violation(f"invariant 2: {below} is shown where {self.committed} was")
            if len(below) > common:
                self.committed = list(below)
            current = info.leader == node.node_id and info.leader_epoch == epoch
            if current and node.log.records[: len(self.committed)] != self.committed:
                raise Violation(
                    f"invariant 1: {self.committed} was committed, the leader has {node.log.records}"
                )
        if any(self.nodes[n].log.records[: len(self.committed)] != self.committed for n in info.isr):
            raise Violation(f"invariant 1: not all of {info.isr} have {self.committed}")


def _lead_key(lead: LeadReplica | None) -> Any:
    if lead is None:
        return None
    followers = tuple((n, f.node_epoch, f.end_offset) for n, f in sorted(lead._followers.items()))
    return lead.leader_epoch, lead.start, lead._info, lead.proposed, lead._asked, followers


@dataclass
class Found:
    """How much of the model was looked at, and the shortest way to a violation, if there is one."""

    states: int
    depth: int
    violation: str = ""
    path: tuple[Action, ...] = ()


def search(depth_max: int, states_max: int) -> Found:
    """All states within `depth_max` actions from the start, or the first `states_max` of them."""
    first = Model()
    seen = {hash(first.key())}
    waiting: deque[tuple[bytes, tuple[Action, ...]]] = deque([(pickle.dumps(first), ())])
    while waiting:
        blob, path = waiting.popleft()
        if len(path) >= depth_max or len(seen) >= states_max:
            return Found(len(seen), len(path))
        for action in pickle.loads(blob).actions():
            model = pickle.loads(blob)
            try:
                model.do(action)
            except Violation as violation:
                return Found(len(seen), len(path) + 1, str(violation), (*path, action))
            key = hash(model.key())
            if key not in seen:
                seen.add(key)
                waiting.append((pickle.dumps(model), (*path, action)))
    return Found(len(seen), depth_max)
