"""Reading from a real node: by record, by poll, by batch, and all of them mixed."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import pyarrow
import pytest

from tailrace import Record, TopicPartition
from tailrace.consumer import ColumnBatch, Consumer
from tailrace.protocol.compression import Compression

from ..patience import BUSY_S, PATIENCE_S, wait_until
from .conftest import Feeder, at, values_of

Make = Callable[..., Consumer]


@pytest.fixture
def numbers(feeder: Feeder) -> str:
    """A topic of two partitions: 0 to 9 in batches of 4, 4 and 2, and 10 to 12."""
    topic = feeder.topic(partitions=2)
    for batch in (range(4), range(4, 8), range(8, 10)):
        feeder.send_numbers(topic, batch)
    feeder.send_numbers(topic, range(10, 13), partition=1)
    return topic


def by_partition(consumer: Consumer, topic: str, wanted: int) -> list[list[int]]:
    """What each of two partitions gave."""
    found: list[list[int]] = [[], []]
    while sum(map(len, found)) < wanted:
        for name, records in consumer.poll(10_000).items():
            assert name.topic == topic
            found[name.partition] += [int(record.value) for record in records]
    return found


def test_poll_gives_all_partitions_in_order(consume: Make, numbers: str) -> None:
    consumer = consume(numbers)
    assert by_partition(consumer, numbers, 13) == [list(range(10)), list(range(10, 13))]
    assert consumer.poll(20) == {}
    assert consumer.poll() == {}


def test_iteration_gives_records(consume: Make, feeder: Feeder) -> None:
    topic = feeder.topic()
    feeder.send(
        topic, b"v0", None, keys=[b"k0", None], headers=[[("h", b"x"), ("n", None)], []], timestamp=77
    )
    first, second = islice(consume(topic), 2)
    assert first == Record(topic, 0, 0, 77, b"k0", b"v0", (("h", b"x"), ("n", None)))
    assert second == Record(topic, 0, 1, 77, None, None, ())


def test_batches_are_columns(consume: Make, feeder: Feeder) -> None:
    topic = feeder.topic()
    feeder.send(topic, b"a", b"b", keys=[b"k", None], timestamp=5)
    feeder.send(topic, b"c", compression=Compression.ZSTD)
    first, second = islice(consume(topic).batches(), 2)
    assert isinstance(first, ColumnBatch)
    assert (first.topic, first.partition, len(first)) == (topic, 0, 2)
    assert (first.values, first.keys, first.timestamps) == ([b"a", b"b"], [b"k", None], [5, 5])
    assert list(first.offsets) == [0, 1]
    assert first.records()[1] == Record(topic, 0, 1, 5, None, b"b", ())
    assert second.values == [b"c"]
    assert isinstance(first.to_arrow(), pyarrow.RecordBatch)
    assert first.to_arrow().column("value").to_pylist() == [b"a", b"b"]


def test_batches_end_when_nothing_comes(consume: Make, numbers: str) -> None:
    consumer = consume(numbers)
    assert len(values_of(consumer, 13)) == 13
    started = time.monotonic()
    assert list(consumer.batches(timeout_ms=200)) == []
    assert 0.2 <= time.monotonic() - started < 0.2 + BUSY_S


def test_batches_end_after_consumer_timeout_unless_they_have_their_own(consume: Make, numbers: str) -> None:
    consumer = consume(numbers, consumer_timeout_ms=200)
    assert sum(len(batch) for batch in consumer.batches()) == 13
    hasty = consume(numbers, consumer_timeout_ms=600_000)
    assert len(values_of(hasty, 13)) == 13
    assert list(hasty.batches(timeout_ms=0)) == []


def test_iteration_ends_after_consumer_timeout_and_can_go_on(
    consume: Make, numbers: str, feeder: Feeder
) -> None:
    consumer = consume(numbers, consumer_timeout_ms=200)
    assert sorted(int(value) for value in values_of(consumer, 13)) == list(range(13))
    for number in (13, 14):
        assert list(consumer) == []
        feeder.send(numbers, b"%d" % number)
        assert values_of(consumer, 1) == [b"%d" % number]


def test_the_ways_of_reading_can_be_mixed(consume: Make, feeder: Feeder) -> None:
    topic = feeder.topic()
    for start in range(0, 100, 20):
        feeder.send_numbers(topic, range(start, start + 20))
    consumer = consume(topic)
    got: list[int] = []
    for record in consumer:
        got.append(int(record.value))
        if len(got) == 5:
            got += [int(value) for value in values_of(consumer, 3)]
        if len(got) == 12:
            got += map(int, next(consumer.batches()).values)
        if len(got) > 40:
            break
    got += [int(value) for value in values_of(consumer, 100 - len(got))]
    assert got == list(range(100))


def test_polls_are_bounded(consume: Make, numbers: str) -> None:
    consumer = consume(numbers, max_poll_records=3)
    assert sum(map(len, consumer.poll(5_000).values())) <= 3
    assert sum(map(len, consumer.poll(5_000, max_records=1).values())) == 1


def test_deserializers_are_applied(consume: Make, numbers: str) -> None:
    consumer = consume(numbers, value_deserializer=int)
    assert sorted(record.value for record in islice(consumer, 13)) == list(range(13))
    consumer.seek_to_beginning()
    batches = islice(consumer.batches(), 4)
    assert sorted(value for batch in batches for value in batch.values) == list(range(13))


@pytest.mark.parametrize("by", ["subscribe", "assign", "seek_to_end"])
def test_what_is_sent_after_subscribe_returned_is_not_missed(consume: Make, feeder: Feeder, by: str) -> None:
    topic = feeder.topic()
    feeder.send(topic, b"before")
    for _ in range(20):
        consumer = consume(auto_offset_reset="earliest" if by == "seek_to_end" else "latest")
        if by == "assign":
            consumer.assign([at(topic)])
        else:
            consumer.subscribe(topic)
        if by == "seek_to_end":
            consumer.seek_to_end()
        feeder.send(topic, b"after")
        assert values_of(consumer, 1) == [b"after"]
        consumer.close()


def test_a_waiting_consumer_gets_a_record_at_once(consume: Make, feeder: Feeder) -> None:
    """Also when another partition of the node fills the buffer, and so leaves the fetch that waits."""
    topic = feeder.topic(partitions=2)
    consumer = consume(topic, max_partition_fetch_bytes=1_000, fetch_max_wait_ms=30_000)
    for number in range(20):
        feeder.send(topic, b"%d" % number * 2_000, partition=number % 2)
        started = time.monotonic()
        assert len(values_of(consumer, 1)) == 1
        assert time.monotonic() - started < BUSY_S


def test_polls_that_do_not_wait_get_what_comes_after_one_that_did(consume: Make, feeder: Feeder) -> None:
    """The thread that has waited has read the reply itself: nobody else knows that more can be asked for."""
    topic = feeder.topic()
    consumer = consume(topic)
    late_s = 0.0
    for _ in range(30):
        sender = threading.Timer(0.01, feeder.send, [topic, b"waited for"])
        sender.start()
        assert values_of(consumer, 1) == [b"waited for"]
        sender.join()
        feeder.send(topic, b"there")
        sent_at = time.monotonic()
        wait_until(lambda: consumer.poll(timeout_ms=0), "the record comes")
        late_s += time.monotonic() - sent_at
    assert late_s < BUSY_S  # nearly a second each otherwise


def test_a_busy_partition_is_not_held_up_by_a_quiet_one(consume: Make, feeder: Feeder) -> None:
    topic = feeder.topic(partitions=2)
    for _ in range(50):
        feeder.send(topic, *[b"x" * 500] * 4)
    consumer = consume(topic, max_partition_fetch_bytes=1_000, fetch_max_wait_ms=30_000)
    started = time.monotonic()
    assert len(values_of(consumer, 200)) == 200
    assert time.monotonic() - started < BUSY_S


def test_large_batches_come_whole_whatever_the_bounds(consume: Make, feeder: Feeder) -> None:
    topic = feeder.topic()
    feeder.send(topic, b"x" * 3_000_000)
    feeder.send(topic, b"y" * 3_000_000)
    consumer = consume(topic, max_partition_fetch_bytes=1, fetch_max_bytes=1)
    assert [len(value) for value in values_of(consumer, 2)] == [3_000_000, 3_000_000]


@pytest.mark.parametrize("way", ["poll", "iterate", "batches"])
def test_wakeup_ends_the_wait_and_reading_goes_on_after_it(consume: Make, feeder: Feeder, way: str) -> None:
    topic = feeder.topic()
    consumer = consume(topic)
    asks: dict[str, Callable[[], object]] = {
        "poll": lambda: consumer.poll(None),
        "iterate": lambda: list(consumer),
        "batches": lambda: list(consumer.batches()),
    }
    timer = threading.Timer(0.1, consumer.wakeup)
    timer.start()
    assert not asks[way]()
    timer.join()
    feeder.send(topic, b"later")
    assert values_of(consumer, 1) == [b"later"]


@pytest.mark.parametrize("options", [{}, {"enable_auto_commit": False}, {"group_id": "woken"}])
@pytest.mark.parametrize("way", ["poll", "iterate", "batches"])
def test_wakeup_ends_a_loop_that_always_finds_something(
    consume: Make, numbers: str, way: str, options: dict[str, object]
) -> None:
    consumer = consume(numbers, **options)
    loops: dict[str, Callable[[], Iterable[Sequence[bytes]]]] = {
        "poll": lambda: (
            [record.value for records in polled.values() for record in records]
            for polled in iter(lambda: consumer.poll(None, max_records=2), {})
        ),
        "iterate": lambda: ([record.value] for record in consumer),
        "batches": lambda: (batch.values for batch in consumer.batches()),
    }
    seen: list[bytes] = []
    for values in loops[way]():
        assert not seen, "it goes on"
        seen += values
        consumer.wakeup()
        wait_until(lambda: consumer._session._task._woken, "the consumer knows")
    seen += values_of(consumer, 13 - len(seen))
    assert sorted(map(int, seen)) == list(range(13))


def test_a_wakeup_that_comes_early_ends_the_next_wait(consume: Make, feeder: Feeder) -> None:
    consumer = consume(feeder.topic())
    consumer.wakeup()
    started = time.monotonic()
    assert consumer.poll(30_000) == {}
    assert time.monotonic() - started < BUSY_S


def test_metrics_count(consume: Make, numbers: str) -> None:
    consumer = consume(numbers)
    values_of(consumer, 13)
    metrics = consumer.metrics()
    assert metrics["records_handed_over"] == 13
    assert metrics["bytes_fetched"] > 200
    assert metrics["fetches"] > 0
    assert metrics["bytes_buffered"] == 0
    assert metrics["partitions"][f"{numbers}-0"] == {
        "position": 10, "high_watermark": 10, "lag": 0, "bytes_buffered": 0, "paused": False,
    }  # fmt: skip


def test_several_topics(consume: Make, feeder: Feeder) -> None:
    one, two = feeder.topic(), feeder.topic()
    feeder.send(one, b"1")
    feeder.send(two, b"2")
    consumer = consume(one, two)
    assert consumer.subscription() == {one, two}
    assert consumer.assignment() == {TopicPartition(one, 0), TopicPartition(two, 0)}
    assert sorted(values_of(consumer, 2)) == [b"1", b"2"]


def test_a_pattern_matches_whole_names_and_takes_in_new_topics(
    consume: Callable[..., Consumer], feeder: Feeder
) -> None:
    first = feeder.topic()
    consumer = consume(auto_offset_reset="latest")
    consumer.subscribe(pattern=f"{first}|{first}-more-.+")
    assert consumer.subscription() == {first}
    feeder.admin.create_topic(f"{first}-more-1", partitions=1)
    feeder.admin.create_topic(f"x-{first}-more-1", partitions=1)
    feeder.send(f"{first}-more-1", b"new")
    assert values_of(consumer, 1) == [b"new"]
    assert consumer.subscription() == {first, f"{first}-more-1"}
    feeder.admin.delete_topic(f"{first}-more-1")
    deadline = time.monotonic() + PATIENCE_S
    while consumer.subscription() != {first}:
        assert time.monotonic() < deadline
        consumer.poll(10)


def test_a_pattern_that_matches_nothing_yet_waits(consume: Callable[..., Consumer], feeder: Feeder) -> None:
    consumer = consume()
    consumer.subscribe(pattern=r"later-\d+")
    assert consumer.poll(0) == {}
    feeder.admin.create_topic("later-1", partitions=1)
    feeder.send("later-1", b"here")
    assert values_of(consumer, 1) == [b"here"]
