"""The checker accepts what a correct log does, and finds each way in which one could be wrong."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from tailrace.torture.checker import VIOLATIONS, Verdict, check
from tailrace.torture.history import (
    Acked,
    Begun,
    Crashed,
    Ended,
    Event,
    Failed,
    Read,
    Replica,
    Sent,
    Stored,
    Watermark,
)

NODES = (1, 2, 3)
CONSUMERS = (0, 1)
BATCH = 4


def log_of(producer: int, partition: int, count: int = 12) -> list[tuple[int, int]]:
    """The records of one partition, in order."""
    return [(producer, sequence) for sequence in range(count) if sequence % 2 == partition]


def history_of(logs: dict[int, list[tuple[int, int]]]) -> list[Event]:
    """Everything as it should be: sent, acknowledged, read by all, and the same in every replica."""
    events: list[Event] = []
    for partition, log in logs.items():
        for offset, (producer, sequence) in enumerate(log):
            events.append(Sent(at_s=0.0, producer=producer, first=sequence, count=1))
            events.append(
                Acked(
                    at_s=0.1, producer=producer, partition=partition, sequences=[sequence], offsets=[offset]
                )
            )
        producers, sequences = [row[0] for row in log], [row[1] for row in log]
        events += [
            Read(
                at_s=0.2, consumer=consumer, partition=partition, offsets=list(range(len(log))),
                producers=producers, sequences=sequences,
            )
            for consumer in CONSUMERS
        ]  # fmt: skip
        events += [Watermark(at_s=at, observer="o", partition=partition, offset=at) for at in range(3)]
        for node in NODES:
            events.append(
                Replica(
                    node=node, partition=partition, start=0, end=len(log), high_watermark=min(1, len(log))
                )
            )
            events += [
                Stored(
                    node=node, partition=partition, offset=base, digest=base,
                    producers=producers[base : base + BATCH], sequences=sequences[base : base + BATCH],
                )
                for base in range(0, len(log), BATCH)
            ]  # fmt: skip
    return events


GOOD = history_of({0: log_of(5, 0), 1: log_of(5, 1)})


def found(events: list[Event]) -> dict[str, int]:
    """The violations that are there."""
    verdict = check(events)
    assert verdict.holds == (not any(verdict.violations.values()))
    return {name: count for name, count in verdict.violations.items() if count}


def edited(kind: type[Event], edit: Callable[[Any], Event | None], *, only: int | None = 0) -> list[Event]:
    """GOOD with one event of a kind (or all) changed or left out."""
    events: list[Event] = []
    number = 0
    for event in GOOD:
        after: Event | None = event
        if isinstance(event, kind):
            if only in (None, number):
                after = edit(event)
            number += 1
        if after is not None:
            events.append(after)
    return events


def test_what_is_right_is_accepted() -> None:
    verdict = check(GOOD)
    assert verdict == Verdict(
        sent=12,
        acked=12,
        read=12,
        unknown=0,
        replicas=6,
        violations=dict.fromkeys(VIOLATIONS, 0),
        examples=[],
    )


def test_faults_and_records_that_were_given_up_are_no_violations() -> None:
    more: list[Event] = [
        Begun(at_s=1, number=0, fault="kill leader", processes=["node-1"]),
        Ended(at_s=2, number=0),
        Sent(at_s=1, producer=5, first=12, count=1),
        Failed(at_s=2, producer=5, sequences=[12], error="expired"),
    ]
    verdict = check([*GOOD, *more])
    assert verdict.holds
    assert verdict.unknown == 1


def test_lost() -> None:
    last = 2 * BATCH - 2  # the last batch of each partition

    def without(event: Stored) -> Event | None:
        return None if event.offset + BATCH > last else event

    events = [event for event in edited(Stored, without, only=None) if not isinstance(event, Read)]
    events = [changed(event, end=BATCH) if isinstance(event, Replica) else event for event in events]
    assert found(events) == {"lost": 4}


def test_read_and_then_gone() -> None:
    events = [
        changed(event, end=BATCH) if isinstance(event, Replica) else event
        for event in edited(Stored, lambda event: event if event.offset == 0 else None, only=None)
    ]
    assert found(events) == {"lost": 4, "vanished": 4}


def test_misplaced() -> None:
    assert found(edited(Acked, lambda event: changed(event, offsets=[99]))) == {"misplaced": 1}


def test_acknowledged_twice_at_two_places() -> None:
    again = Acked(at_s=9, producer=5, partition=0, sequences=[0], offsets=[3])
    assert found([*GOOD, again]) == {"duplicated": 1}


def test_stored_twice() -> None:
    log = log_of(5, 0)
    assert found(history_of({0: [*log, log[-1]]}))["duplicated"] >= 1


def test_read_twice() -> None:
    assert found([*GOOD, next(event for event in GOOD if isinstance(event, Read))]) == {
        "duplicated": 6,
        "gaps": 1,
        "reordered": 5,
    }


def test_reordered() -> None:
    log = log_of(5, 0)
    log[2], log[3] = log[3], log[2]
    assert found(history_of({0: log})) == {"reordered": 2}  # once for each consumer


def test_not_read_by_one_consumer() -> None:
    assert found(edited(Read, lambda event: None)) == {"unseen": 6}


def test_never_sent() -> None:
    assert found([event for event in GOOD if not isinstance(event, Sent)]) == {"unasked": 12}


def test_a_hole_in_what_was_read() -> None:
    def cut(event: Read) -> Event:
        return changed(
            event,
            offsets=[*event.offsets[:2], *event.offsets[3:]],
            producers=[*event.producers[:2], *event.producers[3:]],
            sequences=[*event.sequences[:2], *event.sequences[3:]],
        )

    assert found(edited(Read, cut)) == {"gaps": 1, "unseen": 1}


def test_replicas_with_other_bytes() -> None:
    assert found(edited(Stored, lambda event: changed(event, digest=77))) == {"diverged": 2}  # the others


def test_replicas_with_other_records() -> None:
    assert "diverged" in found(edited(Stored, lambda event: changed(event, sequences=[1, 3, 5, 7])))


def test_a_replica_that_misses_what_was_committed() -> None:
    events = edited(Replica, lambda event: changed(event, end=0))
    assert found(events) == {"diverged": 1}


def test_consumers_that_were_told_different_things() -> None:
    def swapped(event: Read) -> Event:
        return changed(event, sequences=list(reversed(event.sequences)))

    assert found(edited(Read, swapped, only=1)) == {"diverged": 6, "reordered": 5}


def test_a_high_watermark_that_goes_back() -> None:
    assert found([*GOOD, Watermark(at_s=9, observer="o", partition=0, offset=1)]) == {"went_back": 1}
    assert found([*GOOD, Watermark(at_s=9, observer="another", partition=0, offset=1)]) == {}


def test_a_replica_whose_verification_found_something() -> None:
    events = edited(Replica, lambda event: changed(event, problems=["a wrong CRC"]))
    assert found(events) == {"corrupt": 1}


def test_a_process_that_ended_by_itself() -> None:
    crashed = Crashed(at_s=4, process="node-2", reason="exit code 1")
    verdict = check([*GOOD, crashed])
    assert not verdict.holds
    assert verdict.examples == ["crashed: node-2 at 4.0 s: exit code 1"]


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 40))
def test_any_correct_log_is_accepted_and_any_lost_record_is_found(
    seed: int, producers: int, count: int
) -> None:
    random = Random(seed)
    logs: dict[int, list[tuple[int, int]]] = {0: [], 1: []}
    following = dict.fromkeys(range(producers), 0)
    for _ in range(count):
        producer = random.randrange(producers)
        logs[random.randrange(2)].append((producer, following[producer]))
        following[producer] += 1
    good = history_of(logs)
    assert found(good) == {}
    producer = random.randrange(producers)
    following[producer] += 1
    sequence = following[producer] - 1
    lost: list[Event] = [
        Sent(at_s=3, producer=producer, first=sequence, count=1),
        Acked(at_s=4, producer=producer, partition=0, sequences=[sequence], offsets=[len(logs[0])]),
    ]
    assert found([*good, *lost]) == {"lost": 1}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_every_violation_has_words(name: str) -> None:
    assert VIOLATIONS[name]
