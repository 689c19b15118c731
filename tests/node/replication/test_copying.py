"""What a follower fetches, and what it makes of the answers."""

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.node.replication.copying import Copier, CopyFetch, CopyStep, Source
from tailrace.protocol.errors import ErrorCode, StorageFullError, TimedOutError
from tailrace.protocol.limits import REPLICA_FETCHES_PER_NODE_MAX
from tailrace.protocol.message import OK, ErrorInfo
from tailrace.protocol.replica_messages import ReplicaFetchResult

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
    steps = copier.replied(fetch.fetch_id, [result(batches=2, high_watermark=8)], [b"x", b"y"], 0.0)
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
    (step,) = copier.replied(fetch.fetch_id, [result(diverging_epoch=2, diverging_end=9)], [], 0.0)
    assert step.truncate_to == 7, "to the end of the epoch in the own log, if that is lower"
    copier.done(step, None, 0.0)
    (fetch,) = copier.plan(0.0)
    (step,) = copier.replied(fetch.fetch_id, [result(diverging_epoch=2, diverging_end=4)], [], 0.0)
    assert step.truncate_to == 4


def test_a_leader_that_has_no_older_records(copier: Copier) -> None:
    fetch = start(copier, log(10))
    error = ErrorInfo(ErrorCode.OFFSET_OUT_OF_RANGE, "too old")
    (step,) = copier.replied(fetch.fetch_id, [result(error=error, log_start_offset=50)], [], 0.0)
    assert step.reset_to == 50


def test_news_without_batches(copier: Copier) -> None:
    fetch = start(copier, log(10))
    assert copier.replied(fetch.fetch_id, [result(high_watermark=5)], [], 0.0) == []
    (fetch,) = copier.plan(0.0)
    (step,) = copier.replied(fetch.fetch_id, [result(high_watermark=9)], [], 0.0)
    assert (step.high_watermark, step.batches) == (9, ())


def test_errors_wait_longer_and_longer(copier: Copier) -> None:
    fetch = start(copier, log(10))
    pauses = []
    now = 0.0
    for number in range(4):
        if number % 2:
            copier.failed(fetch.fetch_id, TimedOutError("late"), now)
        else:
            error = ErrorInfo(ErrorCode.NOT_LEADER, "not here")
            assert copier.replied(fetch.fetch_id, [result(error=error)], [], now) == []
        assert copier.plan(now) == []
        pauses.append(copier.next_tick() - now)
        now = copier.next_tick()
        (fetch,) = copier.plan(now)
    assert pauses == sorted(pauses)


def test_a_step_that_failed_is_made_anew_later(copier: Copier) -> None:
    fetch = start(copier, log(10))
    (step,) = copier.replied(fetch.fetch_id, [result(batches=1)], [b"x"], 0.0)
    copier.done(step, TimedOutError("disk"), 0.0)
    assert copier.plan(0.0) == []
    assert len(copier.plan(copier.next_tick())) == 1


def test_steps_that_fail_again_and_again_wait_longer_and_longer(copier: Copier) -> None:
    """As on a full disk: the leader answers well each time."""
    fetch = start(copier, log(10))
    now, waits = 0.0, []
    for _ in range(12):
        (step,) = copier.replied(fetch.fetch_id, [result(batches=1)], [b"x"], now)
        copier.done(step, StorageFullError("no room"), now)
        assert copier.plan(now) == []
        waits.append(copier.next_tick() - now)
        now = copier.next_tick()
        (fetch,) = copier.plan(now)
    assert min(waits[-3:]) > 10 * waits[0]
    (step,) = copier.replied(fetch.fetch_id, [result(batches=1)], [b"x"], now)
    copier.done(step, None, now)
    (fetch,) = copier.plan(now)
    (step,) = copier.replied(fetch.fetch_id, [result(batches=1)], [b"x"], now)
    copier.done(step, StorageFullError("no room"), now)
    assert copier.plan(now) == []
    assert copier.next_tick() - now <= 2 * waits[0], "what went well begins anew"


def test_another_leader(copier: Copier) -> None:
    one = log(10)
    fetch = start(copier, one)
    copier.copy({key(): (one, Source(3, 4))})
    (other,) = copier.plan(0.0)
    assert (other.leader, other.entries[0].leader_epoch) == (3, 4)
    assert copier.replied(fetch.fetch_id, [result(batches=1)], [b"x"], 0.0) == [], (
        "the old leader is not heard"
    )
    (step,) = copier.replied(other.fetch_id, [result(batches=1)], [b"x"], 0.0)
    copier.copy({key(): (one, Source(2, 5))})
    assert len(copier.plan(0.0)) == 1
    copier.done(step, None, 0.0)
    assert copier.plan(0.0) == [], "the step of another epoch frees nothing"


def test_following_no_more(copier: Copier) -> None:
    fetch = start(copier, log(10), log(10))
    copier.stop([key(0)])
    assert len(copier) == 1
    steps = copier.replied(fetch.fetch_id, [result(0, batches=1), result(1, batches=1)], [b"x", b"y"], 0.0)
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
    [step] = copier.replied(fetch.fetch_id, [result(0, batches=1), result(1)], [bytes(300)], 0.0)
    copier.done(step, None, 0.0)
    (again,) = copier.plan(0.0)
    assert [entry.partition for entry in again.entries] == [1]
    assert copier.next_tick() == 3.0
    (later,) = copier.plan(3.0)
    assert [entry.partition for entry in later.entries] == [0]
