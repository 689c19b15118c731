"""The node's session with the coordinator: what to send, connect and follow next. Pure.

Events come in (`connected`, `lost`, `reply`, `published`, `applied`, `tick`, `leave`), actions go
out. Time is an argument, in seconds of a monotonic clock.

    AWAY -> CONNECTING -> JOINING -> REGISTERING -> MEMBER -> LEAVING -> LEFT

JOINING asks for a snapshot, since it names the endpoint to subscribe to; REGISTERING makes the
node known and brings the state as of its registration. A node that was a member before goes from
JOINING to MEMBER with a heartbeat, and registers anew only when told that its epoch is stale.
Losing the coordinator stops nothing: the node serves what it led, and tries again with back-off.

What a coordinator with an older controller epoch says is refused (RELIABILITY R1, R14).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from random import Random
from typing import Final

from tailrace.client.retry import Backoff
from tailrace.protocol.cluster import ClusterState, Listener, Snapshot
from tailrace.protocol.cluster_copy import ClusterCopy, Progress
from tailrace.protocol.errors import ErrorCode, TailraceError, error_from
from tailrace.protocol.messages import (
    CoordinatorRequest,
    Failed,
    GetSnapshot,
    Heartbeat,
    HeartbeatSeen,
    LeaveCluster,
    NodeRegistered,
    Published,
    Reply,
    SnapshotTaken,
)

from .actions import Action, Ask, Connect, Disconnect, Follow, GiveUp, Report, Subscribe
from .belonging import Belonging
from .identity import Identity

BEATS_PER_SESSION: Final = 4
RETRY_S: Final = 1.0
"""Between two attempts to register under an id that is in use."""
CONNECT_S_MAX: Final = 2.0
"""How long an endpoint is tried before another one is, and before a word about it."""
REPLY_S_MAX: Final = 5.0
"""A coordinator that has not answered for so long is taken for lost."""
LEAVE_S_MAX: Final = 1.0
PROOF_S_MIN: Final = 0.05
PROOF_S_MAX: Final = 5.0
"""A subscription misses what is published before it has taken effect. Until something comes in over
it, snapshots are asked for in its place: after the first of these times, then after twice the last
wait, up to the second of them."""
SILENCE_S_MAX: Final = 10.0
"""A subscription that was silent for so long has to prove itself again."""
NODE_ID_PATIENCE_S: Final = 15.0
"""A node whose id is in use tries again for so long: the session of a predecessor may have to end."""


class Phase(Enum):
    """Where the session stands."""

    AWAY = auto()
    CONNECTING = auto()
    JOINING = auto()
    REGISTERING = auto()
    MEMBER = auto()
    LEAVING = auto()
    LEFT = auto()


@dataclass(slots=True)
class _Session:
    """What ends with the connection."""

    asked: dict[int, tuple[float, CoordinatorRequest]] = field(default_factory=dict)
    """Requests without a reply, oldest first: id -> when it was sent, and what."""
    publisher: Listener | None = None
    proof_at: float = inf
    proof_wait: float = PROOF_S_MIN


class Membership:
    """See the module. `held_topics` have logs on this node, or soon will; the owner keeps it current."""

    def __init__(
        self,
        identity: Identity,
        endpoints: Iterable[str],
        *,
        held_topics: Iterable[bytes],
        belonging: Belonging,
        rng: Random,
    ) -> None:
        self.phase = Phase.AWAY
        self.held_topics = set(held_topics)
        self.controller_epoch = belonging.controller_epoch("")
        self.node_epoch: int | None = None
        self.applied_version = -1
        self.lease_until = -inf
        """Until then the coordinator takes this node for alive: a session after the last answered beat."""
        self._session_s = 0.0
        self._identity = identity
        self._belonging = belonging
        self._endpoints = tuple(endpoints)
        self._connects = 0
        self._copy = ClusterCopy()
        self._deleted: frozenset[bytes] = frozenset()
        """Topics that were said to be deleted before the first registration; it has to come first."""
        self._session = _Session()
        self._backoff = Backoff(rng)
        self._request_ids = 0
        self._timer = 0.0
        """When the phase's own timer is due: connect, try elsewhere, register, beat, or leave anyway."""
        self._beat_s = 1.0
        self._was_member = False
        self._id_in_use_since: float | None = None
        self._reported: set[str] = set()

    @property
    def cluster(self) -> ClusterState:
        """The state as far as it is known."""
        return self._copy.state

    @property
    def ready(self) -> bool:
        """Registered, and the state of that moment or a later one is applied."""
        return self.phase is Phase.MEMBER and self.applied_version >= 0

    # ------------------------------------------------------------------ time

    def next_tick(self) -> float:
        """When `tick` has something to do at the latest; infinity when it has not."""
        if self.phase is Phase.LEFT:
            return inf
        times = [self._timer]
        if self._session.asked:
            times.append(self._oldest() + REPLY_S_MAX)
        if self.phase is Phase.MEMBER:
            times.append(self._session.proof_at)
        return min(times)

    def tick(self, now: float) -> list[Action]:
        """Do what is due: connect, beat, ask again, give a silent coordinator up."""
        due = now >= self._timer
        actions: list[Action] = []
        if self.phase is not Phase.LEAVING and self._session.asked and now >= self._oldest() + REPLY_S_MAX:
            return self.lost(f"no answer for {REPLY_S_MAX:g} s", now)
        match self.phase:
            case Phase.AWAY if due:
                actions = self._connect(now)
            case Phase.CONNECTING if due:
                actions = self._try_elsewhere(now)
            case Phase.REGISTERING if due:
                actions = [self._register(now)]
            case Phase.LEAVING if due:
                actions = self._left()
            case Phase.MEMBER:
                actions = [*([self._beat(now)] if due else []), *self._prove(now)]
            case _:
                pass
        return actions

    def _oldest(self) -> float:
        return next(iter(self._session.asked.values()))[0]

    def _prove(self, now: float) -> list[Action]:
        session = self._session
        if now < session.proof_at:
            return []
        session.proof_at = now + session.proof_wait
        session.proof_wait = min(session.proof_wait * 2, PROOF_S_MAX)
        return self._ask_snapshot(now)

    # ----------------------------------------------------------- connections

    def _connect(self, now: float) -> list[Action]:
        endpoint = self._endpoints[self._connects % len(self._endpoints)]
        self._connects += 1
        self.phase = Phase.CONNECTING
        self._timer = now + CONNECT_S_MAX
        return [Connect(endpoint)]

    def _try_elsewhere(self, now: float) -> list[Action]:
        report = self._report(f"no coordinator at {' or '.join(self._endpoints)} yet; trying on")
        if len(self._endpoints) > 1:
            return [*report, Disconnect(), *self._connect(now)]
        # A lone endpoint needs no second try: the transport connects as soon as it is there.
        self._timer = inf
        return report

    def connected(self, now: float) -> list[Action]:
        """The coordinator answers at the transport's level."""
        assert self.phase is Phase.CONNECTING, self.phase
        self.phase = Phase.JOINING
        self._timer = inf
        self._session = _Session()
        return self._ask_snapshot(now)

    def lost(self, reason: str, now: float) -> list[Action]:
        """The connection is gone, or of no use."""
        if self.phase in {Phase.LEAVING, Phase.LEFT}:
            return self._left()
        actions: list[Action] = [Disconnect()]
        if self.phase is Phase.MEMBER:
            actions.append(Report(f"the coordinator is away ({reason}); serving goes on"))
        self.phase = Phase.AWAY
        self._session = _Session()
        self._timer = now + self._backoff.pause()
        return actions

    # --------------------------------------------------------------- replies

    def reply(self, message: Reply, now: float) -> list[Action]:
        """A reply of the coordinator. One that was not asked for in this session is ignored."""
        asked_at, request = self._session.asked.pop(message.request_id, (0.0, None))
        if request is None or self.phase is Phase.LEAVING:
            return self._left() if isinstance(request, LeaveCluster) else []
        match message:
            case Failed(error=info):
                return self._failed(error_from(info.code, info.message), request, now)
            case SnapshotTaken():
                return self._snapshot_taken(message, now)
            case NodeRegistered():
                return self._registered(message, asked_at, now)
            case HeartbeatSeen(controller_epoch=epoch):
                refused = self._check_epoch(epoch, now)
                if not refused:
                    self.lease_until = max(self.lease_until, asked_at + self._session_s)
                return refused
            case _:
                return self.lost(f"an unexpected {type(message).__name__}", now)

    def _snapshot_taken(self, message: SnapshotTaken, now: float) -> list[Action]:
        version = self.cluster.version if self.phase is Phase.JOINING else 0
        if (refusal := self._belonging.refusal(message, self.held_topics, version)) is not None:
            return self._failed(refusal, GetSnapshot(message.request_id), now)
        if not self._copy.known:
            self.controller_epoch = self._belonging.controller_epoch(message.cluster_id)
        if refused := self._check_epoch(message.snapshot.controller_epoch, now):
            return refused
        self._belonging.join(message)
        actions: list[Action] = []
        if self._session.publisher != message.publisher:
            self._session.publisher = message.publisher
            self._session.proof_at = now + PROOF_S_MIN
            actions.append(Subscribe(message.publisher))
        topics = self.cluster.topics.keys()
        progress = self._take_snapshot(message.snapshot, now)
        actions.extend(self._follow(progress.touched, progress.deleted))
        if topics - progress.deleted - self.cluster.topics.keys():
            # Only a registration tells which of the vanished topics were deleted.
            self.node_epoch = None
        if self.phase is Phase.REGISTERING:
            return actions
        if self.node_epoch is None:
            return [*actions, self._register(now)]
        if self.phase is Phase.JOINING:
            self._enter()
            actions.append(self._beat(now))
        return actions

    def _registered(self, message: NodeRegistered, asked_at: float, now: float) -> list[Action]:
        if refused := self._check_epoch(message.snapshot.controller_epoch, now):
            return refused
        if message.node is None or message.session_timeout_ms <= 0:
            return self.lost("an empty registration", now)
        self.node_epoch = message.node.node_epoch
        self._was_member = True
        self._beat_s = message.session_timeout_ms / 1_000 / BEATS_PER_SESSION
        self._timer = now + self._beat_s
        self._session_s = message.session_timeout_ms / 1_000
        self.lease_until = asked_at + self._session_s
        self._enter()
        progress = self._take_snapshot(message.snapshot, now)
        followed = self._follow(None, progress.deleted.union(message.deleted_topics))
        text = f"registered as node {self._identity.node_id} with node epoch {self.node_epoch}"
        return [Report(text, good=True), *followed]

    def _enter(self) -> None:
        self.phase = Phase.MEMBER
        self._backoff.reset()
        self._id_in_use_since = None
        self._reported.clear()

    def _failed(self, error: TailraceError, request: CoordinatorRequest, now: float) -> list[Action]:
        if isinstance(request, Heartbeat):
            if self.phase is not Phase.MEMBER or request.node_epoch != self.node_epoch:
                return []
            if error.code in {ErrorCode.STALE_NODE_EPOCH, ErrorCode.UNKNOWN_NODE}:
                self.node_epoch = None
                return [Report(f"registering again: {error}"), self._register(now)]
        if error.code is ErrorCode.NODE_ID_IN_USE:
            since = self._id_in_use_since = now if self._id_in_use_since is None else self._id_in_use_since
            if self._was_member or now < since + NODE_ID_PATIENCE_S:
                self._timer = now + RETRY_S
                return self._report(f"{error}; trying again")
        if self._was_member or error.retriable:
            return [*self._report(f"no member of the cluster now: {error}"), *self.lost(str(error), now)]
        return [GiveUp(error)]

    # ------------------------------------------------------------- the state

    def published(self, message: Published, now: float) -> list[Action]:
        """Something came in over the subscription; before the session's snapshot, from whom nobody knows."""
        if self._session.publisher is None:
            return []
        if message.controller_epoch < self.controller_epoch:
            return self._report_epoch(message.controller_epoch)
        self._session.proof_at = now + SILENCE_S_MAX
        self._session.proof_wait = PROOF_S_MIN
        progress = self._copy.take_published([message])
        actions = self._follow(progress.touched, progress.deleted)
        if self.phase is Phase.MEMBER and self._copy.behind:
            actions.extend(self._ask_snapshot(now))
        return actions

    def applied(self, version: int, now: float) -> list[Action]:
        """The logs of this version are open: tell at once, since `CreateTopic` waits for it."""
        self.applied_version = max(self.applied_version, version)
        return [self._beat(now)] if self.phase is Phase.MEMBER else []

    def _take_snapshot(self, snapshot: Snapshot, now: float) -> Progress:
        progress = self._copy.take_snapshot(snapshot)
        if self._copy.behind:
            self._session.proof_at = min(self._session.proof_at, now + self._session.proof_wait)
        return progress

    def _follow(self, touched: frozenset[bytes] | None, deleted: frozenset[bytes]) -> list[Action]:
        self._deleted |= deleted
        if not self._was_member or (touched is not None and not touched):
            return []
        deleted, self._deleted = self._deleted, frozenset()
        return [Follow(touched, deleted)]

    def _check_epoch(self, controller_epoch: int, now: float) -> list[Action]:
        """Remember the highest epoch; what to do when this one is older."""
        if controller_epoch >= self.controller_epoch:
            self.controller_epoch = controller_epoch
            return []
        return [*self._report_epoch(controller_epoch), *self.lost("its controller epoch is old", now)]

    def _report_epoch(self, controller_epoch: int) -> list[Action]:
        return self._report(
            f"a coordinator with controller epoch {controller_epoch} is ignored, since this node has seen "
            f"{self.controller_epoch}: does an old coordinator still run, or was its data folder replaced?"
        )

    # ---------------------------------------------------------------- asking

    def leave(self, now: float) -> list[Action]:
        """The node stops cleanly: say so, and wait for the answer a moment."""
        if self.phase is not Phase.MEMBER or self.node_epoch is None:
            return self._left()
        self.phase = Phase.LEAVING
        self._timer = now + LEAVE_S_MAX
        return [self._ask(self._identity.leave(self._next_id(), self.node_epoch), now)]

    def _left(self) -> list[Action]:
        self.phase = Phase.LEFT
        self._session = _Session()
        return [Disconnect()]

    def _register(self, now: float) -> Action:
        self.phase = Phase.REGISTERING
        self._timer = inf
        request = self._identity.register(
            self._next_id(), was_member=self._was_member, topic_ids=self.held_topics
        )
        return self._ask(request, now)

    def _beat(self, now: float) -> Action:
        assert self.node_epoch is not None, "a heartbeat needs a registration"
        self._timer = now + self._beat_s
        version = max(self.applied_version, 0)
        return self._ask(self._identity.beat(self._next_id(), self.node_epoch, version), now)

    def _ask_snapshot(self, now: float) -> list[Action]:
        """Ask, unless a snapshot is on its way."""
        if any(isinstance(request, GetSnapshot) for _, request in self._session.asked.values()):
            return []
        return [self._ask(GetSnapshot(self._next_id()), now)]

    def _ask(self, request: CoordinatorRequest, now: float) -> Action:
        self._session.asked[request.request_id] = (now, request)
        return Ask(request)

    def _next_id(self) -> int:
        self._request_ids += 1
        return self._request_ids

    def _report(self, text: str) -> list[Action]:
        """Report once until the next success."""
        if text in self._reported:
            return []
        self._reported.add(text)
        return [Report(text)]
