"""What does not fit is refused with a typed error that says what would."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailrace.consumer import Consumer
from tailrace.consumer.async_listener import AsyncRebalanceListener
from tailrace.consumer.listener import RebalanceListener
from tailrace.protocol.errors import (
    ClosedError,
    ConnectionFailedError,
    DataFolderError,
    InvalidArgumentError,
    UnknownPartitionError,
    UnknownTopicError,
)

from ..patience import BUSY_S
from .conftest import Feeder, at

Make = Callable[..., Consumer]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"auto_ofset_reset": "latest"}, r"no option 'auto_ofset_reset'; did you mean 'auto_offset_reset'\?"),
        ({"group_id": "a group"}, "group_id is 'a group'; it is 1 to 249 letters, digits"),
        ({"group_instance_id": "one"}, "group_instance_id names a member of a group: give group_id too"),
        ({"group_id": "g", "session_timeout_ms": 999}, "session_timeout_ms is 999; .* from 1000 to"),
        ({"group_id": "g", "max_poll_interval_ms": 0}, "max_poll_interval_ms is 0"),
        ({"partition_assignment_strategy": "sticky"}, "'sticky'; it is one of uniform, range"),
        ({"auto_offset_reset": "newest"}, "'newest'; it is one of earliest, latest, none"),
        ({"enable_auto_commit": "yes"}, "enable_auto_commit is 'yes'; it is True or False"),
        ({"auto_commit_interval_ms": -1}, "auto_commit_interval_ms is -1; it is a whole number from 0"),
        ({"fetch_min_bytes": 1.5}, "fetch_min_bytes is 1.5"),
        ({"fetch_min_bytes": 0}, "fetch_min_bytes is 0; it is a whole number from 1"),
        ({"fetch_max_wait_ms": 0}, "fetch_max_wait_ms is 0; .* from 1 to 60000"),
        ({"fetch_max_wait_ms": 10**9}, "fetch_max_wait_ms is 1000000000; .* to 60000"),
        ({"max_partition_fetch_bytes": 0}, "max_partition_fetch_bytes is 0"),
        ({"max_poll_records": True}, "max_poll_records is True"),
        ({"request_timeout_ms": None}, "request_timeout_ms is None"),
        ({"consumer_timeout_ms": "1"}, "consumer_timeout_ms is '1'; it is a number of milliseconds"),
        ({"value_deserializer": "jsn"}, "value_deserializer='jsn' is not known; did you mean 'json'?"),
        ({"value_deserializer": 5}, "value_deserializer is 5; it is a function, one of 'json', "),
        ({"offset_store": ""}, "offset_store is the path of a folder"),
        ({"offset_store": 5}, "offset_store is the path of a folder"),
        ({"bootstrap_servers": ""}, "bootstrap_servers is empty"),
        ({"bootstrap_servers": "localhost"}, "localhost"),
    ],
)
def test_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        Consumer(**options)


@pytest.mark.parametrize("base", [RebalanceListener, AsyncRebalanceListener])
def test_a_listener_with_names_that_nobody_calls(base: type) -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"Mine\.on_partitions_lost is never called: .* is on_lost here"
    ):
        type("Mine", (base,), {"on_partitions_lost": print})
    type("Both", (base,), {"on_partitions_lost": print, "on_lost": print})


@pytest.mark.parametrize("topics", [(5,), (None,), ("",), (["nested"],), ("payments", "127.0.0.1:7070")])
def test_topics_that_are_none(topics: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match="is no topic"):
        Consumer(*topics)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda c, t: c.poll(-1), "timeout_ms is -1; it is a number of milliseconds, 0 or more"),
        (lambda c, t: c.poll("1"), "timeout_ms is '1'"),
        (lambda c, t: c.poll(float("nan")), "timeout_ms is nan"),
        (lambda c, t: c.poll(0, 0), "max_records is 0"),
        (lambda c, t: c.poll(0, "5"), "max_records is '5'"),
        (
            lambda c, t: c.poll(0, update_offsets=False),
            r"poll\(\) has no argument 'update_offsets': leave it out",
        ),
        (lambda c, t: c.poll(timeout=1.0), r"no argument 'timeout': give timeout_ms, in milliseconds"),
        (lambda c, t: c.poll(0, max_record=5), r"no argument 'max_record': see help\(Consumer.poll\)"),
        (lambda c, t: c.subscribe(pattern="t.*["), "is no regular expression: unterminated"),
        (lambda c, t: c.subscribe([t], pattern="t.*"), "either topics or a pattern"),
        (lambda c, t: c.subscribe([t], listener=c), "is no listener: give a tailrace.RebalanceListener"),
        (lambda c, t: c.batches(-5), "timeout_ms is -5"),
        (lambda c, t: c.subscribe(), "None is no topic: give a name, or a list of names"),
        (lambda c, t: c.subscribe(7), "7 is no topic"),
        (lambda c, t: c.subscribe([7]), "7 is no topic"),
        (lambda c, t: c.assign(t), "is no list of partitions"),
        (lambda c, t: c.assign(at(t)), "is no list of partitions"),
        (lambda c, t: c.assign([t]), "is no partition: give TopicPartition"),
        (lambda c, t: c.assign([(t, -1)]), "partition is -1"),
        (lambda c, t: c.assign([(t, "0")]), "partition is '0'"),
        (lambda c, t: c.assign([(b"t", 0)]), "is no partition"),
        (lambda c, t: c.seek(at(t), -1), r"offset is -1; .*seek_to_beginning\(\) and seek_to_end\(\)"),
        (lambda c, t: c.seek(at(t), 2**63), "offset is 9223372036854775808"),
        (lambda c, t: c.seek(at(t), 1.0), "offset is 1.0"),
        (lambda c, t: c.seek(at(t, 1), 0), r"-1 is not assigned to this consumer: assigned are topic-\d+-0$"),
        (lambda c, t: c.position(("other", 0)), "other-0 is not assigned"),
        (lambda c, t: c.pause(at("other")), "other-0 is not assigned"),
        (lambda c, t: c.seek_to_end(at("other")), "other-0 is not assigned"),
        (lambda c, t: c.offsets_for_times({at(t): -5}), "timestamp is -5"),
        (lambda c, t: c.offsets_for_times({t: 5}), "is no partition"),
        (lambda c, t: c.partitions_for_topic(5), "5 is no topic"),
    ],
)
def test_arguments(consume: Make, feeder: Feeder, call: Callable[[Consumer, str], object], says: str) -> None:
    topic = feeder.topic()
    consumer = consume(topic)
    with pytest.raises(InvalidArgumentError, match=says):
        call(consumer, topic)
    feeder.send(topic, b"still works")
    assert consumer.poll(10_000)


def test_unknown_topics_fail_at_once_with_similar_names(consume: Make, feeder: Feeder) -> None:
    topic = feeder.topic()
    calls: list[Callable[[str], object]] = [
        lambda name: consume(name),
        lambda name: consume().subscribe(name),
        lambda name: consume().assign([at(name)]),
        lambda name: consume().partitions_for_topic(name),
        lambda name: consume().end_offsets([at(name)]),
    ]
    for call in calls:
        started = time.monotonic()
        with pytest.raises(UnknownTopicError, match=f"'x{topic}' does not exist; did you mean .*'{topic}'"):
            call(f"x{topic}")
        assert time.monotonic() - started < BUSY_S


def test_unknown_partitions(consume: Make, feeder: Feeder) -> None:
    topic = feeder.topic(partitions=2)
    for call in (consume().assign, consume().beginning_offsets):
        with pytest.raises(
            UnknownPartitionError, match=f"topic '{topic}' has 2 partitions, so there is no 2"
        ):
            call([at(topic, 2)])


def test_a_consumer_that_reads_nothing_says_so(consume: Make) -> None:
    consumer = consume()
    for ask in (consumer.poll, lambda: next(iter(consumer)), lambda: next(consumer.batches())):
        with pytest.raises(InvalidArgumentError, match=r"nothing to read: subscribe\(\) or assign\(\) first"):
            ask()


def test_a_dead_address_is_named_with_its_cause_within_the_time_out() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ConnectionFailedError, match=f"{address}: connection refused"):
            Consumer("orders", bootstrap_servers=address, request_timeout_ms=300)
        assert 0.3 <= time.monotonic() - started < 0.3 + BUSY_S


def test_a_closed_consumer_says_so(consume: Make, feeder: Feeder, tmp_path: Path) -> None:
    topic = feeder.topic()
    consumer = consume(topic, offset_store=tmp_path)
    loop, batches = iter(consumer), consumer.batches()
    consumer.close()
    consumer.close()
    calls: list[Callable[[], object]] = [
        consumer.poll, lambda: next(loop), lambda: next(batches), lambda: next(iter(consumer)),
        lambda: consumer.subscribe(topic), lambda: consumer.assign([at(topic)]), consumer.unsubscribe,
        lambda: consumer.seek(at(topic), 0), consumer.seek_to_beginning, consumer.seek_to_end,
        lambda: consumer.position(at(topic)), lambda: consumer.committed(at(topic)), consumer.commit,
        lambda: consumer.commit({at(topic): 1}), lambda: consumer.pause(at(topic)),
        lambda: consumer.resume(at(topic)), lambda: consumer.beginning_offsets([at(topic)]),
        lambda: consumer.end_offsets([at(topic)]), lambda: consumer.offsets_for_times({at(topic): 1}),
        consumer.lag, lambda: consumer.partitions_for_topic(topic), consumer.metrics, consumer.topics,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ClosedError, match=r"consumer-\d+-\d+ is closed"):
            call()


def test_an_offset_store_that_cannot_be_made(consume: Make, feeder: Feeder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(DataFolderError, match=r"offset_store folder .*file: "):
        consume(feeder.topic(), offset_store=tmp_path / "file")


def test_a_failed_constructor_leaves_no_lock(consume: Make, feeder: Feeder, tmp_path: Path) -> None:
    topic = feeder.topic()
    with pytest.raises(UnknownTopicError):
        consume(topic, "no-such-topic-at-all", offset_store=tmp_path)
    assert consume(topic, offset_store=tmp_path).assignment() == {at(topic)}
