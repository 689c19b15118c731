"""The coordinator without its sockets, store and clock: what it decides, and in which order things change.

`decide` looks at the durable state and returns a Decision. A Machine applies decisions, keeps the
soft state (sessions, parked requests) in step with them, and says what to store, publish and
answer. The caller stores before it publishes, and publishes before it answers.
"""

from itertools import accumulate
from typing import NamedTuple

from msgspec.structs import replace

from tailrace.protocol.cluster import Listener, NodeChanged, NodeRemoved, PartitionChanged, TopicRemoved
from tailrace.protocol.errors import BusyError, TailraceError
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
from tailrace.protocol.wire import failure

from .decision import Decision
from .handlers import (
    alter_topic,
    create_topic,
    delete_topic,
    get_snapshot,
    heartbeat,
    init_producer,
    leave_cluster,
    register_node,
)
from .openings import Answer, Openings
from .private_state import PrivateChange
from .sessions import Sessions
from .state import State


class Settings(NamedTuple):
    """What the coordinator tells those who ask, and how long a node may be silent."""

    publisher: Listener
    session_timeout_ms: int


class Outcome(NamedTuple):
    """What follows from an event: to be stored, then published, then answered."""

    update: Update | None = None
    private: tuple[PrivateChange, ...] = ()
    answers: tuple[Answer, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def decide(state: State, settings: Settings, request: CoordinatorRequest, new_id: bytes) -> Decision:
    """What to do about a request; `new_id` is 16 random bytes, for a topic. Raises TailraceError."""
    match request:
        case Heartbeat():
            decision = heartbeat.decide(state, request)
        case InitProducer():
            decision = init_producer.decide(state, request)
        case GetSnapshot():
            decision = get_snapshot.decide(state, request, settings.publisher)
        case CreateTopic():
            decision = create_topic.decide(state, request, new_id)
        case AlterTopic():
            decision = alter_topic.decide(state, request)
        case DeleteTopic():
            decision = delete_topic.decide(state, request)
        case RegisterNode():
            decision = register_node.decide(state, request, settings.session_timeout_ms)
        case LeaveCluster():
            decision = leave_cluster.decide(state, request)
        case Ping():
            decision = Decision(Pong(request.request_id))
    return decision


class Machine:
    """The state, durable and soft, and the events that move it on. `now`: seconds, monotonic."""

    def __init__(self, state: State, settings: Settings, now: float) -> None:
        self.state = state
        self._settings = settings
        self._sessions = Sessions(settings.session_timeout_ms / 1000, now)
        self._openings = Openings()
        for node_id in state.alive():
            self._sessions.hear(node_id, now)

    def ask(self, peer: bytes, request: CoordinatorRequest, new_id: bytes, now: float) -> Outcome:
        """A peer's request."""
        try:
            creates = isinstance(request, CreateTopic | AlterTopic)
            if creates and len(self._openings) >= PARKED_CREATIONS_MAX:
                raise BusyError(f"{PARKED_CREATIONS_MAX} topics wait for their leaders: retry later")
            decision = decide(self.state, self._settings, request, new_id)
        except TailraceError as error:
            return Outcome(answers=((peer, failure(request.request_id, error)),))
        update, answers = self._apply(decision, now)
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
        return Outcome(update, decision.private, tuple(answers), decision.warnings, decision.notes)

    def tick(self, now: float) -> Outcome:
        """Time has passed: declare silent nodes dead, give up on requests that waited too long."""
        late = self._openings.timed_out(now)
        silent = self._together(self._sessions.expired(now))
        if not silent:
            return Outcome(answers=tuple(late))
        update, answers = self._apply(leave_cluster.die(self.state, silent), now)
        timeout_ms = self._settings.session_timeout_ms
        warnings = tuple(f"node {n} is dead: not heard of for {timeout_ms} ms" for n in silent)
        return Outcome(update, (), (*late, *answers), warnings)

    def stop(self) -> Outcome:
        """The coordinator ends: those who wait are told."""
        return Outcome(answers=tuple(self._openings.stop()))

    def next_tick(self) -> float | None:
        """When `tick` must be called at the latest, however many requests come."""
        times = (self._sessions.next_look(), self._openings.next_deadline())
        return min((time for time in times if time is not None), default=None)

    def _together(self, node_ids: list[int]) -> list[int]:
        """Those that die in one update; if it has no room for all, the next tick is due at once."""
        held = accumulate(self.state.index.load(node_id).replicas for node_id in node_ids)
        return [n for n, total in zip(node_ids, held, strict=True) if total <= PARTITIONS_PER_UPDATE_MAX]

    def _apply(self, decision: Decision, now: float) -> tuple[Update | None, list[Answer]]:
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
        for change in update.changes:
            match change:
                case NodeChanged(node) if node.alive:
                    self._sessions.hear(node.node_id, now)
                case NodeChanged(node):
                    self._sessions.end(node.node_id)
                case NodeRemoved(node_id):
                    self._sessions.end(node_id)
                case TopicRemoved(topic_id):
                    answers += self._openings.removed(topic_id)
                case PartitionChanged(topic_id):
                    elected.add(topic_id)
        for topic_id in elected:
            self._openings.elected(self.state.cluster.topics[topic_id], update.version)
        return answers
