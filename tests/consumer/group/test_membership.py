"""One member's decisions alone, and several of them against a model of the coordinator."""

from itertools import count
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tailrace.consumer.group.membership import Heartbeat, Join, Key, Membership, Phase
from tailrace.protocol.errors import (
    ConnectionFailedError,
    InstanceIdInUseError,
    TailraceError,
    UnknownMemberError,
)
from tailrace.protocol.limits import INSTANCE_ID_PATIENCE_MS

from .group_model import ModelGroup

TOPIC = bytes(16)
ONE, TWO, THREE = ((TOPIC, number) for number in range(3))


def membership() -> Membership:
    numbers = count(1)
    return Membership(lambda: f"m{next(numbers)}", Random(0))


def joined(*assigned: Key, epoch: int = 1) -> Membership:
    member = membership()
    member.subscribe(["orders"])
    plan = member.plan(0.0)
    assert isinstance(plan, Join)
    member.answered(plan, epoch, frozenset(assigned))
    return member


def heartbeat(member: Membership, now: float = 0.0) -> Heartbeat:
    plan = member.plan(now)
    assert isinstance(plan, Heartbeat)
    return plan


def test_nothing_is_sent_before_a_subscription() -> None:
    assert membership().plan(0.0) is None


def test_one_join_at_a_time_and_one_heartbeat() -> None:
    member = membership()
    member.subscribe(["orders"])
    join = member.plan(0.0)
    assert join == Join(1, "m1", ("orders",))
    assert member.plan(1.0) is None
    member.answered(join, 1, frozenset({ONE}))
    assert member.phase is Phase.IN
    assert heartbeat(member) == Heartbeat(2, "m1", 1, frozenset({ONE}), None)
    assert member.plan(1.0) is None


def test_what_is_given_up_is_told_while_a_heartbeat_is_kept() -> None:
    member = joined(ONE, TWO)
    member.hold([ONE, TWO])
    kept = heartbeat(member)
    member.answered(kept, 2, frozenset({ONE}))
    assert member.unapplied
    still = heartbeat(member)
    assert (still.epoch, still.owned) == (2, frozenset({ONE, TWO}))
    member.give_up([TWO])
    freed = heartbeat(member)
    assert (freed.epoch, freed.owned) == (2, frozenset({ONE}))
    assert not member.unapplied
    member.answered(still, 2, frozenset({ONE}))
    assert member.plan(0.0) is None, "the newer one is on its way"


def test_an_older_answer_is_void() -> None:
    member = joined(ONE, epoch=5)
    plan = heartbeat(member)
    member.answered(plan, 4, frozenset({THREE}))
    assert (member.epoch, member.assigned) == (5, frozenset({ONE}))


def test_an_epoch_brings_more_and_the_newest_request_knows() -> None:
    member = joined(ONE, epoch=5)
    kept = heartbeat(member)
    member.subscribe(["bills"])
    newer = heartbeat(member)
    member.answered(newer, 5, frozenset({ONE, TWO}))
    member.answered(kept, 5, frozenset({ONE}))
    assert member.assigned == frozenset({ONE, TWO})


def test_a_lost_connection_is_no_loss() -> None:
    member = joined(ONE)
    member.failed(heartbeat(member), ConnectionFailedError("gone"), 10.0)
    assert member.phase is Phase.IN
    assert member.assigned == frozenset({ONE})
    assert member.plan(10.0) is None
    assert heartbeat(member, 11.0).owned == frozenset({ONE})


def test_unknown_is_lost_and_comes_back_under_another_name_when_the_application_has_let_go() -> None:
    member = joined(ONE)
    member.hold([ONE])
    late = heartbeat(member)
    member.failed(late, UnknownMemberError("silent"), 0.0)
    assert member.phase is Phase.LOST
    assert member.unapplied
    assert member.plan(0.0) is None
    member.rejoin()
    assert member.plan(0.0) == Join(3, "m2", ("orders",))
    member.answered(late, 9, frozenset({TWO}))
    assert member.phase is Phase.JOINING, "that was for the one before"


def test_a_refused_join_stays_refused_until_the_next_subscription() -> None:
    member = membership()
    member.subscribe(["orders"])
    join = member.plan(0.0)
    assert join is not None
    error = InstanceIdInUseError("taken")
    member.failed(join, error, 0.0)
    assert member.phase is Phase.JOINING, "its process may have just died"
    again = member.plan(member.retry_at)
    assert isinstance(again, Join)
    member.failed(again, error, INSTANCE_ID_PATIENCE_MS / 1000)
    assert (member.phase, member.refusal) == (Phase.REFUSED, error)
    assert member.plan(99.0) is None
    member.subscribe(["orders"])
    assert isinstance(member.plan(99.0), Join)


def test_a_join_that_got_no_answer_is_repeated_under_the_same_id() -> None:
    member = membership()
    member.subscribe(["orders"])
    join = member.plan(0.0)
    assert isinstance(join, Join)
    member.failed(join, ConnectionFailedError("gone"), 0.0)
    again = member.plan(1.0)
    assert isinstance(again, Join)
    assert again.member_id == join.member_id


def test_another_subscription_is_told_until_it_is_heard() -> None:
    member = joined(ONE)
    kept = heartbeat(member)
    member.subscribe(["orders", "bills"])
    told = heartbeat(member)
    assert told.topics == ("bills", "orders")
    member.failed(told, ConnectionFailedError("gone"), 0.0)
    member.failed(kept, ConnectionFailedError("gone"), 0.0)
    again = heartbeat(member, 1.0)
    assert again.topics == ("bills", "orders")
    member.answered(again, 2, frozenset({ONE}))
    assert heartbeat(member, 1.0).topics is None


@pytest.mark.parametrize("phase", [Phase.JOINING, Phase.IN])
def test_the_end_names_who_is_to_leave(phase: Phase) -> None:
    member = joined() if phase is Phase.IN else membership()
    member.subscribe(["orders"])
    assert member.end() == "m1"
    assert member.end() == ""
    assert member.plan(0.0) is None


class Members(RuleBasedStateMachine):
    """Messages are late, lost on the way there or back, and out of order; members are thrown out."""

    @initialize(partitions=st.integers(1, 6), members=st.integers(1, 4))
    def begin(self, partitions: int, members: int) -> None:
        self.group = ModelGroup([(TOPIC, number) for number in range(partitions)])
        ids = count(1)
        self.members = [Membership(lambda: f"m{next(ids)}", Random(n)) for n in range(members)]
        self.there: list[tuple[Membership, Join | Heartbeat]] = []
        self.back: list[tuple[Membership, Join | Heartbeat, tuple[int, frozenset[Key]] | TailraceError]] = []
        self.now = 0.0

    @rule(which=st.integers(0, 3))
    def subscribe(self, which: int) -> None:
        self.one(which).subscribe(["orders"])

    @rule(which=st.integers(0, 3))
    def send(self, which: int) -> None:
        self.now += 1
        member = self.one(which)
        plan = member.plan(self.now)
        if plan is not None:
            self.there.append((member, plan))

    @rule(which=st.integers(0, 20), lost=st.booleans())
    def arrive(self, which: int, lost: bool) -> None:
        if not self.there:
            return
        member, plan = self.there.pop(which % len(self.there))
        answer: tuple[int, frozenset[Key]] | TailraceError
        try:
            answer = self.group.tell(plan)
        except UnknownMemberError as error:
            answer = error
        if lost:
            answer = ConnectionFailedError("the answer was lost")
        self.back.append((member, plan, answer))

    @rule(which=st.integers(0, 20))
    def lose(self, which: int) -> None:
        if self.there:
            member, plan = self.there.pop(which % len(self.there))
            self.back.append((member, plan, ConnectionFailedError("the request was lost")))

    @rule(which=st.integers(0, 20))
    def hear(self, which: int) -> None:
        if not self.back:
            return
        member, plan, answer = self.back.pop(which % len(self.back))
        if isinstance(answer, TailraceError):
            member.failed(plan, answer, self.now)
        else:
            member.answered(plan, *answer)

    @rule(which=st.integers(0, 3))
    def give_up(self, which: int) -> None:
        member = self.one(which)
        if member.phase is Phase.IN:
            member.give_up(member.held - member.assigned)

    @rule(which=st.integers(0, 3))
    def take(self, which: int) -> None:
        member = self.one(which)
        if member.phase is Phase.IN:
            member.hold(member.assigned)

    @rule(which=st.integers(0, 3))
    def come_back(self, which: int) -> None:
        if self.one(which).phase is Phase.LOST:
            self.one(which).rejoin()

    @rule(which=st.integers(0, 3))
    def throw_out(self, which: int) -> None:
        self.group.remove(self.one(which).member_id)

    @rule(which=st.integers(0, 3))
    def leave(self, which: int) -> None:
        self.group.remove(self.one(which).end())

    @invariant()
    def nobody_holds_what_is_another_members(self) -> None:
        """As far as the group still knows them: those that it has thrown out are fenced."""
        held = [key for one in self.members if one.member_id in self.group.members for key in one.held]
        assert len(held) == len(set(held))

    def teardown(self) -> None:
        """When messages come through again, everything is held by somebody and nothing is left to do."""
        if not hasattr(self, "members"):
            return
        while self.there:
            self.arrive(0, lost=False)
        while self.back:
            self.hear(0)
        for number in list(range(len(self.members))) * 12:
            self.subscribe(number)
            self.come_back(number)
            self.give_up(number)
            self.take(number)
            self.send(number)
            while self.there:
                self.arrive(0, lost=False)
            while self.back:
                self.hear(0)
            self.nobody_holds_what_is_another_members()
        strangers = self.group.members.keys() - {one.member_id for one in self.members}
        if not strangers:
            assert sorted(key for one in self.members for key in one.held) == sorted(self.group.keys)

    def one(self, which: int) -> Membership:
        return self.members[which % len(self.members)]


TestMembers = Members.TestCase
TestMembers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_topics_are_told_until_it_is_known_that_they_are_known() -> None:
    member = membership()
    member.subscribe(["a", "b"])
    join = member.plan(0.0)
    assert isinstance(join, Join)
    member.answered(join, 1, frozenset())
    member.plan(0.0)
    member.subscribe(["a"])
    told = member.plan(0.0)
    assert isinstance(told, Heartbeat)
    assert told.topics == ("a",)
    member.failed(told, ConnectionFailedError("it may have arrived"), 0.0)
    member.subscribe(["a", "b"])
    again = member.plan(member.retry_at)
    assert isinstance(again, Heartbeat)
    assert again.topics == ("a", "b")
    member.answered(again, 2, frozenset())
    after = member.plan(member.retry_at)
    assert isinstance(after, Heartbeat)
    assert after.topics is None
