"""The fetcher and the hand-over against a model log: leaders change, replies are lost, retention deletes.

The model's nodes keep real fetch sessions, few of them, and lose them: what comes is what whole lists of
partitions would have brought. Whatever happens, each partition's records come in order, and only what
retention deleted is left out. What is read from the end while nobody leads it begins with what the next
leader takes.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from random import Random
from threading import Lock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tailrace.consumer.assigned import NO_FETCH, NO_POSITION, AssignedPartition
from tailrace.consumer.decoding import Decoding
from tailrace.consumer.fetch_plans import FetchPlan, LookupPlan
from tailrace.consumer.fetcher import Fetcher
from tailrace.consumer.hand_over import AnyRecord, HandOver
from tailrace.protocol.cluster import NO_LEADER
from tailrace.protocol.errors import BusyError, ConnectionFailedError, UnknownFetchSessionError
from tailrace.protocol.limits import FETCHES_PER_NODE_MAX
from tailrace.protocol.messages import NO_EPOCH, FetchResult
from tailrace.protocol.record import TopicPartition

from ..interrupting import InterruptionError, interrupted_at
from .model import TOPIC, TOPIC_ID, ModelCluster, value_at

PARTITIONS = 3
indexes = st.integers(0, PARTITIONS - 1)
sizes = st.integers(1, 5_000)


class Fetching(RuleBasedStateMachine):
    """`expected` is each partition's next offset; `restarted` are those whose seek left the log."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = ModelCluster(PARTITIONS)
        self.fetcher = Fetcher(partition_bytes=200, reset="earliest", random=Random(0))
        self.hand_over = HandOver(self.fetcher, Lock(), Decoding(), wake=lambda: None)
        self.partitions = [
            AssignedPartition(TopicPartition(TOPIC, index), TOPIC_ID, 0, "earliest", Random(0))
            for index in range(PARTITIONS)
        ]
        for partition in self.partitions:
            self.fetcher.assign(partition, self.cluster.topic())
        self.plans: list[FetchPlan | LookupPlan] = []
        self.half_told: list[tuple[FetchPlan, list[FetchResult], list[bytes]]] = []
        """Answers in whose telling a signal has come. They are told once more, some time later."""
        self.now = 0.0
        self.expected = [0] * PARTITIONS
        self.restarted: dict[int, int] = {}
        self.loop: Iterator[AnyRecord] = iter(())

    # ------------------------------------------------------------ the cluster

    @initialize(counts=st.lists(st.integers(1, 6), min_size=12, max_size=12))
    def begin(self, counts: list[int]) -> None:
        for place, count in enumerate(counts):
            self.cluster.logs[place % PARTITIONS].append(count)

    @rule(index=indexes, count=st.integers(1, 6))
    def append(self, index: int, count: int) -> None:
        if self.cluster.logs[index].leader != NO_LEADER:
            self.cluster.logs[index].append(count)

    @rule(index=indexes, batches=st.integers(1, 3))
    def retain(self, index: int, batches: int) -> None:
        self.cluster.logs[index].retain(batches)

    @rule(index=indexes, leader=st.sampled_from([1, 2, NO_LEADER]))
    def elect(self, index: int, leader: int) -> None:
        self.cluster.logs[index].elect(leader)

    @rule()
    def hear_of_leaders(self) -> None:
        self.fetcher.follow({TOPIC_ID: self.cluster.topic()})

    # ------------------------------------------------------------ the I/O thread

    @rule(seconds=st.sampled_from([0.0, 0.01, 2.0]))
    def send(self, seconds: float) -> None:
        self.now += seconds
        self.plans += self.fetcher.plan(self.now)

    @rule(which=st.integers(0, 3), bytes_max=sizes)
    def answer(self, which: int, bytes_max: int) -> None:
        if self.plans:
            self._answer(which % len(self.plans), bytes_max)

    @rule(which=st.integers(0, 3), bytes_max=sizes, point=st.integers(1, 120))
    def answer_interrupted(self, which: int, bytes_max: int, point: int) -> None:
        if self.plans:
            self._answer(which % len(self.plans), bytes_max, point)

    @rule()
    def tell_once_more(self) -> None:
        if self.half_told:
            self.fetcher.replied(*self.half_told.pop(0), self.now)

    @rule(which=st.integers(0, 3), arrives=st.booleans())
    def lose(self, which: int, arrives: bool) -> None:
        """The request, or the reply to it."""
        if self.plans:
            plan = self.plans.pop(which % len(self.plans))
            if arrives and isinstance(plan, FetchPlan):
                with suppress(UnknownFetchSessionError, BusyError):
                    self.cluster.fetch(plan, 1_000)
            self.fetcher.failed(plan.fetch_id, ConnectionFailedError("lost"), self.now)

    @rule(node=st.integers(1, 2))
    def restart(self, node: int) -> None:
        """It has no fetch session any more."""
        self.cluster.restart(node)

    @rule(node=st.integers(1, 2))
    def crowd(self, node: int) -> None:
        """Other clients begin sessions, for which those that rest have to go."""
        self.cluster.crowd(node)

    def _answer(self, which: int, bytes_max: int, point: int = 0) -> None:
        plan = self.plans.pop(which)
        if isinstance(plan, FetchPlan):
            try:
                answer = self.cluster.fetch(plan, bytes_max)
            except (UnknownFetchSessionError, BusyError) as error:
                self.fetcher.failed(plan.fetch_id, error, self.now)
            else:
                if point:
                    self.half_told.append((plan, *answer))
                    with interrupted_at(point), suppress(InterruptionError):
                        self.fetcher.replied(plan, *answer, self.now)
                else:
                    self.fetcher.replied(plan, *answer, self.now)
        else:
            self.fetcher.located(plan, self.cluster.look_up(plan), self.now)

    # ------------------------------------------------------------ the application

    @rule(count=st.integers(1, 8))
    def poll(self, count: int) -> None:
        self.hand_over.settle()
        for name, records in (self.hand_over.records(count) or {}).items():
            for record in records:
                self._check(name.partition, record.offset, record.value)
        self._check_positions()

    @rule(count=st.integers(1, 8), taken=st.integers(0, 8))
    def begin_loop(self, count: int, taken: int) -> None:
        self.hand_over.settle()
        self.loop = self.hand_over.chunk(count) or iter(())
        self.go_on_with_loop(taken)

    @rule(taken=st.integers(0, 8))
    def go_on_with_loop(self, taken: int) -> None:
        """A loop that was interfered with gets nothing more."""
        for record in islice(self.loop, taken):
            self._check(record.partition, record.offset, record.value)
        self.hand_over.note_progress()
        self._check_positions()

    @rule()
    def take_batch(self) -> None:
        self.hand_over.settle()
        batch = self.hand_over.columns()
        for offset, value in zip(batch.offsets, batch.values, strict=True) if batch else ():
            self._check(batch.partition, offset, value)
        self._check_positions()

    @rule(index=indexes, offset=st.integers(0, 40))
    def seek(self, index: int, offset: int) -> None:
        self._interfere()
        self.fetcher.seek(self.partitions[index], offset)
        self.hand_over.touch(self.partitions[index])
        log = self.cluster.logs[index]
        self.expected[index] = offset
        if offset > log.end:
            self.restarted[index] = log.start
        else:
            self.restarted.pop(index, None)

    @rule(index=indexes)
    def begin_at_the_end_without_a_leader(self, index: int) -> None:
        """Give the partition up, and take it anew while nobody can tell where its end is."""
        self._interfere()
        self.fetcher.revoke(self.partitions[index])
        log = self.cluster.logs[index]
        log.elect(NO_LEADER)
        partition = AssignedPartition(
            self.partitions[index].name, self.partitions[index].key[0], NO_POSITION, "earliest", Random(0)
        )
        partition.begin_after(log.epoch)
        self.partitions[index] = partition
        self.expected[index] = log.end
        self.restarted.pop(index, None)
        self.fetcher.assign(partition, self.cluster.topic())

    @rule(index=indexes)
    def pause(self, index: int) -> None:
        self._interfere()
        self.fetcher.pause(self.partitions[index])

    @rule(index=indexes)
    def resume(self, index: int) -> None:
        self.fetcher.resume(self.partitions[index])

    def _interfere(self) -> None:
        self.hand_over.settle_before_last()
        self.hand_over.end_chunk()

    def _check(self, index: int, offset: int, value: bytes | None) -> None:
        expected, log = self.expected[index], self.cluster.logs[index]
        went_back = index in self.restarted and self.restarted[index] <= offset <= log.start
        assert offset == expected or (expected < offset <= log.start) or went_back, (index, offset, expected)
        assert value == value_at(index, offset)
        self.expected[index] = offset + 1
        self.restarted.pop(index, None)

    def _check_positions(self) -> None:
        for index, partition in enumerate(self.partitions):
            if partition.position == NO_POSITION:
                assert partition.begins_after != NO_EPOCH
            elif index not in self.restarted and self.expected[index] >= self.cluster.logs[index].start:
                assert partition.position == self.expected[index]

    # ------------------------------------------------------------ always

    @invariant()
    def bytes_are_counted(self) -> None:
        buffered = [sum(len(raw.data) for raw in partition.buffer) for partition in self.partitions]
        assert [partition.buffered_bytes for partition in self.partitions] == buffered
        assert self.fetcher.buffered_bytes == sum(buffered)

    @invariant()
    def each_partition_is_awaited_once(self) -> None:
        awaited = [partition.fetch for partition in self.partitions if partition.fetch != NO_FETCH]
        in_flight = {plan.fetch_id: plan.node for plan in self.plans}
        for node in self.fetcher._flights.nodes.values():
            in_flight |= dict.fromkeys(node.resting, node.node_id)
        in_flight |= {plan.fetch_id: plan.node for plan, _, _ in self.half_told}
        in_flight |= {flight.fetch_id: flight.node.node_id for flight in self.fetcher.answered}
        assert set(awaited) <= set(in_flight)
        for node_id in (1, 2):
            assert sum(in_flight[fetch] == node_id for fetch in set(awaited)) <= FETCHES_PER_NODE_MAX

    def teardown(self) -> None:
        """Once nothing fails any more, everything arrives."""
        self._interfere()
        for log in self.cluster.logs:
            if log.leader == NO_LEADER:
                log.elect(1)
        self.hear_of_leaders()
        for partition in self.partitions:
            self.fetcher.resume(partition)
        while self.half_told:
            self.tell_once_more()
        for _ in range(400):
            self.send(2.0)
            if not self.plans and not self.fetcher.ready:
                break
            while self.plans:
                self._answer(0, 10_000)
            self.poll(100)
            self.each_partition_is_awaited_once()
            if self._is_complete():
                return
        assert self._is_complete()

    def _is_complete(self) -> bool:
        return all(
            partition.position == log.end and partition.failure is None
            for partition, log in zip(self.partitions, self.cluster.logs, strict=True)
        )


TestFetching = Fetching.TestCase
TestFetching.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

WEIGHTS = {
    "send": 3, "answer": 4, "lose": 1, "restart": 1, "crowd": 1, "hear_of_leaders": 2, "append": 2,
    "retain": 1, "elect": 1, "poll": 2, "begin_loop": 1, "go_on_with_loop": 2, "take_batch": 1, "seek": 1,
    "pause": 1, "resume": 2, "begin_at_the_end_without_a_leader": 1, "answer_interrupted": 3,
    "tell_once_more": 1,
}  # fmt: skip


def test_all_that_is_behind_the_buffer_is_deleted() -> None:
    """The position is the end of the log, though no record tells that."""
    machine = Fetching()
    machine.begin([1] * 12)
    machine.send(0.0)
    machine.answer(0, 1)
    machine.retain(0, 4)
    machine.send(0.0)
    machine.answer(0, 1)
    machine.teardown()
    assert machine.partitions[0].position == 4


@pytest.mark.parametrize("seed", range(60))
def test_long_histories(seed: int) -> None:
    """The same machine, driven for longer than hypothesis does; the seed replays a history exactly."""
    random = Random(seed)
    machine = Fetching()
    machine.begin([random.randint(1, 6) for _ in range(12)])
    arguments = {
        "send": lambda: [random.choice([0.0, 0.01, 2.0])],
        "answer": lambda: [random.randint(0, 3), random.choice([1, 600, 5_000])],
        "answer_interrupted": lambda: [
            random.randint(0, 3),
            random.choice([1, 600, 5_000]),
            random.randint(1, 120),
        ],
        "tell_once_more": list,
        "lose": lambda: [random.randint(0, 3), random.random() < 0.5],
        "restart": lambda: [random.randint(1, 2)],
        "crowd": lambda: [random.randint(1, 2)],
        "poll": lambda: [random.randint(1, 8)],
        "begin_loop": lambda: [random.randint(1, 8), random.randint(0, 8)],
        "go_on_with_loop": lambda: [random.randint(0, 8)],
        "append": lambda: [random.randrange(PARTITIONS), random.randint(1, 6)],
        "retain": lambda: [random.randrange(PARTITIONS), random.randint(1, 3)],
        "elect": lambda: [random.randrange(PARTITIONS), random.choice([1, 2, 1, 2, NO_LEADER])],
        "begin_at_the_end_without_a_leader": lambda: [random.randrange(PARTITIONS)],
        "pause": lambda: [random.randrange(PARTITIONS)],
        "resume": lambda: [random.randrange(PARTITIONS)],
    }
    for action in random.choices(list(WEIGHTS), WEIGHTS.values(), k=300):
        if action == "seek":
            index = random.randrange(PARTITIONS)
            machine.seek(index, random.randint(0, machine.cluster.logs[index].end + 3))
        else:
            getattr(machine, action)(*arguments.get(action, list)())
        machine.bytes_are_counted()
        machine.each_partition_is_awaited_once()
    machine.teardown()
