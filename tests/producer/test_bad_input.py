"""What does not fit is refused at once, with what would fit."""

import time
from datetime import datetime
from typing import Any

import pytest

from tailrace.producer import Producer
from tailrace.protocol.errors import (
    BatchTooLargeError,
    ClosedError,
    ConnectionFailedError,
    InvalidArgumentError,
    SerializationError,
    UnknownPartitionError,
    UnknownTopicError,
)
from tailrace.protocol.limits import MIB

from ..conftest import MakeTopic
from ..patience import BUSY_S, PATIENCE_S
from .conftest import MakeProducer, Read


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linger": 5}, "did you mean 'linger_ms'"),
        ({"batch_bytes": 5}, "Producer has no option 'batch_bytes'"),
        ({"acks": 2}, "acks is 2; it is 'all'"),
        ({"acks": True}, "acks is True"),
        ({"acks": 1, "enable_idempotence": True}, "does not go with enable_idempotence"),
        ({"acks": 0, "enable_idempotence": True}, "does not go with enable_idempotence"),
        ({"enable_idempotence": "yes"}, "True, False or None"),
        ({"linger_ms": -1}, "linger_ms is -1"),
        ({"linger_ms": "5"}, "linger_ms is '5'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 16 * MIB}, "batch_size is"),
        ({"buffer_memory": 1_000}, "buffer_memory is 1000"),
        ({"max_block_ms": 1.5}, "max_block_ms is 1.5"),
        ({"max_request_size": 9 * MIB}, "max_request_size"),
        ({"delivery_timeout_ms": 0}, "delivery_timeout_ms is 0"),
        ({"request_timeout_ms": None}, "request_timeout_ms is None"),
        ({"compression_type": "brotli"}, "brotli"),
        ({"partitioner": "crc"}, "did you mean 'crc32'"),
        ({"value_serializer": "jsn"}, "value_serializer='jsn' is not known; did you mean 'json'?"),
        ({"client_id": 5}, "client_id is 5"),
        ({"bootstrap_servers": "no port"}, "no port"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Producer(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": "a\ud800"}, r"value is str 'a.ud800', which UTF-8 cannot hold"),
        ({"value": 5}, "value is int 5.*encode it.*value_serializer="),
        ({"value": b"v", "key": 0}, "key is int 0.*key_serializer="),
        ({"value": b"v", "headers": {"a": b"b"}}, "headers are a list"),
        ({"value": b"v", "headers": [("a", "b")]}, r"headers\[0\] has str 'b' for its value"),
        ({"value": b"v", "headers": [(b"a", b"b")]}, r"headers\[0\] has bytes b'a' for its name"),
        ({"value": b"v", "headers": [("\ud800", b"b")]}, "for its name; it is a str in UTF-8"),
        ({"value": b"v", "headers": ["abc"]}, r"headers\[0\] is str 'abc'"),
        ({"value": b"v", "headers": 5}, "headers is int 5"),
        ({"value": b"v", "headers": [("a", b"b")] * 1_001}, "1001 headers"),
        ({"value": b"v", "partition": -1}, "partition is -1"),
        ({"value": b"v", "partition": "0"}, "partition is '0'"),
        ({"value": b"v", "partition": True}, "partition is True"),
        ({"value": b"v", "timestamp_ms": -1}, "timestamp_ms is -1"),
        ({"value": b"v", "timestamp_ms": 1.5}, "timestamp_ms is 1.5"),
        ({"value": b"v", "timestamp_ms": 2**63}, "timestamp_ms is"),
        (
            {"value": b"v", "timestamp_ms": datetime(2020, 1, 1)},
            r"whole number.*: int\(when.timestamp\(\) \* 1000\)",
        ),
        ({"topic": 5}, "topic is int 5"),
        ({"topic": ["t"]}, "topic is list"),
        ({"topic": None}, "topic is NoneType"),
    ],
)
def test_send(producer: MakeProducer, topic: MakeTopic, arguments: dict[str, Any], message: str) -> None:
    writer = producer()
    with pytest.raises(InvalidArgumentError, match=message):
        writer.send(**({"topic": topic()} | arguments))
    assert writer.metrics()["buffer_used_bytes"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": "abc"}, "values is str 'abc'"),
        ({"values": {"a": 1}}, "values is dict {'a': 1}"),
        ({"values": [b"v"], "keys": {b"k"}}, "keys is set {b'k'}"),
        ({"values": b"abc"}, "values is bytes"),
        ({"values": 5}, "values is int 5"),
        ({"values": [b"a", 5]}, r"values\[1\] is int 5.*value_serializer="),
        ({"values": ["a", "\udcff"]}, r"values\[1\] is str.*which UTF-8 cannot hold"),
        ({"values": [b"a", b"b"], "keys": [b"a", 1]}, r"keys\[1\] is int 1"),
        ({"values": [b"a", b"b"], "keys": [b"a"]}, "1 keys for 2 values"),
        ({"values": [b"a"], "headers": []}, "0 headers for 1 values"),
        ({"values": [b"a"], "headers": [[("a", 1)]]}, r"headers\[0\]\[0\] has int 1"),
        ({"values": [b"a"], "timestamps_ms": [1, 2]}, "2 timestamps_ms for 1 values"),
        ({"values": [b"a", b"b"], "timestamps_ms": [1, -2]}, r"timestamps_ms\[1\] is -2"),
        ({"values": [b"a", b"b"], "timestamps_ms": [1, "x"]}, r"timestamps_ms\[1\] is 'x'"),
        ({"values": [b"a"], "timestamps_ms": 1.5}, "timestamps_ms is 1.5; it is a whole number"),
        ({"values": [b"a"], "timestamps_ms": datetime(2020, 1, 1)}, r"is datetime.*int\(when.timestamp"),
        (
            {"values": [b"a"], "timestamps_ms": [datetime(2020, 1, 1)]},
            r"\[0\] is datetime.*int\(when.timestamp",
        ),
        ({"values": [b"a"], "partition": 1.0}, "partition is 1.0"),
    ],
)
def test_send_many(producer: MakeProducer, topic: MakeTopic, arguments: dict[str, Any], message: str) -> None:
    writer = producer()
    with pytest.raises(InvalidArgumentError, match=message):
        writer.send_many(topic(), **arguments)
    assert writer.metrics()["buffer_used_bytes"] == 0


def test_bytes_that_can_change_are_copied(producer: MakeProducer, topic: MakeTopic, read: Read) -> None:
    name = topic()
    writer = producer(linger_ms=1_000)
    buffer = bytearray(b"before")
    writer.send(name, buffer, key=memoryview(buffer))
    writer.send_many(name, [buffer], [memoryview(buffer)])
    buffer[:] = b"after!"
    writer.flush()
    assert [(record.key, record.value) for record in read(name)[0]] == [(b"before", b"before")] * 2


def test_partitions_that_are_not_there(producer: MakeProducer, topic: MakeTopic) -> None:
    name = topic(2)
    writer = producer()
    with pytest.raises(UnknownPartitionError, match="has no partition 2; it has 0 to 1"):
        writer.send(name, b"x", partition=2)
    with pytest.raises(UnknownPartitionError, match="has no partition 7"):
        writer.send_many(name, [b"x"], partition=7)
    assert writer.metrics()["buffer_used_bytes"] == 0


def test_an_unknown_topic_is_named_at_once(producer: MakeProducer, topic: MakeTopic) -> None:
    name = topic()
    writer = producer()
    started = time.monotonic()
    with pytest.raises(UnknownTopicError, match=name):
        writer.send(name + "x", b"v")
    with pytest.raises(UnknownTopicError, match=name):
        writer.send_many(name + "x", [b"v"])
    with pytest.raises(UnknownTopicError, match=name):
        writer.partitions_for(name + "x")
    assert time.monotonic() - started < BUSY_S


def test_oversize_records_are_refused_at_once(producer: MakeProducer, topic: MakeTopic, read: Read) -> None:
    name = topic()
    writer = producer(max_request_size=1_000)
    with pytest.raises(BatchTooLargeError, match="a record of 1001 bytes; at most 1000"):
        writer.send(name, b"x" * 1_000, b"k")
    with pytest.raises(BatchTooLargeError, match="1001 bytes"):
        writer.send_many(name, [b"small", b"x" * 1_001])
    with pytest.raises(BatchTooLargeError):
        writer.send(name, b"x" * 990, headers=[("name", b"value")])
    writer.send(name, b"x" * 999, b"k").result(PATIENCE_S)
    assert len(read(name)[0]) == 1


def test_the_largest_record_is_stored(producer: MakeProducer, topic: MakeTopic, read: Read) -> None:
    name = topic()
    writer = producer()
    writer.send(name, b"small")
    writer.send(name, b"x" * (8 * MIB - 1), b"k")
    writer.send_many(name, [b"y" * 8 * MIB, b"small"])
    writer.flush()
    assert [len(record.value) for record in read(name)[0]] == [5, 8 * MIB - 1, 8 * MIB, 5]


def test_what_a_serializer_raises_or_gives(producer: MakeProducer, topic: MakeTopic) -> None:
    name = topic()
    writer = producer(value_serializer=str.encode, key_serializer=lambda key: key)
    with pytest.raises(
        SerializationError, match=r"value_serializer failed for value=5: it takes str, .* int"
    ):
        writer.send(name, 5)
    with pytest.raises(SerializationError, match="key_serializer gave int 5"):
        writer.send(name, "x", 5)
    with pytest.raises(SerializationError, match=r"value_serializer failed for values\[1\]=5"):
        writer.send_many(name, ["x", 5])


def test_after_close(producer: MakeProducer, topic: MakeTopic) -> None:
    name = topic()
    writer = producer()
    sent = writer.send(name, b"x")
    writer.close()
    writer.close()
    assert sent.result(0).offset == 0
    with pytest.raises(ClosedError, match="is closed"):
        writer.send(name, b"x")
    with pytest.raises(ClosedError):
        writer.send_many(name, [b"x"])
    with pytest.raises(ClosedError):
        writer.flush()
    with pytest.raises(ClosedError):
        writer.partitions_for(name)
    with pytest.raises(InvalidArgumentError, match="timeout is -1"):
        writer.close(-1)


def test_a_dead_address_is_named_with_its_cause_within_the_time_out() -> None:
    with Producer("127.0.0.1:1", max_block_ms=300) as writer:
        started = time.monotonic()
        why = r"topic 't' was not known within max_block_ms \(300 ms\): 127\.0\.0\.1:1: .*refused"
        with pytest.raises(ConnectionFailedError, match=why):
            writer.send("t", b"x")
        with pytest.raises(ConnectionFailedError, match="max_block_ms"):
            writer.partitions_for("t")
        assert 0.2 < time.monotonic() - started < 0.3 + BUSY_S
