"""Parked fetches against a model that looks at every fetch each time."""

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tailrace.node.parked import ParkedFetch, ParkedFetches
from tailrace.protocol.replica_messages import ReplicaFetch, ReplicaFetchEntry

TOPIC = bytes(16)
KEYS = st.integers(0, 3)


def fetch(partitions: list[int], deadline: float) -> ParkedFetch:
    entries = [ReplicaFetchEntry(TOPIC, partition, 0, 0, 0, 0) for partition in partitions]
    return ParkedFetch(b"peer", ReplicaFetch(1, node_id=2, node_epoch=1, entries=entries), deadline)


class ParkedModel(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.parked = ParkedFetches(fetches_max=6, waits_max=14)
        self.model: list[tuple[ParkedFetch, list[int]]] = []

    def _expect(self, woken: list[ParkedFetch], expected: list[ParkedFetch]) -> None:
        assert sorted(f.ticket for f in woken) == sorted(f.ticket for f in expected)
        self.model = [(f, keys) for f, keys in self.model if f not in expected]

    @rule(partitions=st.lists(KEYS, min_size=1, max_size=5), wait=st.floats(0, 5))
    def park(self, partitions: list[int], wait: float) -> None:
        waits = sum(len(keys) for _, keys in self.model)
        room = len(self.model) < 6 and waits + len(partitions) <= 14
        one = fetch(partitions, self.now + wait)
        assert self.parked.park(one) is room
        if room:
            self.model.append((one, partitions))

    @rule(keys=st.sets(KEYS, max_size=2))
    def change(self, keys: set[int]) -> None:
        expected = [one for one, its in self.model if keys & set(its)]
        self._expect(self.parked.changed((TOPIC, key) for key in keys), expected)

    @rule(seconds=st.floats(0, 3))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        expected = [one for one, _ in self.model if one.deadline <= self.now]
        self._expect(self.parked.expired(self.now), expected)

    @rule()
    def stop(self) -> None:
        self._expect(self.parked.remove_all(), [one for one, _ in self.model])

    @invariant()
    def agrees(self) -> None:
        assert len(self.parked) == len(self.model)
        assert self.parked.next_deadline() == min((one.deadline for one, _ in self.model), default=inf)


ParkedModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestParked = ParkedModel.TestCase


@given(st.integers(100, 2_000))
@settings(max_examples=5, deadline=None)
def test_deadlines_of_woken_fetches_are_forgotten(count: int) -> None:
    parked = ParkedFetches(fetches_max=10, waits_max=10)
    for _ in range(count):
        assert parked.park(fetch([0], deadline=1e9))
        assert len(parked.changed([(TOPIC, 0)])) == 1
    assert len(parked._deadlines) < 100
    assert not parked._waiting
