"""The coordinator without its sockets, store and clock: what it decides, and in which order things change.

`decide` looks at the durable state and returns a Decision. A Machine applies decisions, keeps the
soft state (sessions, parked requests) in step with them, and says what to store, publish and
answer. The caller stores before it publishes, and publishes before it answers.
"""

from collections.abc import Iterable
from itertools import accumulate
from math import inf
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from tailrace.protocol.admin_messages import AdminRequest, DrainNode, ElectLeaders, MovePartitions, RemoveNode
from tailrace.protocol.cluster import (
    Listener,
    NodeChanged,
    NodeInfo,
    NodeRemoved,
    PartitionChanged,
    TopicChanged,
    TopicRemoved,
)
from tailrace.protocol.errors import BusyError, TailraceError
from tailrace.protocol.group_messages import GroupRequest
from tailrace.protocol.limits import PARKED_CREATIONS_MAX, PARTITIONS_PER_UPDATE_MAX
from tailrace.protocol.messages import (
    AlterTopic,
    CoordinatorRequest,
    CreateTopic,
    DeleteTopic,
    GetSnapshot,
    Heartbeat,
    InitProducer,
    LeaveCluster,
    NodeRegistered,
    Ping,
    Pong,
    RegisterNode,
    Update,
)
from tailrace.protocol.replica_messages import AlterIsr, LeaveIsr
from tailrace.protocol.text import plural
from tailrace.protocol.wire import failure

from .decision import Decision
from .groups.changes import GroupChange
from .groups.groups import Groups
from .groups.state import GroupsState
from .handlers import (
    alter_isr,
    alter_topic,
    create_topic,
    delete_topic,
    drain_node,
    elect_leaders,
    get_snapshot,
    heartbeat,
    init_producer,
    leave_cluster,
    leave_isr,
    move_partitions,
    register_node,
    remove_node,
)
from .node_connections import NodeConnections
from .openings import Answer, Openings
from .preferred import SLICE_MAX, PreferredLeaders, next_slice
from .private_state import PrivateChange
from .sessions import Sessions
from .state import State

ClusterRequest: TypeAlias = (
    GetSnapshot
    | RegisterNode
    | Heartbeat
    | LeaveCluster
    | CreateTopic
    | DeleteTopic
    | AlterTopic
    | InitProducer
    | AlterIsr
    | LeaveIsr
    | AdminRequest
    | Ping
)
"""What is not asked of a group."""


class Settings(NamedTuple):
    """What the coordinator tells those who ask, how long a node may be silent, and offsets are kept."""

    publisher: Listener
    session_timeout_ms: int
    offsets_retention_ms: int = 7 * 24 * 3_600_000


class Outcome(NamedTuple):
    """What follows from an event: to be stored, then published, then answered."""

    update: Update | None = None
    private: tuple[PrivateChange, ...] = ()
    groups: tuple[GroupChange, ...] = ()
    answers: tuple[Answer, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def decide(state: State, settings: Settings, request: ClusterRequest, new_id: bytes) -> Decision:
    """What to do about a request; `new_id` is 16 random bytes, for a topic. Raises TailraceError."""
    match request:
        case Heartbeat():
            decision = heartbeat.decide(state, request)
        case AlterIsr():
            decision = alter_isr.decide(state, request)
        case LeaveIsr():
            decision = leave_isr.decide(state, request)
        case InitProducer():
            decision = init_producer.decide(state, request)
        case GetSnapshot():
            decision = get_snapshot.decide(state, request, settings.publisher)
        case RegisterNode():
            decision = register_node.decide(state, request, settings.session_timeout_ms)
        case LeaveCluster():
            decision = leave_cluster.decide(state, request)
        case Ping():
            decision = Decision(Pong(request.request_id))
        case _:
            decision = _decide_for_admin(state, request, new_id)
    return decision


def _decide_for_admin(
    state: State, request: CreateTopic | AlterTopic | DeleteTopic | AdminRequest, new_id: bytes
) -> Decision:
    match request:
        case CreateTopic():
            decision = create_topic.decide(state, request, new_id)
        case AlterTopic():
            decision = alter_topic.decide(state, request)
        case DeleteTopic():
            decision = delete_topic.decide(state, request)
        case ElectLeaders():
            decision = elect_leaders.decide(state, request)
        case MovePartitions():
            decision = move_partitions.decide(state, request)
        case DrainNode():
            decision = drain_node.decide(state, request)
        case RemoveNode():
            decision = remove_node.decide(state, request)
    return decision


class Machine:
    """The state, durable and soft, and the events that move it on.

    `now`: seconds, monotonic; `wall_ms`: milliseconds since 1970. After each burst of events `settle` says
    what follows for groups.
    """

    def __init__(self, state: State, groups: GroupsState, settings: Settings, now: float) -> None:
        self.state = state
        self._groups = Groups(
            groups, state.cluster, offsets_retention_ms=settings.offsets_retention_ms, now=now
        )
        self._settings = settings
        self._sessions = Sessions(settings.session_timeout_ms / 1000, now)
        self._connections = NodeConnections()
        self._preferred = PreferredLeaders(now)
        self._openings = Openings()
        for node_id in state.alive():
            self._sessions.hear(node_id, now)

    def ask(
        self, peer: bytes, request: CoordinatorRequest, new_id: bytes, now: float, wall_ms: int
    ) -> Outcome:
        """A peer's request."""
        if isinstance(request, GroupRequest):
            self._groups.ask(peer, request, now, wall_ms)
            return Outcome()
        try:
            creates = isinstance(request, CreateTopic | AlterTopic)
            if creates and len(self._openings) >= PARKED_CREATIONS_MAX:
                raise BusyError(f"{PARKED_CREATIONS_MAX} topics wait for their leaders: retry later")
            decision = decide(self.state, self._settings, request, new_id)
        except TailraceError as error:
            return Outcome(answers=((peer, failure(request.request_id, error)),))
        update, answers = self._apply(decision, now)
        if isinstance(request, RegisterNode | Heartbeat):
            self._connections.hear(peer, request.node_id)
        if isinstance(request, Heartbeat):
            self._sessions.hear(request.node_id, now)
            answers += self._openings.applied(request.node_id, request.applied_version, self.state.cluster)
        if decision.opening is not None and isinstance(request, CreateTopic | AlterTopic):
            topic = self.state.cluster.topics[decision.opening]
            self._openings.add(
                peer, request, topic, self.state.cluster.version, now, first=decision.first_opening
            )
        reply = decision.reply
        if isinstance(reply, NodeRegistered):
            reply = replace(reply, snapshot=self.state.cluster.snapshot())
        if reply is not None:
            answers.append((peer, reply))
        return Outcome(
            update, decision.private, (), tuple(answers), warnings=decision.warnings, notes=decision.notes
        )

    def gone(self, peers: Iterable[bytes], now: float) -> None:
        """Connections have ended."""
        self._groups.gone(peers, now)
        self._connections.gone(peers)

    def missing(self) -> dict[int, Listener]:
        """The nodes whose connection has ended and that have not been heard since, with their addresses."""
        nodes = self.state.cluster.nodes
        return {node_id: nodes[node_id].listener for node_id in self._connections.missing}

    def refused(self, node_ids: Iterable[int]) -> None:
        """No process listens at the addresses of these: who of them is missing dies with the next tick."""
        self._connections.refused(node_ids)

    def settle(self, now: float, wall_ms: int) -> Outcome:
        """What the events since the last call mean for groups."""
        changes, answers = self._groups.settle(now, wall_ms)
        return Outcome(groups=changes, answers=tuple(answers))

    def tick(self, now: float, wall_ms: int) -> Outcome:
        """Time has passed: give up silent nodes and members, and requests that waited too long."""
        notes = tuple(self._groups.tick(now, wall_ms))
        late = self._openings.timed_out(now)
        outcome = self._bury(now) or self._lead_as_preferred(now) or Outcome()
        return outcome._replace(answers=(*late, *outcome.answers), notes=(*notes, *outcome.notes))

    def _bury(self, now: float) -> Outcome | None:
        """Declare nodes dead whose process has ended, or that are silent for too long."""
        ended = self._connections.dead()
        silent = self._sessions.expired(now)
        dead = self._together(sorted({*ended, *silent}))
        if not dead:
            return None
        decision = leave_cluster.die(self.state, dead)
        update, answers = self._apply(decision, now)
        timeout_ms = self._settings.session_timeout_ms
        reasons = (
            "its connection ended, and its address refuses another"
            if node_id in ended
            else f"not heard of for {timeout_ms} ms"
            for node_id in dead
        )
        deaths = tuple(f"node {n} is dead: {reason}" for n, reason in zip(dead, reasons, strict=True))
        return Outcome(update, answers=tuple(answers), warnings=(*deaths, *decision.warnings))

    def _lead_as_preferred(self, now: float) -> Outcome | None:
        """Give leadership back to first replicas that have returned, some at a time."""
        due = self._preferred.next_look(self.state)
        if due is None or now < due:
            return None
        changes, more = next_slice(self.state, SLICE_MAX)
        self._preferred.looked(now, more=more)
        if not changes:
            return None
        update, answers = self._apply(Decision(changes=changes), now)
        note = f"{plural(len(changes), 'partition')} led by the first replica again"
        return Outcome(update, answers=tuple(answers), notes=(note,))

    def stop(self) -> Outcome:
        """The coordinator ends: those who wait are told."""
        return Outcome(answers=(*self._openings.stop(), *self._groups.stop()))

    def next_tick(self) -> float | None:
        """When `tick` must be called at the latest, however many requests come."""
        times = (
            self._sessions.next_look(),
            -inf if self._connections.dead() else None,
            self._preferred.next_look(self.state),
            self._openings.next_deadline(),
            self._groups.next_tick(),
        )
        return min((time for time in times if time is not None), default=None)

    def _together(self, node_ids: list[int]) -> list[int]:
        """Those that die in one update; if it has no room for all, the next tick is due at once."""
        held = accumulate(self.state.index.load(node_id).replicas for node_id in node_ids)
        return [n for n, total in zip(node_ids, held, strict=True) if total <= PARTITIONS_PER_UPDATE_MAX]

    def _apply(self, decision: Decision, now: float) -> tuple[Update | None, list[Answer]]:
        self.state.unclean_elections += decision.unclean
        for change in decision.private:
            self.state.apply_private(change)
        if not decision.changes:
            return None, []
        cluster = self.state.cluster
        update = Update(cluster.controller_epoch, cluster.version + 1, list(decision.changes))
        self.state.apply(update)
        return update, self._follow(update, now)

    def _follow(self, update: Update, now: float) -> list[Answer]:
        """Keep the soft state in step with an applied update."""
        answers: list[Answer] = []
        elected = set()
        topics = [
            change.topic.topic_id if isinstance(change, TopicChanged) else change.topic_id
            for change in update.changes
            if isinstance(change, TopicChanged | TopicRemoved)
        ]
        if topics:
            self._groups.topics_changed(topics)
        for change in update.changes:
            match change:
                case NodeChanged(node) if node.alive:
                    self._preferred.node_changed(now)
                    self._sessions.hear(node.node_id, now)
                case NodeChanged(NodeInfo(node_id)) | NodeRemoved(node_id):
                    self._preferred.node_changed(now)
                    self._sessions.end(node_id)
                    self._connections.forget(node_id)
                case TopicChanged(topic):
                    elected.add(topic.topic_id)
                case TopicRemoved(topic_id):
                    answers += self._openings.removed(topic_id)
                case PartitionChanged(topic_id):
                    elected.add(topic_id)
        for topic_id in elected:
            self._openings.elected(self.state.cluster.topics[topic_id], update.version)
        return answers
