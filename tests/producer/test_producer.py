"""A producer against a real node: what is sent is what is stored."""

import logging
import os
import signal
import threading
import time
from array import array
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import pytest

from tailrace.client.admin import Admin
from tailrace.consumer import Consumer
from tailrace.producer import Producer, RangeMetadata, RecordMetadata
from tailrace.producer.partitioner import PartitionerOption, murmur2
from tailrace.protocol.errors import (
    DeliveryFailedError,
    InvalidTimestampError,
    TailraceError,
    TimedOutError,
    UnknownTopicError,
)
from tailrace.protocol.limits import (
    IN_FLIGHT_BYTES_PER_CLIENT_MAX,
    PRODUCE_IN_FLIGHT_BYTES_MAX,
    UNHEARD_BYTES_MAX,
)
from tailrace.protocol.record import TopicPartition
from tailrace.testing import Cluster

from ..conftest import MakeTopic
from ..patience import PATIENCE_S, wait_until
from ..suspended import suspended
from .conftest import MakeProducer, Read


def test_a_record_comes_back_as_it_was_sent(producer: MakeProducer, topic: MakeTopic, read: Read) -> None:
    name = topic()
    sent = producer().send(
        name, b"value", key=b"key", headers=[("a", b"1"), ("b", None)], partition=0, timestamp_ms=1_234
    )
    assert sent.result(PATIENCE_S) == RecordMetadata(name, 0, 0, 1_234)
    assert sent.done()
    assert sent.exception() is None
    ((record,),) = read(name)
    assert (record.value, record.key, record.timestamp) == (b"value", b"key", 1_234)
    assert list(record.headers) == [("a", b"1"), ("b", None)]


def test_every_mixture_of_columns_comes_back(producer: MakeProducer, topic: MakeTopic, read: Read) -> None:
    """Keys, nulls, headers and timestamps may begin and end in the middle of a batch."""
    name = topic()
    writer = producer(linger_ms=60_000)
    writer.send(name, b"0")
    writer.send(name, None, b"k1")
    writer.send(name, b"2", headers=[("h", b"x")])
    writer.send(name, b"")
    writer.send(name, b"4", b"", timestamp_ms=5)
    writer.send_many(name, [b"5", None], [None, b"k6"], headers=[None, [("i", b"y")]], timestamps_ms=[6, 7])
    writer.send_many(name, [b"7"], timestamps_ms=8)
    writer.send_many(name, (b"8", b"9"))
    writer.send(name)
    writer.flush()
    assert writer.metrics()["batches_acked"] == 1
    (records,) = read(name)
    assert [r.value for r in records] == [b"0", None, b"2", b"", b"4", b"5", None, b"7", b"8", b"9", None]
    assert [r.key for r in records] == [None, b"k1", None, None, b"", None, b"k6", None, None, None, None]
    assert [tuple(r.headers) for r in records] == [
        (), (), (("h", b"x"),), (), (), (), (("i", b"y"),), (), (), (), (),
    ]  # fmt: skip
    assert [r.timestamp for r in records[4:8]] == [5, 6, 7, 8]


def test_offsets_and_times_of_many_handles(producer: MakeProducer, topic: MakeTopic, read: Read) -> None:
    name = topic()
    before = time.time_ns() // 1_000_000
    writer = producer(batch_size=1_000)
    sent = [writer.send(name, b"%d" % number) for number in range(500)]
    metadata = [delivery.get(PATIENCE_S) for delivery in sent]
    after = time.time_ns() // 1_000_000
    assert [found.offset for found in metadata] == list(range(500))
    assert before - 1 <= metadata[0].timestamp <= metadata[-1].timestamp <= after
    (records,) = read(name)
    assert [record.value for record in records] == [b"%d" % number for number in range(500)]
    assert [record.timestamp for record in records] == [found.timestamp for found in metadata]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compression(producer: MakeProducer, topic: MakeTopic, read: Read, codec: str) -> None:
    name = topic()
    writer = producer(compression_type=codec)
    writer.send_many(name, [b"abc" * 100] * 1_000)
    writer.flush()
    assert [record.value for record in read(name)[0]] == [b"abc" * 100] * 1_000
    assert writer.metrics()["bytes_acked"] < 30_000


@pytest.mark.parametrize("partitioner", ["crc32", "murmur2"])
def test_send_and_send_many_choose_the_same_partitions(
    producer: MakeProducer, topic: MakeTopic, read: Read, partitioner: str
) -> None:
    one, many = topic(5), topic(5)
    keys = [b"key-%d" % (number % 97) for number in range(3_000)]
    values = [b"%d" % number for number in range(3_000)]
    writer = producer(partitioner=partitioner, batch_size=2_000)
    for key, value in zip(keys, values, strict=True):
        writer.send(one, value, key)
    ranges = writer.send_many(many, values, keys).result(PATIENCE_S)
    writer.flush()
    key_hash = crc32 if partitioner == "crc32" else murmur2
    expected = [
        [value for key, value in zip(keys, values, strict=True) if key_hash(key) % 5 == partition]
        for partition in range(5)
    ]
    assert [[record.value for record in records] for records in read(one, 5)] == expected
    assert [[record.value for record in records] for records in read(many, 5)] == expected
    for partition in range(5):
        spread = [found for found in ranges if found.partition == partition]
        assert sum(found.record_count for found in spread) == len(expected[partition])
        assert [found.base_offset for found in spread] == sorted(found.base_offset for found in spread)


@pytest.mark.parametrize("partitioner", ["crc32", "murmur2", lambda key, every, available: 2])
def test_a_named_partition_counts_more_than_the_key(
    producer: MakeProducer, topic: MakeTopic, read: Read, partitioner: PartitionerOption
) -> None:
    name = topic(3)
    writer = producer(partitioner=partitioner)
    for number in range(300):
        writer.send(name, b"%d" % number, b"key-%d" % number, partition=number % 2)
    writer.flush()
    assert [[int(record.value) for record in records] for records in read(name, 3)] == [
        [*range(0, 300, 2)],
        [*range(1, 300, 2)],
        [],
    ]


def test_records_without_a_key_spread_over_all_partitions(
    producer: MakeProducer, topic: MakeTopic, read: Read
) -> None:
    name = topic(4)
    writer = producer(batch_size=1_000, linger_ms=60_000)
    writer.send_many(name, [b"x" * 100] * 400)
    for _ in range(400):
        writer.send(name, b"y" * 100, b"")  # an empty key is none
    writer.flush()
    counts = [len(records) for records in read(name, 4)]
    assert sum(counts) == 800
    assert max(counts) - min(counts) <= 20


def test_a_partitioner_of_the_users(producer: MakeProducer, topic: MakeTopic, read: Read) -> None:
    def by_length(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
        assert list(available) == [0, 1, 2]
        return partitions[len(key or b"") % len(partitions)]

    name = topic(3)
    writer = producer(partitioner=by_length)
    writer.send(name, b"a", b"xx")
    writer.send(name, b"b")
    writer.send_many(name, [b"c", b"d"], [b"x", b"xxx"])
    writer.send_many(name, [b"e"])
    writer.flush()
    found = [[record.value for record in records] for records in read(name, 3)]
    assert found == [[b"b", b"d", b"e"], [b"c"], [b"a"]]


def test_serializers(producer: MakeProducer, topic: MakeTopic, read: Read) -> None:
    name = topic()
    writer = producer(key_serializer=str.encode, value_serializer=lambda value: str(value).encode())
    writer.send(name, {"a": 1}, "key")
    writer.send(name)
    writer.send_many(name, [1, None], ["x", None])
    writer.flush()
    assert [(record.key, record.value) for record in read(name)[0]] == [
        (b"key", b"{'a': 1}"),
        (None, None),
        (b"x", b"1"),
        (None, None),
    ]


def test_text_is_stored_as_utf8(producer: MakeProducer, topic: MakeTopic, read: Read) -> None:
    name = topic()
    writer = producer()
    writer.send(name, "é", "k")
    writer.send_many(name, ["a", "ü", ""], ["k", None, b"k"])
    writer.flush()
    assert [(record.key, record.value) for record in read(name)[0]] == [
        (b"k", "é".encode()),
        (b"k", b"a"),
        (None, "ü".encode()),
        (b"k", b""),
    ]


def test_arrays_are_columns_too(producer: MakeProducer, topic: MakeTopic, read: Read) -> None:
    name = topic()
    writer = producer()
    writer.send_many(name, np.array([b"a", b"b"]), timestamps_ms=np.array([5, 6]), partition=np.int32(0))
    writer.send_many(name, iter([b"c"]), timestamps_ms=array("q", [7]))
    writer.send(name, b"d", timestamp_ms=np.int64(8), partition=np.int64(0))
    writer.flush()
    found = [(record.value, record.timestamp) for record in read(name)[0]]
    assert found == [(b"a", 5), (b"b", 6), (b"c", 7), (b"d", 8)]


def test_ranges_of_send_many(producer: MakeProducer, topic: MakeTopic) -> None:
    name = topic()
    writer = producer()
    writer.send(name, b"first")
    sent = writer.send_many(name, [b"x"] * 10)
    assert len(sent) == 10
    assert sent.result(PATIENCE_S) == [RangeMetadata(name, 0, 1, 10)]
    assert sent.done()
    assert writer.send_many(name, []).result(0) == []


@pytest.mark.parametrize("acks", [0, 1])
def test_fewer_acks(producer: MakeProducer, topic: MakeTopic, read: Read, acks: int) -> None:
    name = topic()
    writer = producer(acks=acks)
    sent = writer.send(name, b"x")
    assert sent.result(PATIENCE_S).offset == (-1 if acks == 0 else 0)
    writer.send_many(name, [b"y"] * 1_000)
    writer.flush()
    deadline = time.monotonic() + PATIENCE_S
    while len(read(name)[0]) < 1_001 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [record.value for record in read(name)[0]] == [b"x"] + [b"y"] * 1_000


def test_what_nobody_acknowledges_leaves_before_the_producer_is_closed(
    cluster: Cluster, topic: MakeTopic
) -> None:
    """Also from a node that does not take it at once."""
    name, chunk, pid = topic(), [b"x" * 1_000] * 1_000, cluster.pid(1)
    with Producer(cluster.bootstrap_servers, acks=0) as writer:
        writer.send(name, b"").result(PATIENCE_S)
        os.kill(pid, signal.SIGSTOP)
        goes_on = threading.Timer(0.5, os.kill, (pid, signal.SIGCONT))
        goes_on.start()
        for _ in range(40):
            writer.send_many(name, chunk)
    goes_on.join()
    tp = TopicPartition(name, 0)
    deadline = time.monotonic() + PATIENCE_S
    with Consumer(bootstrap_servers=cluster.bootstrap_servers) as consumer:
        while (end := consumer.end_offsets([tp])[tp]) < 40_001:
            assert time.monotonic() < deadline, end


def test_what_nobody_acknowledges_waits_for_a_node_that_does_not_keep_up(
    cluster: Cluster, topic: MakeTopic
) -> None:
    """The node would drop it. Only so much is sent to it unheard, whatever the memory of the producer."""
    name, chunk = topic(), [os.urandom(1_000)] * 1_000
    count = 2 * IN_FLIGHT_BYTES_PER_CLIENT_MAX // 1_000_000
    memory = 4 * IN_FLIGHT_BYTES_PER_CLIENT_MAX
    with Producer(cluster.bootstrap_servers, acks=0, buffer_memory=memory) as writer:
        writer.send(name, b"").result(PATIENCE_S)
        with suspended(cluster.pid(1)):
            sent = [writer.send_many(name, chunk) for _ in range(count)]
            with pytest.raises(TimedOutError):
                writer.flush(timeout=1)
            gone = sum(each.done() for each in sent) * 1_000_000
            assert gone < UNHEARD_BYTES_MAX + PRODUCE_IN_FLIGHT_BYTES_MAX
        writer.flush()
        assert writer.metrics()["records_acked"] == count * 1_000 + 1
    tp = TopicPartition(name, 0)
    with Consumer(bootstrap_servers=cluster.bootstrap_servers) as consumer:
        wait_until(lambda: consumer.end_offsets([tp])[tp] == count * 1_000 + 1, "everything is stored")


def test_callbacks_run_in_order_and_what_they_raise_hurts_nobody(
    producer: MakeProducer, topic: MakeTopic, caplog: pytest.LogCaptureFixture
) -> None:
    name = topic()
    heard: list[object] = []
    threads: set[str] = set()

    def hear(metadata: RecordMetadata) -> None:
        heard.append(metadata.offset)
        threads.add(threading.current_thread().name)

    writer = producer(client_id="the-writer", linger_ms=60_000)
    writer.send(name, b"0").add_callback(hear).add_errback(heard.append)
    writer.send(name, b"1").add_callback(lambda _: 1 / 0)
    writer.send(name, b"2").add_callback(hear)
    many = writer.send_many(name, [b"3", b"4"]).add_callback(heard.append).add_errback(heard.append)
    with caplog.at_level(logging.ERROR):
        writer.flush()
    assert heard == [0, 2, [RangeMetadata(name, 0, 3, 2)]]
    assert threads == {"the-writer"}
    assert "ZeroDivisionError" in caplog.text
    many.add_callback(heard.append)
    assert len(heard) == 4
    last = writer.send(name, b"5")
    writer.flush()
    assert last.result(0).offset == 5


def test_a_callback_that_would_wait_for_itself_is_told_so(producer: MakeProducer, topic: MakeTopic) -> None:
    name = topic()
    writer = producer()
    told: list[str] = []

    def flush(_: RecordMetadata) -> None:
        writer.send(name, b"more")
        try:
            writer.flush()
        except TailraceError as error:
            told.append(str(error))

    writer.send(name, b"0").add_callback(flush).result(PATIENCE_S)
    writer.flush()
    assert "own thread" in told[0]


def test_failures_are_told_by_handle_errback_and_flush_and_only_once(
    producer: MakeProducer, topic: MakeTopic, read: Read
) -> None:
    name = topic()
    writer = producer(linger_ms=60_000)
    heard: list[TailraceError] = []
    future = (int(time.time()) + 2 * 3_600) * 1_000
    bad = writer.send(name, b"bad", timestamp_ms=future).add_errback(heard.append)
    bad_many = writer.send_many(name, [b"bad"] * 3, timestamps_ms=future).add_errback(heard.append)
    with pytest.raises(DeliveryFailedError, match="4 records not acknowledged") as failed:
        writer.flush()
    assert isinstance(failed.value.__cause__, InvalidTimestampError)
    assert [type(error) for error in heard] == [InvalidTimestampError] * 2
    assert isinstance(bad.exception(), InvalidTimestampError)
    for _ in range(2):
        with pytest.raises(InvalidTimestampError):
            bad.result()
        with pytest.raises(InvalidTimestampError):
            bad_many.result()
    writer.send(name, b"good")
    writer.flush()
    assert [record.value for record in read(name)[0]] == [b"good"]


def test_a_refused_batch_leaves_those_behind_it_in_order(
    producer: MakeProducer, topic: MakeTopic, read: Read
) -> None:
    name = topic()
    writer = producer(batch_size=300)
    future = (int(time.time()) + 2 * 3_600) * 1_000
    for number in range(300):
        writer.send(name, b"%d" % number * 50, timestamp_ms=future if number % 50 == 7 else None)
    with pytest.raises(DeliveryFailedError):
        writer.flush()
    stored = [record.offset for record in read(name)[0]]
    values = [int(record.value[: len(record.value) // 50]) for record in read(name)[0]]
    assert stored == list(range(len(stored)))
    assert values == sorted(values)
    assert not any(value % 50 == 7 for value in values)
    assert len(values) + writer.metrics()["records_failed"] == 300


def test_many_threads_share_a_producer(producer: MakeProducer, topic: MakeTopic, read: Read) -> None:
    name = topic(3)
    writer = producer(batch_size=2_000, buffer_memory=64 * 1024)

    def work(index: int) -> None:
        for number in range(0, 1_000, 10):
            writer.send(name, b"%d" % number, key=b"%d" % index)
            writer.send_many(name, [b"%d" % (number + at) for at in range(1, 10)], [b"%d" % index] * 9)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.flush()
    by_key: dict[bytes, list[int]] = {}
    for records in read(name, 3):
        for record in records:
            by_key.setdefault(record.key, []).append(int(record.value))
    assert by_key == {b"%d" % index: list(range(1_000)) for index in range(4)}


def test_a_deleted_topic_is_noticed_and_its_successor_too(
    producer: MakeProducer, topic: MakeTopic, admin: Admin
) -> None:
    name = topic()
    writer = producer(linger_ms=0)
    writer.send(name, b"x").result(PATIENCE_S)
    assert writer.partitions_for(name) == {0}
    admin.delete_topic(name)

    def send_on() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            writer.send(name, b"y").result(PATIENCE_S)

    with pytest.raises(UnknownTopicError, match=name):
        send_on()
    admin.create_topic(name, partitions=2)
    assert writer.send(name, b"z", partition=1).result(PATIENCE_S).offset == 0


def test_metrics(producer: MakeProducer, topic: MakeTopic) -> None:
    name = topic()
    writer = producer(batch_size=256 * 1024)
    writer.send_many(name, [b"x" * 100] * 4_000)
    writer.flush()
    metrics = writer.metrics()
    assert metrics["records_acked"] == 4_000
    assert metrics["records_failed"] == metrics["batches_in_flight"] == metrics["buffer_used_bytes"] == 0
    assert metrics["bytes_acked"] > 400_000
    assert metrics["batch_records_mean"] == 2_000
    assert 0 < metrics["request_latency_ms_mean"] <= metrics["request_latency_ms_max"]


@pytest.mark.parametrize("size", [100, 64 * 1024])
def test_each_batch_is_stored_as_it_was_sent_whatever_memory_it_was_made_in(
    producer: MakeProducer, topic: MakeTopic, read: Read, size: int
) -> None:
    name = topic()
    writer = producer()
    sent: list[bytes] = []
    for turn in range(6):
        values = [b"%d %0*d" % (turn, size, number) for number in range(400_000 // size + 40)]
        writer.send_many(name, values)
        for value in values:
            writer.send(name, value)
        sent += values + values
        if turn % 2:
            writer.flush()
    writer.flush()
    assert [record.value for record in read(name)[0]] == sent
