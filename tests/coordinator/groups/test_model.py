"""The group machine: clients that join, leave, die, come back late, and a coordinator that restarts."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tailrace.consumer.group.membership import Membership
from tailrace.coordinator.groups import membership, offsets
from tailrace.coordinator.groups.changes import MemberRow
from tailrace.coordinator.groups.state import Key, Member
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.group_messages import FetchOffsets, GroupHeartbeat, OffsetsCommitted, OffsetsFetched
from tailrace.protocol.partition_sets import partition_set

from .world import GROUP, TIMEOUT_MS, TOPICS, Client, World

SUBSCRIPTIONS = st.sampled_from([("a",), ("a", "b"), ("a", "b", "c"), ("c",)])


class GroupModel(RuleBasedStateMachine):
    """Rules are what can happen; `World.check` runs after every answer."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.committed: dict[tuple[bytes, int], int] = {}

    def holders(self) -> list[Client]:
        return [client for client in self.world.clients if client.membership.held]

    def pick(self, data: st.DataObject) -> Any:
        return data.draw(st.sampled_from(self.world.clients))

    @initialize()
    def topics(self) -> None:
        self.world.set_topic("a", 4)
        self.world.set_topic("b", 3)

    @precondition(lambda self: len(self.world.clients) < 6)
    @rule(
        topics=SUBSCRIPTIONS,
        instance=st.sampled_from(["", "", "", "i", "j"]),
        assignor=st.sampled_from(["uniform", "range"]),
    )
    def start(self, topics: tuple[str, ...], instance: str, assignor: str) -> None:
        self.world.start(topics, instance, assignor)

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def speak(self, data: st.DataObject) -> None:
        self.world.send(self.pick(data))
        self.world.settle()

    @precondition(lambda self: self.world.clients)
    @rule()
    def all_speak(self) -> None:
        for client in self.world.clients:
            self.world.send(client)
        self.world.settle()

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def begin_to_apply(self, data: st.DataObject) -> None:
        client = self.pick(data)
        if not client.frozen:
            client.begin_to_apply()

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def apply(self, data: st.DataObject) -> None:
        client = self.pick(data)
        if not client.frozen:
            client.apply()

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data(), topics=SUBSCRIPTIONS)
    def subscribe(self, data: st.DataObject, topics: tuple[str, ...]) -> None:
        self.pick(data).membership.subscribe(topics)

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        self.world.stop(self.pick(data))

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        self.world.kill(self.pick(data))

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data())
    def freeze(self, data: st.DataObject) -> None:
        client = self.pick(data)
        client.frozen = not client.frozen

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data(), seen=st.booleans())
    def disconnect(self, data: st.DataObject, seen: bool) -> None:
        client = self.pick(data)
        old = client.peer
        self.world.disconnect(client)
        if seen:
            self.world.groups.gone([old], self.world.now)
            self.world.settle()

    @rule(losing=st.booleans())
    def lose(self, losing: bool) -> None:
        self.world.losing = losing
        if not losing:
            for client in self.world.clients:
                self.world.disconnect(client)

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, TIMEOUT_MS / 1000 + 0.5]))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @rule(name=st.sampled_from(sorted(TOPICS)), more=st.integers(1, 3))
    def grow(self, name: str, more: int) -> None:
        topic = self.world.cluster.topics.get(TOPICS[name])
        count = 0 if topic is None else len(topic.partitions)
        if count + more <= 8:
            self.world.set_topic(name, count + more)

    @rule(name=st.sampled_from(sorted(TOPICS)))
    def delete(self, name: str) -> None:
        if TOPICS[name] in self.world.cluster.topics:
            self.world.delete_topic(name)
            self.committed = {key: offset for key, offset in self.committed.items() if key[0] != TOPICS[name]}

    @precondition(lambda self: any(client.membership.member_id for client in self.holders()))
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from([c for c in self.holders() if c.membership.member_id]))
        key = data.draw(st.sampled_from(sorted(client.membership.held)))
        offset = self.committed.get(key, 0) + 1
        is_member = client.membership.member_id in self.world.members()
        topic = self.world.cluster.topics.get(key[0])
        reply = self.world.commit(client, key, offset)
        if not is_member:
            assert isinstance(reply, OffsetsCommitted)
            assert reply.errors, "a fenced member has committed"
        elif topic is None or key[1] >= len(topic.partitions):
            assert isinstance(reply, OffsetsCommitted)
            assert reply.errors
        else:
            assert reply == OffsetsCommitted(reply.request_id), "a member that holds a partition may commit"
            self.committed[key] = offset

    @invariant()
    def offsets_stay(self) -> None:
        group = self.world.groups.state.groups.get(GROUP)
        stored = {} if group is None else {key: offset.offset for key, offset in group.offsets.items()}
        assert stored == self.committed

    def teardown(self) -> None:
        world = self.world
        for client in world.clients:
            client.frozen = False
            world.disconnect(client)
        world.pass_time(TIMEOUT_MS / 1000 + 1)
        world.calm()
        world.check_calm()


GroupModel.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestGroupModel = GroupModel.TestCase
FIND_ONE = settings(
    GroupModel.TestCase.settings,
    max_examples=1_000,
    report_multiple_bugs=False,
    phases=[Phase.generate],
    database=None,
)


def release_in_any_epoch(member: Member, epoch: int, owned: Any) -> MemberRow | None:
    """`membership.release` without its guard."""
    kept = {key: since for key, since in member.revoking.items() if key in owned}
    if len(kept) == len(member.revoking):
        return None
    return membership.with_grants(member, member.row.epoch, member.assigned, kept)


def grant_at_once(original: Callable[..., Any]) -> Callable[..., Any]:
    """`membership.reconcile` that does not wait until a partition is given up: revoking ends at once."""

    def reconcile(group: Any, target: Any) -> Any:
        for member in list(group.members.values()):
            leaving = {key for key in member.assigned if key not in target[member.row.member_id]}
            if leaving:
                kept = {key: since for key, since in member.assigned.items() if key not in leaving}
                yield membership.with_grants(member, group.row.epoch, kept, {})
        yield from original(group, target)

    return reconcile


def test_without_revoking_first_two_hold_a_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "reconcile", grant_at_once(membership.reconcile))
    # Which of the two comes first depends on the history: the other one may try to commit before.
    with pytest.raises(AssertionError, match=r"is held by|that holds a partition may commit"):
        run_state_machine_as_test(GroupModel, settings=FIND_ONE)


def two_members() -> tuple[World, Client, Client]:
    """Of one topic with two partitions; each holds one."""
    world = World()
    world.set_topic("a", 2)
    one = world.start(("a",))
    world.calm()
    two = world.start(("a",))
    world.calm()
    return world, one, two


def test_who_gives_up_slowly_takes_nothing_that_is_anothers_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard of `Membership.hold`: what it was told may have been taken away while it gave up the rest."""

    def play() -> None:
        world, one, two = two_members()
        world.stop(two)
        world.pass_time(0.25)
        assert len(one.membership.assigned) == 2
        one.begin_to_apply()
        three = world.start(("a",))
        world.pass_time(0.5)
        assert len(three.membership.assigned) == 1
        one.apply()
        world.check()

    play()
    monkeypatch.setattr(Membership, "hold", hold_what_was_told)
    with pytest.raises(AssertionError, match="is held by"):
        play()


def hold_what_was_told(member: Membership, keys: Iterable[Key]) -> frozenset[Key]:
    """`Membership.hold` without its guard."""
    taken = frozenset(keys)
    member.held |= taken
    return taken


def test_without_the_fence_a_commit_of_another_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.set_topic("a", 2)
    first = world.start(("a",))
    world.calm()
    key = sorted(first.membership.held)[0]
    old_id, old_epoch = first.membership.member_id, first.membership.epoch
    second = world.start(("a",))
    world.calm()
    moved = (first.membership.held | second.membership.held) - first.membership.held
    moved_key = sorted(moved)[0]
    stale = {"member_id": old_id, "member_epoch": old_epoch}
    refused = world.commit(first, moved_key, 5, **stale)
    assert isinstance(refused, OffsetsCommitted)
    assert refused.errors[0].code == ErrorCode.FENCED_MEMBER
    assert second.membership.member_id in refused.errors[0].message
    assert f"client-{second.number}" in refused.errors[0].message
    monkeypatch.setattr(offsets, "_holds", lambda *_: True)
    accepted = world.commit(first, moved_key, 5, **stale)
    assert accepted == OffsetsCommitted(accepted.request_id)
    assert key not in moved or len(moved) == 1


def test_a_report_from_before_a_grant_gives_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard of `release`: the member may not have heard yet of what it would give up."""

    def play() -> None:
        world, one, two = two_members()
        # What it says now stays in a connection that has ended, and arrives much later.
        late = GroupHeartbeat(
            0,
            group_id=GROUP,
            member_id=one.membership.member_id,
            member_epoch=one.membership.epoch,
            owned=partition_set(one.membership.held),
        )
        world.stop(two)
        world.calm()
        assert len(one.membership.held) == 2
        three = world.start(("a",))
        world.losing = True
        world.send(three)
        world.settle()
        world.groups.ask(b"an old connection", late, world.now, world.wall_ms)
        world.settle()
        world.losing = False
        world.disconnect(three)
        world.now += 1.0
        assert world.send(three)
        world.settle()

    play()
    monkeypatch.setattr(membership, "release", release_in_any_epoch)
    with pytest.raises(AssertionError, match="is held by"):
        play()


def test_fetch_tells_what_was_committed() -> None:
    world = World()
    world.set_topic("a", 2)
    client = world.start(("a",))
    world.calm()
    for key in sorted(client.membership.held):
        world.commit(client, key, 10 + key[1])
    world.restart()
    reply = world.ask(client, FetchOffsets, group_id=GROUP)
    assert isinstance(reply, OffsetsFetched)
    assert [(offset.partition, offset.offset, offset.partition_count) for offset in reply.offsets] == [
        (0, 10, 2),
        (1, 11, 2),
    ]
