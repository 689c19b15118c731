"""`on_error`: what cannot be handed over is raised, skipped, or written as a dead letter and then passed."""

import json
import logging
import struct
from random import Random
from typing import Any

import pytest

from tailrace.consumer import Consumer
from tailrace.protocol.batch import COLUMNS_AT, with_producer
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import (
    BatchTooLargeError,
    CorruptBatchError,
    InvalidArgumentError,
    SerializationError,
    UnknownTopicError,
)
from tailrace.protocol.limits import RECORD_BYTES_MAX
from tailrace.protocol.parts import Parts
from tailrace.protocol.record import Record, TopicPartition

from .conftest import Feeder


def reader(feeder: Feeder, topic: str, on_error: str, **options: Any) -> Consumer:
    settings = {"auto_offset_reset": "earliest", "consumer_timeout_ms": 10_000, "value_deserializer": "json"}
    return Consumer(
        topic,
        bootstrap_servers=feeder.cluster.bootstrap_servers,
        on_error=on_error,
        **{**settings, **options},
    )


def letters(feeder: Feeder, topic: str, count: int) -> list[Record[Any, Any]]:
    """The first so many of a topic, in its order; there are no more."""
    with Consumer(
        topic, bootstrap_servers=feeder.cluster.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        found: list[Record[Any, Any]] = []
        while len(found) < count:
            for records in consumer.poll(timeout_ms=10_000).values():
                found += records
        ends = consumer.end_offsets(consumer.assignment())
    assert sum(ends.values()) == len(found) == count
    return found


def malformed() -> bytes:
    """A batch of three whose directory is nonsense, under a checksum that holds."""
    batch = bytearray(encode([b"1", b"2", b"3"], timestamps=1_000))
    struct.pack_into("<H", batch, COLUMNS_AT, 77)
    return with_producer(Parts([bytes(batch)]), -1, -1, -1).joined()


def by_loop(consumer: Consumer, count: int) -> list[Any]:
    return [record.value for _, record in zip(range(count), consumer, strict=False)]


def by_poll(consumer: Consumer, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        for records in consumer.poll(timeout_ms=10_000, max_records=2).values():
            found += [record.value for record in records]
    return found


def by_batches(consumer: Consumer, count: int) -> list[Any]:
    found: list[Any] = []
    batches = consumer.batches(timeout_ms=10_000)
    while len(found) < count:
        batch = next(batches)
        assert [json.loads(value) for value in batch.to_arrow()["value"].to_pylist()] == batch.values
        assert [record.value for record in batch.records()] == batch.values
        assert len(batch.offsets) == len(batch.keys) == len(batch) == len(batch.values)
        found += batch.values
    return found


WAYS = {"loop": by_loop, "poll": by_poll, "batches": by_batches}
BAD = (b"", b"{", b"\xff", b"nul")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("on_error", ["skip", "dlq"])
def test_what_does_not_deserialize_is_left_out(feeder: Feeder, way: str, on_error: str) -> None:
    topic, dead = feeder.topic(), feeder.topic()
    good = 0
    bad: list[tuple[int, bytes]] = []
    random = Random(len(way))
    offset = 0
    for _ in range(8):
        values = []
        for _ in range(random.randint(1, 9)):
            if random.random() < 0.4:
                values.append(random.choice(BAD))
                bad.append((offset, values[-1]))
            else:
                values.append(str(good).encode())
                good += 1
            offset += 1
        feeder.send(topic, *values)
    feeder.send(topic, str(good).encode())
    with reader(feeder, topic, f"dlq:{dead}" if on_error == "dlq" else "skip") as consumer:
        assert WAYS[way](consumer, good + 1) == list(range(good + 1))
        assert consumer.position(TopicPartition(topic, 0)) == offset + 1
        assert consumer.metrics()["records_left_out"] == len(bad)
    written = letters(feeder, dead, len(bad) if on_error == "dlq" else 0)
    for (at, value), letter in zip(bad, written, strict=False):
        headers = dict(letter.headers)
        assert letter.value == value
        assert headers["tailrace.topic"] == topic.encode()
        assert headers["tailrace.partition"] == b"0"
        assert headers["tailrace.offset"] == str(at).encode()
        assert headers["tailrace.timestamp"] == b"1000"
        assert headers["tailrace.error"].startswith(
            f"{topic}-0: the value of the record at offset {at} does not deserialize: ".encode()
        )


class SilentError(Exception):
    def __str__(self) -> str:
        raise AttributeError("mesage")


def refuse(data: bytes) -> Any:
    if data == b"bad":
        raise SilentError
    return data


@pytest.mark.parametrize("on_error", ["skip", "raise"])
def test_an_error_that_cannot_be_told_is_as_others(feeder: Feeder, on_error: str) -> None:
    topic = feeder.topic()
    feeder.send(topic, b"bad", b"good")
    with Consumer(
        topic,
        bootstrap_servers=feeder.cluster.bootstrap_servers,
        auto_offset_reset="earliest",
        value_deserializer=refuse,
        on_error=on_error,
    ) as consumer:
        if on_error == "raise":
            with pytest.raises(SerializationError, match=r"SilentError: \(its text cannot be made"):
                next(iter(consumer))
        else:
            assert next(iter(consumer)).value == b"good"


def test_a_letter_has_key_and_headers_of_its_record(feeder: Feeder) -> None:
    topic, dead = feeder.topic(partitions=3), feeder.topic(partitions=2)
    feeder.send(
        topic, b"1", b"2", keys=[b"\xff", b"k"], headers=[[("h", b"v"), ("n", None)], []], partition=2
    )
    with reader(feeder, topic, f"dlq:{dead}", key_deserializer="str") as consumer:
        assert by_loop(consumer, 1) == [2]
    (letter,) = letters(feeder, dead, 1)
    assert (letter.key, letter.value, letter.partition) == (b"\xff", b"1", 0)
    assert tuple(letter.headers[:2]) == (("h", b"v"), ("n", None))
    assert b"the key of the record at offset 0" in dict(letter.headers)["tailrace.error"]


@pytest.mark.parametrize("plain", [True, False])
def test_a_malformed_batch_whose_checksum_holds(
    feeder: Feeder, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    topic, dead = feeder.topic(), feeder.topic()
    feeder.send(topic, b"0")
    feeder.send_batch(topic, malformed())
    feeder.send(topic, b"4")
    options = {"value_deserializer": None} if plain else {}
    expected = [b"0", b"4"] if plain else [0, 4]
    with reader(feeder, topic, "raise", **options) as consumer:
        assert by_loop(consumer, 1) == expected[:1]
        with pytest.raises(CorruptBatchError, match="seek to 4 to go on without it"):
            by_loop(consumer, 1)
    with reader(feeder, topic, f"dlq:{dead}", **options) as consumer:
        assert by_loop(consumer, 2) == expected
        assert consumer.metrics()["records_left_out"] == 3
    (letter,) = letters(feeder, dead, 1)
    headers = dict(letter.headers)
    assert (headers["tailrace.offset"], headers["tailrace.records"]) == (b"1", b"3")
    assert headers["tailrace.error"].startswith(
        f"{topic}-0: the batch of 3 records at offset 1 is malf".encode()
    )
    assert letter.value[COLUMNS_AT:] == malformed()[COLUMNS_AT:]
    with caplog.at_level(logging.WARNING), reader(feeder, topic, "skip", **options) as consumer:
        assert by_loop(consumer, 2) == expected
    assert "skipped" in caplog.text


def test_dead_letters_that_do_not_deserialize_are_raised(feeder: Feeder) -> None:
    dead = feeder.topic()
    feeder.send(dead, b"{")
    with reader(feeder, dead, f"dlq:{dead}") as consumer, pytest.raises(SerializationError):
        by_loop(consumer, 1)
    letters(feeder, dead, 1)


def test_nothing_is_passed_before_its_letter_is_written(
    feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, dead = feeder.topic(), feeder.topic()
    feeder.send(topic, b"0", b"{", b"2")
    place = TopicPartition(topic, 0)
    with reader(feeder, topic, f"dlq:{dead}") as consumer:
        with monkeypatch.context() as broken:

            def fail(*_: object) -> None:
                raise BatchTooLargeError("too large for a letter")

            broken.setattr("tailrace.consumer.asking.bury", fail)
            for _ in range(2):
                with pytest.raises(BatchTooLargeError):
                    by_loop(consumer, 1)
            assert consumer.position(place) == 0
        assert by_loop(consumer, 2) == [0, 2]
    letters(feeder, dead, 1)


def test_a_seek_goes_round_a_letter_that_cannot_be_written(feeder: Feeder) -> None:
    topic, dead = feeder.topic(), feeder.topic()
    feeder.send(topic, b"{" + bytes(RECORD_BYTES_MAX - 1))
    feeder.send(topic, b"1")
    with reader(feeder, topic, f"dlq:{dead}", max_partition_fetch_bytes=2 * RECORD_BYTES_MAX) as consumer:
        with pytest.raises(BatchTooLargeError):
            by_loop(consumer, 1)
        consumer.seek(TopicPartition(topic, 0), 1)
        assert by_loop(consumer, 1) == [1]


@pytest.mark.parametrize("on_error", ["ignore", "dlq:", "dlq", None, 7])
def test_options_that_do_not_fit(feeder: Feeder, on_error: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="'raise', 'skip' or 'dlq:<topic>'"):
        reader(feeder, "any", on_error)


def test_a_topic_for_dead_letters_that_is_not_there(feeder: Feeder) -> None:
    with pytest.raises(UnknownTopicError, match="missing"):
        reader(feeder, feeder.topic(), "dlq:missing")
