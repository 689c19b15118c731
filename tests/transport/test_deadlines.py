"""Deadlines against a table that is looked through each time."""

from dataclasses import dataclass
from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tailrace.transport.deadlines import Deadlines

TICKETS = st.integers(0, 5)
WAITS = st.integers(0, 4)


@dataclass
class Waiting:
    deadline: float


class DeadlinesModel(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.waiting: dict[int, Waiting] = {}
        self.deadlines = Deadlines(self.waiting)

    @rule(ticket=TICKETS, wait=WAITS)
    def wait(self, ticket: int, wait: int) -> None:
        """Also once more, with another deadline or the same."""
        self.waiting[ticket] = Waiting(self.now + wait)
        self.deadlines.add(ticket, self.now + wait)

    @rule(ticket=TICKETS)
    def answer(self, ticket: int) -> None:
        self.waiting.pop(ticket, None)

    @rule(seconds=WAITS)
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        expected = sorted(
            (each.deadline, ticket) for ticket, each in self.waiting.items() if each.deadline <= self.now
        )
        due = self.deadlines.due(self.now)  # whose tickets are taken out while it goes on
        assert [(self.waiting.pop(ticket).deadline, ticket) for ticket in due] == expected

    @invariant()
    def tells_the_next(self) -> None:
        assert self.deadlines.next() == min((each.deadline for each in self.waiting.values()), default=inf)


DeadlinesModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDeadlines = DeadlinesModel.TestCase


def test_what_has_left_the_table_is_forgotten() -> None:
    waiting: dict[int, Waiting] = {0: Waiting(1e9)}
    deadlines = Deadlines(waiting)
    deadlines.add(0, 1e9)
    for ticket in range(1, 10_000):
        waiting[ticket] = Waiting(float(ticket))
        deadlines.add(ticket, float(ticket))
        del waiting[ticket]
        assert len(deadlines) < 100
    assert deadlines.next() == 1e9


def test_what_left_the_table_before_its_deadline_was_told_is_passed_over() -> None:
    """Another thread may have taken it in between."""
    deadlines = Deadlines({})
    deadlines.add(1, 1.0)
    assert deadlines.next() == inf
    assert list(deadlines.due(2.0)) == []


def test_what_comes_again_and_again_with_the_same_deadline_is_kept_once() -> None:
    waiting: dict[int, Waiting] = {}
    deadlines = Deadlines(waiting)
    for _ in range(10_000):
        waiting[1] = Waiting(1.0)
        deadlines.add(1, 1.0)
        assert len(deadlines) < 100
    assert [waiting.pop(ticket).deadline for ticket in deadlines.due(1.0)] == [1.0]
