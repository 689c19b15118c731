"""What a follower fetches, and what it makes of the answers."""

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.node.replication.copying import Copier, CopyFetch, CopyStep, Source
from tailrace.protocol.batch import stamp
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import CorruptBatchError, ErrorCode, StorageFullError, TimedOutError
from tailrace.protocol.limits import (
    COPY_AHEAD_BYTES_MAX,
    COPY_COMMIT_BYTES_MIN,
    LARGE_COPY_BYTES_MIN,
    REPLICA_FETCHES_PER_NODE_MAX,
)
from tailrace.protocol.message import OK, ErrorInfo
from tailrace.protocol.replica_messages import ReplicaAckEntry, ReplicaFetchResult

TOPIC = bytes(16)


def log(end: int = 10, high_watermark: int = 5, epoch: int = 3) -> Any:
    return SimpleNamespace(
        log_start_offset=0, log_end_offset=end, high_watermark=high_watermark, epoch=epoch, removed=False
    )


def key(number: int = 0) -> tuple[bytes, int]:
    return TOPIC, number


def result(number: int = 0, **fields: Any) -> ReplicaFetchResult:
    values = {"error": OK, "high_watermark": 5, "log_start_offset": 0} | fields
    return ReplicaFetchResult(TOPIC, number, **values)


@pytest.fixture
def copier() -> Copier:
    return Copier(
        end_of_epoch=lambda log, epoch: (epoch, min(log.log_end_offset, 7)),
        last_epoch=lambda log: int(log.epoch),
        random=Random(1),
    )


def start(copier: Copier, *logs: Any, leader: int = 2, epoch: int = 3) -> CopyFetch:
    copier.copy({key(at): (each, Source(leader, epoch)) for at, each in enumerate(logs)})
    (fetch,) = copier.plan(0.0)
    return fetch


def answer(copier: Copier, *reply: Any) -> list[CopyStep]:
    """What the writer gets for it."""
    copier.replied(*reply)
    return copier.take_steps()


def test_a_fetch_says_what_is_on_disk(copier: Copier) -> None:
    fetch = start(copier, log(10), log(20, epoch=-1))
    assert fetch.leader == 2
    assert [(e.partition, e.leader_epoch, e.offset, e.last_epoch) for e in fetch.entries] == [
        (0, 3, 10, 3),
        (1, 3, 20, -1),
    ]
    assert copier.plan(0.0) == [], "both are on their way"


def test_batches_go_to_the_writer_and_nothing_is_fetched_meanwhile(copier: Copier) -> None:
    one = log(10)
    fetch = start(copier, one, log(20))
    steps = answer(copier, fetch.fetch_id, [result(batches=2, high_watermark=8)], [b"x", b"y"], 0.0)
    assert steps == [CopyStep(key(), one, 3, (b"x", b"y"), None, None, 8, 0)]
    (other,) = copier.plan(0.0)
    assert [entry.partition for entry in other.entries] == [1], (
        "a quiet partition does not wait for a busy one"
    )
    one.log_end_offset = 12
    copier.done(steps[0], None, 0.0)
    (again,) = copier.plan(0.0)
    assert [(entry.partition, entry.offset) for entry in again.entries] == [(0, 12)]


def test_where_the_logs_part(copier: Copier) -> None:
    fetch = start(copier, log(10))
    (step,) = answer(copier, fetch.fetch_id, [result(diverging_epoch=2, diverging_end=9)], [], 0.0)
    assert step.truncate_to == 7, "to the end of the epoch in the own log, if that is lower"
    copier.done(step, None, 0.0)
    (fetch,) = copier.plan(0.0)
    (step,) = answer(copier, fetch.fetch_id, [result(diverging_epoch=2, diverging_end=4)], [], 0.0)
    assert step.truncate_to == 4


def test_logs_that_part_below_what_is_left(copier: Copier) -> None:
    one = log(10)
    one.log_start_offset = 5
    fetch = start(copier, one)
    parted = result(diverging_epoch=2, diverging_end=4, log_start_offset=3)
    (step,) = answer(copier, fetch.fetch_id, [parted], [], 0.0)
    assert (step.truncate_to, step.reset_to) == (None, 3)


def test_a_leader_that_has_no_older_records(copier: Copier) -> None:
    fetch = start(copier, log(10))
    error = ErrorInfo(ErrorCode.OFFSET_OUT_OF_RANGE, "too old")
    (step,) = answer(copier, fetch.fetch_id, [result(error=error, log_start_offset=50)], [], 0.0)
    assert step.reset_to == 50


@pytest.mark.parametrize(("leader_start", "reset_to"), [(3, 3), (12, 12), (10, None), (-1, None)])
def test_an_empty_log_begins_where_its_leaders_does(
    copier: Copier, leader_start: int, reset_to: int | None
) -> None:
    one = log(10)
    one.log_start_offset = 10
    fetch = start(copier, one)
    error = ErrorInfo(ErrorCode.OFFSET_OUT_OF_RANGE, "not here")
    steps = answer(copier, fetch.fetch_id, [result(error=error, log_start_offset=leader_start)], [], 0.0)
    assert [step.reset_to for step in steps] == ([] if reset_to is None else [reset_to])


def test_a_log_that_has_something_waits_for_a_leader_that_is_behind(copier: Copier) -> None:
    fetch = start(copier, log(10))
    error = ErrorInfo(ErrorCode.OFFSET_OUT_OF_RANGE, "not yet")
    assert answer(copier, fetch.fetch_id, [result(error=error, log_start_offset=3)], [], 0.0) == []


def test_news_without_batches(copier: Copier) -> None:
    fetch = start(copier, log(10))
    assert answer(copier, fetch.fetch_id, [result(high_watermark=5)], [], 0.0) == []
    (fetch,) = copier.plan(0.0)
    (step,) = answer(copier, fetch.fetch_id, [result(high_watermark=9)], [], 0.0)
    assert (step.high_watermark, step.batches) == (9, ())


def test_errors_wait_longer_and_longer(copier: Copier) -> None:
    fetch = start(copier, log(10))
    pauses = []
    now = 0.0
    for number in range(4):
        if number % 2:
            copier.failed(fetch.fetch_id, now)
        else:
            error = ErrorInfo(ErrorCode.NOT_LEADER, "not here")
            assert answer(copier, fetch.fetch_id, [result(error=error)], [], now) == []
        assert copier.plan(now) == []
        pauses.append(copier.next_tick() - now)
        now = copier.next_tick()
        (fetch,) = copier.plan(now)
    assert pauses == sorted(pauses)


def test_a_step_that_failed_is_made_anew_later(copier: Copier) -> None:
    fetch = start(copier, log(10))
    (step,) = answer(copier, fetch.fetch_id, [result(batches=1)], [b"x"], 0.0)
    copier.done(step, TimedOutError("disk"), 0.0)
    assert copier.plan(0.0) == []
    assert len(copier.plan(copier.next_tick())) == 1


def test_steps_that_fail_again_and_again_wait_longer_and_longer(copier: Copier) -> None:
    """As on a full disk: the leader answers well each time."""
    fetch = start(copier, log(10))
    now, waits = 0.0, []
    for _ in range(12):
        (step,) = answer(copier, fetch.fetch_id, [result(batches=1)], [b"x"], now)
        copier.done(step, StorageFullError("no room"), now)
        assert copier.plan(now) == []
        waits.append(copier.next_tick() - now)
        now = copier.next_tick()
        (fetch,) = copier.plan(now)
    assert min(waits[-3:]) > 10 * waits[0]
    (step,) = answer(copier, fetch.fetch_id, [result(batches=1)], [b"x"], now)
    copier.done(step, None, now)
    (fetch,) = copier.plan(now)
    (step,) = answer(copier, fetch.fetch_id, [result(batches=1)], [b"x"], now)
    copier.done(step, StorageFullError("no room"), now)
    assert copier.plan(now) == []
    assert copier.next_tick() - now <= 2 * waits[0], "what went well begins anew"


def test_another_leader(copier: Copier) -> None:
    one = log(10)
    fetch = start(copier, one)
    copier.copy({key(): (one, Source(3, 4))})
    (other,) = copier.plan(0.0)
    assert (other.leader, other.entries[0].leader_epoch) == (3, 4)
    assert answer(copier, fetch.fetch_id, [result(batches=1)], [b"x"], 0.0) == [], (
        "the old leader is not heard"
    )
    (step,) = answer(copier, other.fetch_id, [result(batches=1)], [b"x"], 0.0)
    copier.copy({key(): (one, Source(2, 5))})
    assert len(copier.plan(0.0)) == 1
    copier.done(step, None, 0.0)
    assert copier.plan(0.0) == [], "the step of another epoch frees nothing"


def test_following_no_more(copier: Copier) -> None:
    fetch = start(copier, log(10), log(10))
    copier.stop([key(0)])
    assert len(copier) == 1
    steps = answer(copier, fetch.fetch_id, [result(0, batches=1), result(1, batches=1)], [b"x", b"y"], 0.0)
    assert [step.key for step in steps] == [key(1)]


def test_no_more_fetches_than_so_many_at_one_leader(copier: Copier) -> None:
    logs = [log(10) for _ in range(REPLICA_FETCHES_PER_NODE_MAX + 3)]
    for at, each in enumerate(logs):
        copier.copy({key(at): (each, Source(2, 3))})
        copier.plan(0.0)
    copier.copy({key(99): (log(), Source(4, 1))})
    assert [fetch.leader for fetch in copier.plan(0.0)] == [4], "another leader is another matter"


def test_a_bounded_copy_waits_for_its_budget_and_holds_nobody_up(copier: Copier) -> None:
    copier.throttle.bound(TOPIC, {0: 100}, 0.0)
    fetch = start(copier, log(10), log(20))
    [step] = answer(copier, fetch.fetch_id, [result(0, batches=1), result(1)], [bytes(300)], 0.0)
    copier.done(step, None, 0.0)
    (again,) = copier.plan(0.0)
    assert [entry.partition for entry in again.entries] == [1]
    assert copier.next_tick() == 3.0
    (later,) = copier.plan(3.0)
    assert [entry.partition for entry in later.entries] == [0]


def large(offset: int, *, epoch: int = 3, size: int = LARGE_COPY_BYTES_MIN) -> bytes:
    """A batch of one record."""
    batch = bytearray(encode([bytes(size)], timestamps=1))
    stamp(batch, offset, epoch)
    return bytes(batch)


def ends(copier: Copier) -> list[tuple[int, int, int]]:
    """Of the next fetch: what is said to be on disk, where it reads on, the epoch before that."""
    return [(e.offset, e.fetch_offset, e.last_epoch) for fetch in copier.plan(0.0) for e in fetch.entries]


def ahead(copier: Copier, one: Any, *, first: CopyFetch | None = None) -> tuple[CopyStep, CopyFetch]:
    """A follower of `one` got a large answer, of which it has nothing on disk, and reads on."""
    fetch = first or start(copier, one)
    (step,) = answer(copier, fetch.fetch_id, [result(batches=1)], [large(10)], 0.0)
    (fetch,) = copier.plan(0.0)
    return step, fetch


def test_after_a_large_answer_it_reads_ahead(copier: Copier) -> None:
    one = log(10)
    fetch = start(copier, one)
    (step,) = answer(copier, fetch.fetch_id, [result(batches=2)], [large(10, epoch=2), large(11)], 0.0)
    assert ends(copier) == [(10, 12, 3)], "what is with the writer is not said to be on disk"
    assert copier.take_acks() == {}
    one.log_end_offset = 12
    copier.done(step, None, 0.0)
    assert ends(copier) == [], "one fetch at a time"
    assert copier.take_acks() == {2: [ReplicaAckEntry(*key(), 3, 12)]}
    assert copier.take_acks() == {}, "once"


def test_a_fetch_that_is_due_tells_what_came_to_disk(copier: Copier) -> None:
    one = log(10)
    fetch = start(copier, one)
    (step,) = answer(copier, fetch.fetch_id, [result(batches=1)], [b"x"], 0.0)
    one.log_end_offset = 11
    copier.done(step, None, 0.0)
    assert ends(copier) == [(11, 11, 3)]
    assert copier.take_acks() == {}


def test_the_writer_gets_large_steps_once_it_has_none(copier: Copier) -> None:
    one, other = log(10), log(20)
    copier.copy({key(0): (one, Source(2, 3))})
    (first,) = copier.plan(0.0)
    copier.copy({key(1): (other, Source(2, 3))})
    (second,) = copier.plan(0.0)
    step, fetch = ahead(copier, one, first=first)
    assert answer(copier, fetch.fetch_id, [result(batches=1)], [large(11)], 0.0) == []
    (small,) = answer(copier, second.fetch_id, [result(1, batches=1)], [b"x"], 0.0)
    assert small.key == key(1), "what is small does not wait for what is large"
    (fetch,) = [f for f in copier.plan(0.0) if f.entries[0].partition == 0]
    assert answer(copier, fetch.fetch_id, [result(batches=1)], [b"y"], 0.0) == [], (
        "a log's steps keep their order"
    )
    one.log_end_offset = 11
    copier.done(step, None, 0.0)
    assert [step.batches for step in copier.take_steps()] == [(large(11),), (b"y",)]


def test_what_waits_to_be_written_is_bounded(copier: Copier) -> None:
    one = log(10)
    _, fetch = ahead(copier, one)
    answers = 1
    while True:
        assert answer(copier, fetch.fetch_id, [result(batches=1)], [large(10 + answers)], 0.0) == []
        answers += 1
        fetches = copier.plan(0.0)
        if not fetches:
            break
        (fetch,) = fetches
    assert answers == COPY_AHEAD_BYTES_MAX // LARGE_COPY_BYTES_MIN


def test_a_large_answer_is_written_in_pieces(copier: Copier) -> None:
    one = log(10)
    fetch = start(copier, one)
    size = COPY_COMMIT_BYTES_MIN // 2 - 100
    batches = [
        large(10 + at, size=size) for at in range(2 * LARGE_COPY_BYTES_MIN // COPY_COMMIT_BYTES_MIN + 1)
    ]
    steps = answer(copier, fetch.fetch_id, [result(batches=len(batches))], batches, 0.0)
    assert ends(copier) == [(10, 10 + len(batches), 3)], "it reads on behind all of them"
    steps += copier.take_steps()
    written: list[bytes] = []
    while steps:
        assert copier.take_steps() == [], "the writer has one, and one more for its next commit"
        step = steps.pop(0)
        assert len(step.batches) == min(2, len(batches) - len(written))
        written += step.batches
        one.log_end_offset = 10 + len(written)
        copier.done(step, None, 0.0)
        steps += copier.take_steps()
    assert written == batches
    assert copier.take_acks() == {2: [ReplicaAckEntry(*key(), 3, 10 + len(batches))]}


def test_a_batch_that_is_larger_than_a_piece_goes_alone(copier: Copier) -> None:
    one = log(10)
    fetch = start(copier, one)
    batches = [large(10), large(11)]
    (first,) = answer(copier, fetch.fetch_id, [result(batches=2)], batches, 0.0)
    copier.done(first, None, 0.0)
    (second,) = copier.take_steps()
    assert [first.batches, second.batches] == [(batches[0],), (batches[1],)]


def test_after_a_failure_it_settles_before_it_goes_on(copier: Copier) -> None:
    one = log(10)
    step, fetch = ahead(copier, one)
    copier.done(step, CorruptBatchError("a flipped bit"), 0.0)
    assert copier.plan(1e9) == [], "a fetch is on its way"
    assert answer(copier, fetch.fetch_id, [result(batches=1)], [large(11)], 0.0) == [], "it would leave a gap"
    (fetch,) = copier.plan(1e9)
    assert (fetch.entries[0].offset, fetch.entries[0].fetch_offset) == (10, 10)


def test_what_follows_a_failed_step_is_dropped_before_it_goes_on(copier: Copier) -> None:
    one = log(10)
    step, fetch = ahead(copier, one)
    assert answer(copier, fetch.fetch_id, [result(batches=1)], [large(11)], 0.0) == []
    copier.done(step, CorruptBatchError("a flipped bit"), 0.0)
    assert copier.take_steps() == [], "it would leave a gap"
    (fetch,) = copier.plan(1e9)
    assert (fetch.entries[0].offset, fetch.entries[0].fetch_offset) == (10, 10)


@pytest.mark.parametrize(
    "news",
    [
        {"diverging_epoch": 2, "diverging_end": 5},
        {"error": ErrorInfo(ErrorCode.OFFSET_OUT_OF_RANGE, "too old"), "log_start_offset": 50},
        {"error": ErrorInfo(ErrorCode.NOT_LEADER, "not here")},
    ],
)
def test_other_news_wait_until_the_log_is_as_they_say(copier: Copier, news: dict[str, Any]) -> None:
    one = log(10)
    step, fetch = ahead(copier, one)
    assert answer(copier, fetch.fetch_id, [result(**news)], [], 0.0) == []
    assert copier.plan(0.0) == []
    one.log_end_offset = 11
    copier.done(step, None, 0.0)
    assert ends(copier) == [(11, 11, 3)], "asked again, about what is on disk"


def test_steps_that_the_writer_has_not_got_go_with_their_partition(copier: Copier) -> None:
    one = log(10)
    step, fetch = ahead(copier, one)
    assert answer(copier, fetch.fetch_id, [result(batches=1)], [large(11)], 0.0) == []
    copier.stop([key()])
    copier.copy({key(): (one, Source(3, 4))})
    copier.done(step, None, 0.0)
    assert copier.take_steps() == []
    assert copier.take_acks() == {}, "the new leader has not seen this log yet"
    assert ends(copier) == [(10, 10, 3)]
