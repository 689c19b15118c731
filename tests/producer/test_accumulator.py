"""When batches open, fill, wait and are sealed; and the memory they share."""

import threading
import time
from collections.abc import Callable
from math import inf

import pytest

from tailrace.producer import accumulator, encoder
from tailrace.producer.accumulator import Accumulator
from tailrace.producer.batch import ADDING, RECORD_OVERHEAD_BYTES, Batch, Identity, Stamp
from tailrace.producer.delivery import Delivery
from tailrace.producer.lane import Resolved
from tailrace.producer.topics import TopicBuffers
from tailrace.producer.waiters import Waiters
from tailrace.protocol.batch import parse_header
from tailrace.protocol.cluster import NO_LEADER, PartitionInfo, TopicConfig, TopicInfo
from tailrace.protocol.errors import (
    BatchTooLargeError,
    BufferFullError,
    BusyError,
    ClosedError,
    ConcurrentUseError,
    InvalidTimestampError,
    UnknownTopicError,
)
from tailrace.protocol.parts import joined, parts_of

from ..patience import BUSY_S, PATIENCE_S, wait_until

LINGER_S = 0.005
NEVER = 1e9
"""A `now` at which everything is due."""


def topic_info(partitions: int = 1, leaderless: tuple[int, ...] = ()) -> TopicInfo:
    infos = [
        PartitionInfo((1,), NO_LEADER if at in leaderless else 1, 0, 0, (1,)) for at in range(partitions)
    ]
    return TopicInfo(bytes(16), "t", TopicConfig(), tuple(infos))


class Senders:
    """The application's side of an accumulator, and a count of how often the I/O thread was woken."""

    def __init__(
        self,
        partitions: int = 1,
        *,
        batch: int = 1_000,
        memory: int = 100_000,
        block_s: float = 0.0,
    ):
        self.wakes = 0
        self.accumulator = Accumulator(
            batch_bytes=batch,
            record_bytes_max=5_000,
            memory_bytes=memory,
            linger_s=LINGER_S,
            delivery_timeout_s=120,
            max_block_s=block_s,
            compresses=False,
            wake=self._wake,
        )
        self.topic: TopicBuffers = self.accumulator.open_topic(topic_info(partitions), 0)

    def _wake(self) -> None:
        self.wakes += 1

    def send(self, size: int = 100, partition: int | None = 0, timestamp_ms: int | None = None) -> Delivery:
        """One record that takes `size` bytes in all."""
        value = b"x" * (size - RECORD_OVERHEAD_BYTES)
        return self.accumulator.append(
            self.topic, partition, value, None, headers=None, timestamp_ms=timestamp_ms, size=size
        )

    def collect(self, now: float, wanted: Callable[[Batch, float], bool] = lambda *_: True) -> list[Batch]:
        return self.accumulator.collect(now, wanted)[0]

    def resolve(self, *batches: Batch) -> None:
        for batch in batches:
            batch.outcome.resolve(0, None)
        self.accumulator.settle([Resolved(batch, 0, None) for batch in batches])


def test_a_batch_is_sealed_by_the_record_that_does_not_fit() -> None:
    senders = Senders()
    sent = [senders.send() for _ in range(11)]
    (batch,) = senders.collect(0.0)
    assert (batch.count, batch.size) == (10, 1_000)
    assert [delivery.index for delivery in sent] == [*range(10), 0]
    assert senders.accumulator.used_bytes == 2_000


def test_a_full_batch_is_encoded_under_the_stamp_that_is_foreseen() -> None:
    senders = Senders()
    senders.send()
    (first,) = senders.collect(NEVER)
    assert senders.accumulator.foresee(first, Stamp(Identity(7, 1), 5))
    for _ in range(21):
        senders.send()
    assert not senders.accumulator.foresee(first, Stamp(Identity(7, 1), 6))
    for batch, sequence in zip(senders.collect(0.0), (5, 15), strict=True):
        batch.stamp = batch.foreseen
        assert batch.values == []
        header = parse_header(joined(batch.frame()))
        assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 1, sequence)


def test_who_fills_batches_gives_way_to_an_io_thread_that_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    senders = Senders()
    free: list[bool] = []

    def take_the_lock() -> None:
        free.append(senders.accumulator.lock.acquire(timeout=PATIENCE_S))
        senders.accumulator.lock.release()

    def pause(_seconds: float) -> None:
        io_thread = threading.Thread(target=take_the_lock)
        io_thread.start()
        io_thread.join()

    monkeypatch.setattr(accumulator, "sleep", pause)
    for _ in range(3):
        for _ in range(10):
            senders.send()
        senders.collect(0.0)
    assert free == []
    for _ in range(20):
        senders.send()
    assert free == [True]


def test_full_batches_lie_in_memory_that_is_used_again() -> None:
    senders = Senders(batch=64_000, memory=1_000_000)
    for _ in range(641):
        senders.send(100)
    (batch,) = senders.collect(0.0)
    assert batch.memory is not None
    assert parse_header(joined(batch.frame())).record_count == 640
    assert parts_of(batch.frame())[0].obj is batch.memory.obj  # type: ignore[union-attr]
    memory = batch.memory
    senders.accumulator.encoder.reuse_memory(batch)
    for _ in range(640):
        senders.send(100)
    (following,) = senders.collect(0.0)
    assert following.memory is memory


def test_what_has_to_wait_is_not_encoded_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "EARLY_BYTES_MAX", 130_000)
    senders = Senders(batch=64_000, memory=1_000_000)
    for _ in range(640 * 4 + 1):
        senders.send(100)
    batches = senders.collect(0.0)
    assert [batch.encoded is not None for batch in batches] == [True, True, False, False]
    senders.resolve(*batches)
    for _ in range(640):
        senders.send(100)
    assert [batch.encoded is not None for batch in senders.collect(0.0)] == [True]


def test_small_batches_and_large_records_need_none() -> None:
    senders = Senders(batch=64_000, memory=1_000_000)
    for _ in range(13):
        senders.send(5_000)
    senders.accumulator.seal()
    senders.send(100)
    batches = senders.collect(NEVER)
    assert [batch.count for batch in batches] == [12, 1, 1]
    assert [batch.memory for batch in batches] == [None] * 3
    assert [len(batch.values) for batch in batches] == [0, 1, 1]  # the first was full, and encoded at once


def test_linger_counts_from_the_first_record() -> None:
    senders = Senders()
    before = time.monotonic()
    senders.send()
    senders.send()
    batches, due = senders.accumulator.collect(before, lambda *_: True)
    assert batches == []
    assert before + LINGER_S <= due <= time.monotonic() + LINGER_S
    assert [batch.count for batch in senders.collect(due)] == [2]


def test_on_a_busy_way_a_batch_fills_up_and_is_given_up_in_time() -> None:
    senders = Senders()
    senders.send()
    now = time.monotonic() + 1
    batches, due = senders.accumulator.collect(now, lambda *_: False)
    assert batches == []
    assert now + 100 < due < inf
    senders.send()
    assert [batch.count for batch in senders.collect(due, lambda *_: False)] == [2]


def test_the_io_thread_is_woken_once_for_what_it_does_not_know() -> None:
    senders = Senders(partitions=2)
    early = time.monotonic()
    senders.send()
    assert senders.wakes == 1  # a first batch: its due time
    senders.send(partition=1)
    senders.send()
    assert senders.wakes == 1
    senders.collect(early)
    senders.send()
    assert senders.wakes == 1  # it knows of an earlier due time
    for _ in range(40):
        senders.send()
    assert senders.wakes == 2  # full batches, and it has not come yet


def test_who_is_woken_for_a_first_record_finds_the_lock_free(monkeypatch: pytest.MonkeyPatch) -> None:
    senders = Senders()
    free: list[bool] = []

    def take_the_lock() -> None:
        free.append(senders.accumulator.lock.acquire(timeout=0))
        senders.accumulator.lock.release()

    def wake() -> None:
        io_thread = threading.Thread(target=take_the_lock)
        io_thread.start()
        io_thread.join()

    monkeypatch.setattr(senders.accumulator.alarm, "wake", wake)
    senders.send()
    assert free == [True]


def test_records_without_a_partition_stay_together_until_their_batch_is_sealed() -> None:
    senders = Senders(partitions=3)
    partitions = [senders.send(partition=None).outcome.partition for _ in range(35)]
    runs = [partitions[at : at + 10] for at in range(0, 30, 10)]
    assert [len(set(run)) for run in runs] == [1, 1, 1]
    assert {run[0] for run in runs} == {0, 1, 2}
    assert set(partitions[30:]) == {runs[0][0]}


def test_records_without_a_partition_avoid_those_without_a_leader() -> None:
    senders = Senders(partitions=3)
    senders.accumulator.update_topics(lambda _: topic_info(4, leaderless=(0, 2)))
    senders.collect(NEVER)
    chosen = {senders.send(900, None).outcome.partition for _ in range(20)}
    assert chosen - {senders.topic.open[0].partition} == {1, 3}


def test_records_without_a_partition_leave_one_that_has_lost_its_leader() -> None:
    """At once, not when its batch is full: until it has one again nothing in it is delivered."""
    senders = Senders(partitions=3)

    def chosen(*leaderless: int) -> set[int]:
        senders.accumulator.update_topics(lambda _: topic_info(3, leaderless=leaderless))
        return {senders.send(partition=None).outcome.partition for _ in range(3)}

    (first,) = chosen()
    (second,) = chosen(first)
    assert second != first
    assert chosen() == {second}, "it stays while it can"
    (third,) = {0, 1, 2} - {first, second}
    assert chosen(first, second) == {third}
    assert chosen(0, 1, 2) == {third}, "no other is better"
    assert chosen(third, second) == {first}


def test_memory_is_taken_step_by_step_and_given_back() -> None:
    senders = Senders(batch=100_000, memory=100_000)
    senders.send()
    assert senders.accumulator.used_bytes == 16_384
    for _ in range(200):
        senders.send()
    assert senders.accumulator.used_bytes == 32_768
    (batch,) = senders.collect(NEVER)
    assert senders.accumulator.used_bytes == 20_100
    senders.resolve(batch)
    assert senders.accumulator.used_bytes == 0


def test_many_partitions_share_little_memory() -> None:
    """When open batches hold all of it, they are sealed, whatever their linger."""
    senders = Senders(partitions=100, batch=16_384, memory=64_000, block_s=10)
    stop = threading.Event()

    def io_thread() -> None:
        while not stop.wait(0.001):
            senders.resolve(*senders.collect(0.0, lambda *_: False))

    thread = threading.Thread(target=io_thread)
    thread.start()
    for number in range(1_000):
        senders.send(1_000, number % 100)
    stop.set()
    thread.join()


def test_full_memory_blocks_until_some_is_given_back() -> None:
    senders = Senders(memory=1_000, block_s=30)
    for _ in range(10):
        senders.send()
    timer = threading.Timer(0.2, lambda: senders.resolve(*senders.collect(NEVER)))
    started, now_ms = time.monotonic(), time.time_ns() // 1_000_000
    timer.start()
    sent = senders.send(timestamp_ms=None)
    assert 0.1 < time.monotonic() - started < 0.2 + BUSY_S
    timer.join()
    assert now_ms < senders.topic.open[0].time_ms <= time.time_ns() // 1_000_000
    assert sent.index == 0


def test_full_memory_is_an_error_after_max_block() -> None:
    senders = Senders(memory=1_000, block_s=0.1)
    for _ in range(10):
        senders.send()
    started = time.monotonic()
    with pytest.raises(BufferFullError, match=r"1000 of 1000 bytes .*\(100 ms\)$"):
        senders.send()
    assert 0.05 < time.monotonic() - started < 0.1 + BUSY_S
    senders.accumulator.obstacle = lambda: BusyError("node 1 is busy")
    with pytest.raises(BufferFullError, match=r"1000 of 1000 bytes .*: node 1 is busy$"):
        senders.send()
    senders.resolve(*senders.collect(NEVER))
    senders.send()


def test_who_would_wait_for_memory_in_the_middle_of_an_append_is_refused() -> None:
    """It would let go of the lock, which the append that it has come into relies on."""
    senders = Senders(memory=1_000, block_s=PATIENCE_S)
    senders.send(900)
    lock = senders.accumulator.lock
    with lock, pytest.raises(ConcurrentUseError, match="in the middle of a send"):
        senders.send(900)
    assert not lock._is_owned()  # type: ignore[attr-defined]


def test_memory_that_is_given_back_just_before_the_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for: nobody would tell of it again."""
    senders = Senders(memory=1_000, block_s=PATIENCE_S)
    senders.send(900)
    (batch,) = senders.collect(NEVER)
    monkeypatch.setattr("tailrace.producer.waiters.check_can_let_go", lambda _: senders.resolve(batch))
    monkeypatch.setattr(Waiters, "wait", lambda *_: pytest.fail("it waits"))
    senders.send(900)


def test_what_is_added_within_an_append_goes_behind_it() -> None:
    senders = Senders()
    first = senders.send()
    batch = senders.topic.open[0]
    room, batch.room = batch.room, ADDING
    second = senders.send()
    assert len(batch.values) == 1
    batch.room = room
    assert [sealed.outcome for sealed in senders.collect(NEVER)] == [first.outcome, second.outcome]


def test_a_large_record_has_a_batch_of_its_own() -> None:
    senders = Senders()
    senders.send()
    senders.send(3_000)
    senders.send()
    assert [batch.size for batch in senders.collect(NEVER)] == [100, 3_000, 100]
    with pytest.raises(BatchTooLargeError, match="5001 bytes"):
        senders.send(5_001 + RECORD_OVERHEAD_BYTES)


def test_timestamps_are_kept_in_runs() -> None:
    senders = Senders()
    for stamp in (5, 5, 6, 5):
        senders.send(timestamp_ms=stamp)
    before_ms = time.time_ns() // 1_000_000
    sent = senders.send()
    (batch,) = senders.collect(NEVER)
    assert batch.outcome.starts == [0, 2, 3, 4]
    assert batch.outcome.stamps[:3] == [5, 6, 5]
    senders.resolve(batch)
    assert [batch.outcome.metadata(at).timestamp for at in range(4)] == [5, 5, 6, 5]
    assert before_ms - 1 <= sent.result(0).timestamp <= time.time_ns() // 1_000_000


def test_flush_waits_for_what_was_sent_before_it_and_for_nothing_else() -> None:
    senders = Senders()
    senders.send()
    assert senders.accumulator.seal() == (0, 1)
    (before,) = senders.collect(0.0)
    done = threading.Event()

    def flush() -> None:
        generation, _ = senders.accumulator.seal()
        assert senders.accumulator.wait_resolved(generation, time.monotonic() + PATIENCE_S) == 0
        done.set()

    thread = threading.Thread(target=flush)
    thread.start()
    wait_until(lambda: senders.accumulator.waiters, "the flush waits")
    senders.send()
    senders.collect(NEVER)  # sent after the flush began, never resolved
    assert not done.is_set()
    senders.resolve(before)
    thread.join(PATIENCE_S)
    assert done.is_set()


def test_failures_are_counted_by_records_and_told_once() -> None:
    senders = Senders()
    for _ in range(3):
        senders.send()
    (batch,) = senders.collect(NEVER)
    error = InvalidTimestampError("late")
    batch.outcome.resolve(-1, error)
    senders.accumulator.settle([Resolved(batch, -1, error)])
    before = senders.accumulator.ledger.told
    assert senders.accumulator.take_failures(before) == (3, error)
    assert senders.accumulator.take_failures(senders.accumulator.ledger.told) == (0, None)
    assert senders.accumulator.take_failures(before) == (3, error), "who has waited meanwhile is told, too"


def test_after_a_failure_nothing_is_taken_and_what_is_open_is_sealed() -> None:
    senders = Senders()
    senders.send()
    senders.accumulator.fail(ClosedError("closed"))
    with pytest.raises(ClosedError):
        senders.send()
    assert len(senders.collect(0.0)) == 1


def test_a_deleted_topic_is_left() -> None:
    senders = Senders()
    senders.send()
    senders.accumulator.update_topics(lambda _: None)
    with pytest.raises(UnknownTopicError, match="'t' was deleted"):
        senders.send()
    assert len(senders.collect(0.0)) == 1
    assert senders.accumulator.topics == {}


def test_a_record_whose_columns_were_interrupted_leaves_no_trace() -> None:
    batch = senders_batch()
    batch.add_other_columns(2, b"key")
    batch.add_other_columns(3, None, [("h", None)])
    batch.mark_time(3, 99)
    batch.torn = True
    batch.mend()
    assert batch.keys == [None, None]
    assert batch.headers == [(), ()]
    assert (batch.outcome.starts, batch.outcome.stamps, batch.time_ms) == ([0], [7], 7)


def senders_batch() -> Batch:
    """An open batch of two records."""
    senders = Senders()
    senders.send(timestamp_ms=7)
    senders.send(timestamp_ms=7)
    return senders.topic.open[0]
