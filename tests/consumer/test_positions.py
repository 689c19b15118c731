"""Positions and assignments against a real node: seek, pause, look-ups, lag."""

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

import pytest

from tailrace.consumer import Consumer, OffsetAndTimestamp
from tailrace.protocol.errors import InvalidArgumentError, OffsetOutOfRangeError, UnknownTopicError
from tailrace.protocol.limits import FETCHES_PER_CLIENT_MAX

from ..patience import PATIENCE_S, wait_until
from .conftest import Feeder, at, values_of

Make = Callable[..., Consumer]


@pytest.fixture
def ten(feeder: Feeder) -> str:
    """A topic of two partitions: 0 to 9 in batches of five, at times 100 and 200; nothing."""
    topic = feeder.topic(partitions=2)
    feeder.send(topic, *(b"%d" % number for number in range(5)), timestamp=100)
    feeder.send(topic, *(b"%d" % number for number in range(5, 10)), timestamp=200)
    return topic


def test_the_position_moves_as_records_are_handed_over(consume: Make, ten: str) -> None:
    consumer = consume(ten)
    assert consumer.position(at(ten)) == 0
    consumer.poll(5_000, max_records=3)
    assert consumer.position(at(ten)) == 3
    for record in consumer:
        assert consumer.position(at(ten)) == record.offset + 1
        if record.offset == 6:
            break
    assert consumer.position(at(ten)) == 7
    next(consumer.batches())
    assert consumer.position(at(ten)) == 10
    assert consumer.position(at(ten, 1)) == 0


def test_seek_goes_anywhere_within_a_batch_too(consume: Make, ten: str) -> None:
    consumer = consume(ten)
    for offset in (7, 2, 9, 0, 5):
        consumer.seek(at(ten), offset)
        assert consumer.position(at(ten)) == offset
        assert values_of(consumer, 10 - offset) == [b"%d" % number for number in range(offset, 10)]


def test_seeks_that_follow_each_other_leave_nothing_waiting_at_the_node(
    consume: Make, ten: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Some find a fetch for more waiting there, which is answered as the next one takes its place."""
    consumer = consume(ten, fetch_max_wait_ms=60_000)
    for _ in range(10 * FETCHES_PER_CLIENT_MAX):
        consumer.seek(at(ten), 0)
        assert consumer.poll(timeout_ms=5_000)
    assert caplog.messages == []


def test_seek_within_a_loop_takes_effect_with_the_next_record(consume: Make, ten: str) -> None:
    consumer = consume(ten)
    got = []
    for record in consumer:
        got.append(record.offset)
        if record.offset == 2 and got.count(2) < 2:
            consumer.seek(at(ten), 1)
        if record.offset == 4:
            break
    assert got == [0, 1, 2, 1, 2, 3, 4]


def test_seek_to_the_ends(consume: Make, ten: str, feeder: Feeder) -> None:
    consumer = consume(ten)
    consumer.seek_to_end()
    assert consumer.position(at(ten)) == 10
    consumer.seek_to_beginning(at(ten))
    assert consumer.position(at(ten)) == 0
    consumer.seek_to_end(at(ten), timeout_ms=5_000)
    feeder.send(ten, b"new")
    assert values_of(consumer, 1) == [b"new"]


@pytest.mark.parametrize(("reset", "position"), [("earliest", 0), ("latest", 10)])
def test_a_seek_out_of_range_goes_where_the_policy_says(
    consume: Make, ten: str, feeder: Feeder, reset: str, position: int
) -> None:
    consumer = consume(ten, auto_offset_reset=reset)
    consumer.seek(at(ten), 1_000)
    offsets: list[int] = []

    def at_the_end() -> bool:
        offsets.extend(record.offset for records in consumer.poll(20).values() for record in records)
        return consumer.position(at(ten)) == 10

    wait_until(at_the_end, "it is at the end")
    assert offsets == list(range(position, 10))
    assert consumer.metrics()["offset_resets"] == 1


def test_a_seek_out_of_range_without_a_policy_raises_until_the_next_seek(consume: Make, ten: str) -> None:
    consumer = consume(auto_offset_reset="none")
    consumer.assign([at(ten)])
    consumer.seek(at(ten), 1_000)
    for _ in range(2):
        with pytest.raises(
            OffsetOutOfRangeError, match=rf"{ten}-0: offset 1000 .* starts at 0 and ends before 10"
        ):
            consumer.poll(5_000)
    with pytest.raises(OffsetOutOfRangeError):
        next(iter(consumer))
    with pytest.raises(OffsetOutOfRangeError):
        next(consumer.batches())
    consumer.seek(at(ten), 8)
    assert values_of(consumer, 2) == [b"8", b"9"]


def test_without_offset_or_policy_reading_cannot_start_before_a_seek(consume: Make, ten: str) -> None:
    consumer = consume(ten, auto_offset_reset="none")
    with pytest.raises(OffsetOutOfRangeError, match="no offset is stored"):
        consumer.position(at(ten))
    with pytest.raises(OffsetOutOfRangeError, match="no offset is stored"):
        consumer.poll(5_000)
    consumer.seek_to_beginning()
    assert len(values_of(consumer, 10)) == 10


def test_paused_partitions_keep_their_place(consume: Make, ten: str, feeder: Feeder) -> None:
    feeder.send(ten, b"other", partition=1)
    consumer = consume(ten)
    consumer.pause(at(ten))
    assert consumer.paused() == {at(ten)}
    assert values_of(consumer, 1) == [b"other"]
    assert consumer.poll(100) == {}
    assert consumer.position(at(ten)) == 0
    consumer.resume(at(ten))
    assert consumer.paused() == set()
    assert values_of(consumer, 3) == [b"0", b"1", b"2"]
    consumer.pause(at(ten))
    assert consumer.poll(100) == {}
    consumer.resume(at(ten))
    assert values_of(consumer, 7) == [b"%d" % number for number in range(3, 10)]


def test_pausing_within_a_loop_takes_effect_at_once(consume: Make, ten: str) -> None:
    consumer = consume(ten, consumer_timeout_ms=100)
    got: list[int] = []
    while len(got) < 3:  # a loop ends when nothing has come for a while
        for record in consumer:
            got.append(record.offset)
            if record.offset == 2:
                consumer.pause(at(ten))
    assert got == [0, 1, 2]
    assert consumer.position(at(ten)) == 3


def test_ends_and_times_are_looked_up(consume: Make, ten: str) -> None:
    consumer = consume()
    both = [at(ten), at(ten, 1)]
    assert consumer.beginning_offsets(both) == {at(ten): 0, at(ten, 1): 0}
    assert consumer.end_offsets(both) == {at(ten): 10, at(ten, 1): 0}
    times = {at(ten): 150, at(ten, 1): 150}
    assert consumer.offsets_for_times(times) == {at(ten): OffsetAndTimestamp(5, 200), at(ten, 1): None}
    assert consumer.offsets_for_times({at(ten): 201}) == {at(ten): None}
    assert consumer.offsets_for_times({at(ten): 0}) == {at(ten): OffsetAndTimestamp(0, 100)}
    assert consumer.offsets_for_times({}) == consumer.end_offsets([]) == {}


def test_lag_counts_down(consume: Make, ten: str) -> None:
    consumer = consume(ten)
    assert consumer.lag() == {at(ten): 10, at(ten, 1): 0}
    values_of(consumer, 4)
    assert consumer.lag() == {at(ten): 6, at(ten, 1): 0}


def test_assignments_replace_each_other_and_keep_positions(consume: Make, ten: str, feeder: Feeder) -> None:
    other = feeder.topic()
    consumer = consume(ten)
    values_of(consumer, 4)
    consumer.assign([at(ten), at(other), (other, 0)])
    assert consumer.assignment() == {at(ten), at(other)}
    assert consumer.subscription() == set()
    assert consumer.position(at(ten)) == 4
    consumer.subscribe([ten])
    assert consumer.assignment() == {at(ten), at(ten, 1)}
    assert values_of(consumer, 6) == [b"%d" % number for number in range(4, 10)]
    consumer.unsubscribe()
    assert consumer.assignment() == set()
    with pytest.raises(InvalidArgumentError, match="nothing to read: subscribe"):
        consumer.poll()


def test_a_failed_subscription_changes_nothing(consume: Make, ten: str) -> None:
    consumer = consume(ten)
    values_of(consumer, 4)
    with pytest.raises(UnknownTopicError):
        consumer.subscribe([ten, "no-such-topic-at-all"])
    assert consumer.subscription() == {ten}
    assert values_of(consumer, 6) == [b"%d" % number for number in range(4, 10)]


def test_partitions_for_topic(consume: Make, ten: str) -> None:
    assert consume().partitions_for_topic(ten) == {0, 1}


def test_topics_names_all_of_them(consume: Make, ten: str, feeder: Feeder) -> None:
    consumer = consume()
    other = feeder.topic()
    assert {ten, other} <= consumer.topics()


def test_its_repr_says_who_it_is_and_what_it_reads(consume: Make, ten: str, feeder: Feeder) -> None:
    consumer = consume(ten, client_id="reader")
    servers = feeder.cluster.bootstrap_servers
    assert repr(consumer) == f"<Consumer reader of {servers}: 2 partitions assigned>"
    consumer.close()
    assert repr(consumer) == f"<Consumer reader of {servers}: closed>"


def test_a_deleted_topic_is_told_after_its_last_record(consume: Make, feeder: Feeder) -> None:
    topic, other = feeder.topic(), feeder.topic()
    feeder.send(topic, b"last")
    consumer = consume(topic, other)
    assert values_of(consumer, 1) == [b"last"]
    feeder.admin.delete_topic(topic)
    with pytest.raises(UnknownTopicError, match=f"topic '{topic}' was deleted"):
        list(islice(consumer, 1))
    feeder.send(other, b"still here")
    records: list[bytes] = []
    deadline = time.monotonic() + PATIENCE_S
    while not records and time.monotonic() < deadline:
        with suppress(UnknownTopicError):
            records = values_of(consumer, 1)
    assert records == [b"still here"]
    consumer.subscribe(other)
    assert consumer.poll(50) == {}


def test_a_topic_created_anew_is_another_topic(consume: Make, feeder: Feeder) -> None:
    topic = feeder.topic()
    feeder.send(topic, b"old", b"older")
    consumer = consume(topic)
    values_of(consumer, 2)
    feeder.admin.delete_topic(topic)
    feeder.admin.create_topic(topic)
    feeder.send(topic, b"new")
    deadline = time.monotonic() + PATIENCE_S
    says = ""
    while "a new topic of that name exists: subscribe or assign again" not in says:
        assert time.monotonic() < deadline, says
        with pytest.raises(UnknownTopicError, match=f"topic '{topic}' was deleted") as caught:
            consumer.poll(10_000)
        says = str(caught.value)
    consumer.subscribe(topic)
    assert values_of(consumer, 1) == [b"new"]
