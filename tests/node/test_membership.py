"""The node's membership against the real coordinator's state machine, over a network that loses things.

Connections break, publications are lost, subscriptions take effect late, both sides restart. When
all is quiet again the node must be a member, hold the coordinator's state, lead what that says,
and have dropped exactly the topics that were deleted.
"""

import random
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tailrace.coordinator.groups.state import GroupsState
from tailrace.coordinator.machine import Machine, Outcome, Settings
from tailrace.coordinator.private_state import ControllerEpochRaised
from tailrace.coordinator.state import State
from tailrace.node.actions import Action, Ask, Connect, Disconnect, Follow, GiveUp, Report, Subscribe
from tailrace.node.assignment import Assignment
from tailrace.node.belonging import Belonging
from tailrace.node.identity import Identity
from tailrace.node.membership import NODE_ID_PATIENCE_S, REPLY_S_MAX, SILENCE_S_MAX, Membership, Phase
from tailrace.protocol.cluster import (
    Listener,
    NodeInfo,
    PartitionChanged,
    PartitionInfo,
    Snapshot,
    TopicRemoved,
)
from tailrace.protocol.errors import NodeIdInUseError, UnsupportedVersionError
from tailrace.protocol.messages import (
    Beat,
    ClusterLeft,
    CreateTopic,
    DeleteTopic,
    GetSnapshot,
    Heartbeat,
    HeartbeatSeen,
    LeaveCluster,
    NodeRegistered,
    RegisterNode,
    SnapshotTaken,
    Update,
)
from tailrace.protocol.wire import failure

WALL_MS = 1_700_000_000_000
SETTINGS = Settings(Listener("tcp://pub:1"), 6_000)
IDENTITY = Identity(1, Listener("tcp://node:1"), "storage", "", clean=True, durable=True, openings=(7,))


def membership(epoch: int = 0, held: Any = (), endpoints: Any = ("tcp://c:1",)) -> Membership:
    belonging = Belonging(Path("/nonexistent"), epoch)  # a node that was in no cluster yet
    return Membership(
        IDENTITY,
        endpoints,
        held_topics=held,
        belonging=belonging,
        rng=random.Random(1),
    )


class LossyCluster(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.now = 100.0
        self.state = State("cluster")
        self.state.apply_private(ControllerEpochRaised(1))
        self.machine = Machine(self.state, GroupsState(), SETTINGS, self.now)
        self.topics = 0
        self.peers = 0
        self.reachable = True
        self.next_beat = self.now
        self.disk: set[bytes] = set()
        self.disk_epoch = 0
        self._start_node()

    def _start_node(self) -> None:
        self.connected: bytes | None = None
        self.connecting = False
        self.subscribed: str | None = None
        self.requests: deque[Any] = deque()
        self.replies: deque[Any] = deque()
        self.publications: deque[Update | Beat] = deque()
        self.applying: deque[tuple[int, list[bytes], list[bytes]]] = deque()
        self.led: dict[tuple[bytes, int], int] = {}
        self.assignment = Assignment(1)
        self.node = membership(self.disk_epoch, self.disk)

    # ------------------------------------------------------------- the node's edge

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Connect():
                    assert not self.connecting
                    assert self.connected is None
                    self.connecting = True
                case Disconnect():
                    self.connecting, self.connected = False, None
                    self.requests.clear()
                    self.replies.clear()
                case Subscribe(publisher):
                    assert publisher == SETTINGS.publisher
                    self.subscribed = "soon"
                    self.publications.clear()
                case Ask(request):
                    if self.connected is not None:
                        self.requests.append(request)
                case Follow(touched, deleted):
                    plan = self.assignment.follow(self.node.cluster, touched, deleted)
                    for key in plan.resign:
                        del self.led[key]
                    self.led.update({k: r.leader_epoch for k, r in plan.roles.items() if r.source is None})
                    opened = [topic_id for topic_id, _ in plan.roles]
                    self.node.held_topics.difference_update(plan.drop)
                    self.node.held_topics.update(opened)
                    self.applying.append((self.node.cluster.version, opened, plan.drop))
                case _:
                    assert isinstance(action, Report), action

    def follow_outcome(self, outcome: Outcome) -> None:
        if outcome.update is not None:
            self.publish(outcome.update)
        for peer, reply in outcome.answers:
            if peer == self.connected:
                self.replies.append(reply)

    def publish(self, message: Update | Beat) -> None:
        if self.subscribed == "active":
            self.publications.append(message)

    # --------------------------------------------------------------------- events

    @precondition(lambda self: self.connecting and self.reachable)
    @rule()
    def connect(self) -> None:
        self.connecting = False
        self.peers += 1
        self.connected = str(self.peers).encode()
        self.perform(self.node.connected(self.now))

    @precondition(lambda self: self.requests)
    @rule()
    def deliver_request(self) -> None:
        assert self.connected is not None
        self.follow_outcome(self.machine.ask(self.connected, self.requests.popleft(), b"", self.now, WALL_MS))

    @precondition(lambda self: self.replies)
    @rule()
    def deliver_reply(self) -> None:
        self.perform(self.node.reply(self.replies.popleft(), self.now))

    @precondition(lambda self: self.publications)
    @rule()
    def deliver_publication(self) -> None:
        self.perform(self.node.published(self.publications.popleft(), self.now))

    @precondition(lambda self: self.publications)
    @rule()
    def lose_publication(self) -> None:
        self.publications.popleft()

    @precondition(lambda self: self.subscribed == "soon")
    @rule()
    def subscription_takes_effect(self) -> None:
        self.subscribed = "active"

    @precondition(lambda self: self.applying)
    @rule()
    def apply(self) -> None:
        version, opened, dropped = self.applying.popleft()
        for topic_id in dropped:
            assert topic_id not in self.state.cluster.topics, "dropped a topic that lives"
        self.disk.update(opened)
        self.disk.difference_update(dropped)
        self.disk_epoch = max(self.disk_epoch, self.node.controller_epoch)
        self.perform(self.node.applied(version, self.now))

    @precondition(lambda self: self.connected is not None)
    @rule()
    def break_connection(self) -> None:
        self.perform(self.node.lost("cut", self.now))

    @rule(partitions=st.integers(1, 3))
    def create_topic(self, partitions: int) -> None:
        self.topics += 1
        request = CreateTopic(1, name=f"t{self.topics}", partitions=partitions)
        self.follow_outcome(
            self.machine.ask(b"admin", request, self.topics.to_bytes(16, "big"), self.now, WALL_MS)
        )

    @precondition(lambda self: self.state.cluster.topics)
    @rule(data=st.data())
    def delete_topic(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.state.cluster.topic_ids)))
        self.follow_outcome(self.machine.ask(b"admin", DeleteTopic(1, name=name), b"", self.now, WALL_MS))

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.3, 1.0, 2.0, 7.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.follow_outcome(self.machine.tick(self.now, WALL_MS))
        if self.now >= self.next_beat:
            self.next_beat = self.now + 1
            self.publish(Beat(self.state.cluster.controller_epoch, self.state.cluster.version))
        if self.now >= self.node.next_tick():
            self.perform(self.node.tick(self.now))

    @rule()
    def restart_coordinator(self) -> None:
        self.state.apply_private(ControllerEpochRaised(self.state.cluster.controller_epoch + 1))
        self.machine = Machine(self.state, GroupsState(), SETTINGS, self.now)
        if self.connected is not None:
            self.perform(self.node.lost("restarted", self.now))

    @rule()
    def restart_node(self) -> None:
        self._start_node()

    @rule(reachable=st.booleans())
    def hide_coordinator(self, reachable: bool) -> None:
        self.reachable = reachable
        if not reachable and self.connected is not None:
            self.perform(self.node.lost("hidden", self.now))

    @rule(lose=st.booleans(), partitions=st.integers(1, 2))
    def settle(self, lose: bool, partitions: int) -> None:
        """Bring the node up to date; then maybe create or delete a topic behind its back."""
        self.pass_time(0.1)
        self._settle()
        if lose and self.disk and self.state.cluster.topic_ids:
            self.follow_outcome(
                self.machine.ask(
                    b"admin", DeleteTopic(1, name=min(self.state.cluster.topic_ids)), b"", self.now, WALL_MS
                )
            )
            self.publications.clear()
        else:
            self.create_topic(partitions)

    # ----------------------------------------------------------------- what must hold

    @invariant()
    def never_ahead_of_the_coordinator(self) -> None:
        cluster = self.node.cluster
        assert (cluster.controller_epoch, cluster.version) <= (
            self.state.cluster.controller_epoch,
            self.state.cluster.version,
        )

    @invariant()
    def ids_are_not_lost(self) -> None:
        assert self.node.controller_epoch >= self.disk_epoch

    def teardown(self) -> None:
        if not hasattr(self, "node"):
            return
        self.reachable = True
        calm_until = self.now + 30
        while self.now < calm_until:
            self._settle()
            self.pass_time(0.05)
        self._settle()
        assert self.node.phase is Phase.MEMBER
        assert self.node.ready
        assert self.node.cluster.topics == self.state.cluster.topics
        assert self.node.cluster.nodes == self.state.cluster.nodes
        assert self.state.cluster.nodes[1].alive
        assert self.led == {
            (topic.topic_id, index): partition.leader_epoch
            for topic in self.state.cluster.topics.values()
            for index, partition in enumerate(topic.partitions)
            if partition.leader == 1
        }
        assert not self.disk & self.state.tombstones.keys(), "a deleted topic is still on disk"
        assert self.disk_epoch == self.state.cluster.controller_epoch

    def _settle(self) -> None:
        moved = True
        while moved:
            moved = False
            for possible, step in (
                (self.connecting and self.reachable, self.connect),
                (self.subscribed == "soon", self.subscription_takes_effect),
                (self.requests, self.deliver_request),
                (self.replies, self.deliver_reply),
                (self.publications, self.deliver_publication),
                (self.applying, self.apply),
            ):
                if possible:
                    step()
                    moved = True


LossyCluster.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestLossyCluster = LossyCluster.TestCase


# ------------------------------------------------------------------------- single steps


def snapshot(epoch: int, version: int) -> Snapshot:
    return Snapshot(epoch, version, (), ())


def member(**options: Any) -> Membership:
    """A membership that has just registered, at controller epoch 3 and version 8, time 0."""
    node, registered = registering(**options)
    assert Follow(None, frozenset()) in node.reply(registered, 0)
    return node


def registering(*, cluster_id: str = "", **options: Any) -> tuple[Membership, NodeRegistered]:
    """A membership that has sent its registration, time 0; and the answer on its way, of version 8."""
    node = membership(**options)
    node.tick(0)
    (ask,) = node.connected(0)
    assert isinstance(ask, Ask)
    publisher = Listener("tcp://pub:1")
    taken = SnapshotTaken(
        ask.request.request_id, cluster_id=cluster_id, publisher=publisher, snapshot=snapshot(3, 7)
    )
    subscribe, register = node.reply(taken, 0)
    assert isinstance(subscribe, Subscribe)
    assert isinstance(register, Ask)
    assert isinstance(register.request, RegisterNode)
    info = NodeInfo(1, 8, Listener("tcp://node:1"), "storage", True)
    registered = NodeRegistered(
        register.request.request_id, node=info, session_timeout_ms=6_000, snapshot=snapshot(3, 8)
    )
    return node, registered


def kinds(actions: list[Action]) -> list[type]:
    return [type(action.request) if isinstance(action, Ask) else type(action) for action in actions]


def test_registers_then_beats_four_times_a_session() -> None:
    node = member()
    assert not node.ready
    assert kinds(node.applied(8, 0.01)) == [Heartbeat]
    assert node.ready
    node.published(Beat(3, 8), 0.02)
    assert node.next_tick() == pytest.approx(1.51)
    assert kinds(node.tick(1.52)) == [Heartbeat]


def test_a_node_that_does_not_sync_says_so() -> None:
    """Else it stayed in sync after a power loss that took what it had acknowledged (R7)."""
    asked = replace(IDENTITY, durable=False).register(1, was_member=False, topic_ids=())
    assert not asked.durable
    assert IDENTITY.register(1, was_member=False, topic_ids=()).durable


def test_an_older_controller_epoch_is_refused_and_said_once() -> None:
    node = membership(epoch=9)
    node.tick(0)
    reports = 0
    for now in range(1, 4):
        (ask,) = node.connected(now)
        assert isinstance(ask, Ask)
        actions = node.reply(SnapshotTaken(ask.request.request_id, snapshot=snapshot(8, 100)), now)
        assert kinds(actions)[-1] is Disconnect
        assert RegisterNode not in kinds(actions)
        reports += kinds(actions).count(Report)
        assert kinds(node.tick(node.next_tick())) == [Connect]
    assert reports == 1
    assert node.controller_epoch == 9


def test_an_old_coordinators_publications_change_nothing() -> None:
    node = member()
    assert kinds(node.published(Update(2, 9, []), 1)) == [Report]
    assert node.cluster.version == 8


def met_again(node: Membership, cluster_id: str, taken: Snapshot) -> list[Action]:
    """The connection broke; then a coordinator tells this."""
    node.lost("cut", 1)
    node.tick(node.next_tick())
    (ask,) = node.connected(9)
    assert isinstance(ask, Ask)
    assert node.published(Beat(3, 99), 9) == []
    publisher = Listener("tcp://pub:1")
    answer = SnapshotTaken(ask.request.request_id, cluster_id=cluster_id, publisher=publisher, snapshot=taken)
    return node.reply(answer, 9)


@pytest.mark.parametrize(
    ("cluster_id", "place", "why"),
    [
        ("other", (9, 99), "is of cluster other now, and this node of cluster ours"),
        ("ours", (3, 7), "runs on an older copy"),
        ("ours", (4, 7), "runs on an older copy"),
    ],
)
def test_a_member_follows_no_other_cluster_and_no_state_that_went_back(
    cluster_id: str, place: tuple[int, int], why: str
) -> None:
    """It would take the state for one it knows already, and tell that it has opened what it has not."""
    node = member(cluster_id="ours")
    said = []
    for _ in range(2):
        actions = met_again(node, cluster_id, snapshot(*place))
        assert kinds(actions)[-1] is Disconnect
        said += [action.text for action in actions if isinstance(action, Report)]
    (once,) = said
    assert why in once
    assert (node.cluster.controller_epoch, node.cluster.version) == (3, 8)
    assert kinds(met_again(node, "ours", snapshot(4, 8))) == [Subscribe, Follow, Heartbeat]


@pytest.mark.parametrize("version", [10, 11])
def test_a_gap_asks_for_one_snapshot(version: int) -> None:
    node = member()
    assert kinds(node.published(Update(3, version, []), 1)) == [GetSnapshot]
    assert node.published(Update(3, version + 1, []), 1) == []
    assert kinds(member().published(Beat(3, version), 1)) == [GetSnapshot]


def test_a_deletion_that_overtakes_the_registration_is_followed_after_it() -> None:
    gone = b"g" * 16
    node, registered = registering(held=[gone])
    assert node.published(Update(3, 8, []), 0) == []
    assert node.published(Update(3, 9, [TopicRemoved(gone)]), 0) == []
    assert Follow(None, frozenset({gone})) in node.reply(registered, 0)
    assert node.cluster.version == 9
    assert node.published(Update(3, 10, [TopicRemoved(b"n" * 16)]), 0) == [
        Follow(frozenset({b"n" * 16}), frozenset({b"n" * 16}))
    ]


def test_a_change_of_something_unknown_asks_for_a_snapshot() -> None:
    node = member()
    partition = PartitionInfo((1,), 1, 1, 1, (1,))
    assert kinds(node.published(Update(3, 9, [PartitionChanged(b"?" * 16, 0, partition)]), 1)) == [
        GetSnapshot
    ]
    assert node.cluster.version == 8


def test_snapshots_that_never_reach_what_was_published_do_not_make_a_storm() -> None:
    node = member()
    node.applied(8, 0)
    actions = node.published(Beat(3, 99), 0)
    now, asked = 0.0, 0
    while now < 1.4:
        for action in actions:
            assert isinstance(action, Ask)
            asked += 1
            taken = SnapshotTaken(
                action.request.request_id, publisher=Listener("tcp://pub:1"), snapshot=snapshot(3, 8)
            )
            assert node.reply(taken, now) == []
        now = node.next_tick()
        actions = node.tick(now)
    assert asked == 6


def test_until_the_subscription_has_proved_itself_snapshots_are_asked_for() -> None:
    node = member()

    def answer(actions: list[Action], now: float) -> list[type]:
        for action in actions:
            assert isinstance(action, Ask)
            request_id = action.request.request_id
            if isinstance(action.request, GetSnapshot):
                publisher = Listener("tcp://pub:1")
                node.reply(SnapshotTaken(request_id, publisher=publisher, snapshot=snapshot(3, 8)), now)
            else:
                node.reply(HeartbeatSeen(request_id, controller_epoch=3), now)
        return kinds(actions)

    answer(node.applied(8, 0), 0)
    asked: list[type] = []
    while (now := node.next_tick()) < 1.4:
        asked += answer(node.tick(now), now)
    assert asked == [GetSnapshot] * 5
    node.published(Beat(3, 8), 1.4)
    while (now := node.next_tick()) < 1.4 + SILENCE_S_MAX:
        assert answer(node.tick(now), now) == [Heartbeat]
    assert answer(node.tick(now), now)[-1] is GetSnapshot


def test_a_silent_coordinator_is_given_up() -> None:
    node = member()
    node.applied(8, 0)
    now = 0.0
    while node.phase is Phase.MEMBER:
        now = node.next_tick()
        actions = node.tick(now)
    assert now == pytest.approx(REPLY_S_MAX)
    assert kinds(actions) == [Disconnect, Report]
    assert kinds(node.tick(node.next_tick())) == [Connect]
    assert kinds(node.connected(10)) == [GetSnapshot]


def test_an_id_in_use_is_waited_for_a_while() -> None:
    node = membership()
    node.tick(0)
    (ask,) = node.connected(0)
    assert isinstance(ask, Ask)
    actions = node.reply(SnapshotTaken(ask.request.request_id, snapshot=snapshot(1, 1)), 0)
    now, reports = 0.0, 0
    while not (actions and isinstance(actions[-1], GiveUp)):
        register = actions[-1]
        assert isinstance(register, Ask)
        assert isinstance(register.request, RegisterNode)
        actions = node.reply(failure(register.request.request_id, NodeIdInUseError("taken")), now)
        reports += kinds(actions).count(Report)
        if not isinstance(actions[-1:][0] if actions else None, GiveUp):
            now = node.next_tick()
            actions = node.tick(now)
    assert reports == 1
    assert NODE_ID_PATIENCE_S <= now <= NODE_ID_PATIENCE_S + 2


def test_a_final_refusal_ends_the_node_only_before_it_was_a_member() -> None:
    error = UnsupportedVersionError("too old")
    node = membership()
    node.tick(0)
    (ask,) = node.connected(0)
    assert isinstance(ask, Ask)
    assert kinds(node.reply(failure(ask.request.request_id, error), 0)) == [GiveUp]

    node = member()
    (beat,) = node.applied(8, 0)
    assert isinstance(beat, Ask)
    assert GiveUp not in kinds(node.reply(failure(beat.request.request_id, error), 0))


def test_several_endpoints_are_tried_in_turn() -> None:
    node = membership(endpoints=("tcp://a:1", "tcp://b:1"))
    assert node.tick(0) == [Connect("tcp://a:1")]
    actions = node.tick(node.next_tick())
    assert actions[1:] == [Disconnect(), Connect("tcp://b:1")]
    assert isinstance(actions[0], Report)


def test_leaving_waits_for_the_answer_but_not_for_ever() -> None:
    node = member()
    (leave,) = node.leave(5)
    assert isinstance(leave, Ask)
    assert isinstance(leave.request, LeaveCluster)
    assert node.reply(ClusterLeft(leave.request.request_id), 5) == [Disconnect()]
    assert node.phase is Phase.LEFT

    node = member()
    node.leave(5)
    assert node.tick(node.next_tick()) == [Disconnect()]
    assert node.phase is Phase.LEFT
    assert membership().leave(0) == [Disconnect()]
