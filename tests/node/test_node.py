"""A node and its clients, over real sockets: produce, fetch, offsets, logs."""

import time
from typing import Any

import pytest

from tailrace.node.loop import Loop
from tailrace.protocol.columns import encode
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.limits import FETCH_REPLY_BATCHES_MAX
from tailrace.protocol.messages import (
    ACKS_ALL,
    ACKS_LEADER,
    ACKS_NONE,
    EARLIEST,
    LATEST,
    DeleteTopic,
    DescribeLogs,
    Fetch,
    FetchEntry,
    ListOffsets,
    OffsetQuery,
    Ping,
    Pong,
    Produce,
    ProduceEntry,
)

from ..patience import BUSY_S, PATIENCE_S

NOW = time.time_ns() // 1_000_000


def batch(*values: bytes, **options: Any) -> bytes:
    return encode(list(values), timestamps=options.pop("timestamps", NOW), **options)


def values_of(frames: list[bytes]) -> list[bytes | None]:
    return [value for frame in frames for value in decode(frame).values]


# ------------------------------------------------------------------------------ produce


def test_what_was_produced_is_fetched(house: Any) -> None:
    house.start()
    topic, peer = house.create(), house.peer()
    result = topic.produce(peer, b"a", b"b")
    assert (result.error.code, result.base_offset, result.log_start_offset) == (0, 0, 0)
    assert topic.produce(peer, b"c").base_offset == 2

    reply, frames = topic.fetch(peer, 0)
    assert [(r.error.code, r.high_watermark, r.batches) for r in reply.results] == [(0, 3, 2)]
    assert values_of(frames) == [b"a", b"b", b"c"]
    assert [decode(frame).base_offset for frame in frames] == [0, 2]
    assert values_of(topic.fetch(peer, 1)[1]) == [b"a", b"b", b"c"], (
        "the batch that holds the offset is sent whole"
    )
    assert values_of(topic.fetch(peer, 2)[1]) == [b"c"]


def test_an_entry_that_is_refused_hinders_no_other(house: Any) -> None:
    house.start()
    topic, peer = house.create(partitions=2), house.peer()
    corrupt = bytearray(batch(b"x"))
    corrupt[-1] ^= 1
    gap = batch(b"x", producer_id=5, producer_epoch=0, base_sequence=3)
    future = batch(b"x", timestamps=NOW + 7_200_000)
    cases = [
        (topic.entry(0), batch(b"a"), ErrorCode.NONE),
        (topic.entry(0), bytes(corrupt), ErrorCode.CORRUPT_BATCH),
        (topic.entry(0), b"short", ErrorCode.CORRUPT_BATCH),
        (topic.entry(0), future, ErrorCode.INVALID_TIMESTAMP),
        (ProduceEntry(topic.id, 0, topic.epoch - 1), batch(b"x"), ErrorCode.FENCED_LEADER_EPOCH),
        (ProduceEntry(topic.id, 0, topic.epoch + 1), batch(b"x"), ErrorCode.UNKNOWN_LEADER_EPOCH),
        (ProduceEntry(topic.id, 2, topic.epoch), batch(b"x"), ErrorCode.NOT_LEADER),
        (ProduceEntry(bytes(16), 0, topic.epoch), batch(b"x"), ErrorCode.NOT_LEADER),
        (topic.entry(1), batch(b"b"), ErrorCode.NONE),
        (topic.entry(0), gap, ErrorCode.UNKNOWN_PRODUCER_ID),
        (topic.entry(0), batch(b"d"), ErrorCode.NONE),
    ]
    reply, _ = peer.ask(Produce, [case[1] for case in cases], entries=[case[0] for case in cases])
    assert [result.error.code for result in reply.results] == [code for _, _, code in cases]
    assert [r.base_offset for r in reply.results] == [0, -1, -1, -1, -1, -1, -1, -1, 0, -1, 1]
    assert all(result.error.message for result in reply.results if result.error.code)
    assert values_of(topic.fetch(peer)[1]) == [b"a", b"d"]


def test_the_order_of_one_connection_is_kept(house: Any) -> None:
    house.start()
    topic, peer = house.create(), house.peer()
    requests = [peer.send(Produce, [batch(b"%d" % n)], entries=[topic.entry()]) for n in range(200)]
    replies = [peer.receive()[0] for _ in requests]
    assert [reply.request_id for reply in replies] == requests
    assert [reply.results[0].base_offset for reply in replies] == list(range(200))
    assert values_of(topic.fetch(peer)[1]) == [b"%d" % n for n in range(200)]


def test_acks_none_is_never_answered(house: Any) -> None:
    house.start()
    topic, peer = house.create(), house.peer()
    peer.send(Produce, [batch(b"a")], entries=[topic.entry()], acks=ACKS_NONE)
    peer.send(Produce, [batch(b"x")], entries=[ProduceEntry(bytes(16), 0, 0)], acks=ACKS_NONE)
    peer.send(Produce, [], entries=[topic.entry()], acks=ACKS_NONE)
    for acks in (ACKS_LEADER, ACKS_ALL):
        reply, _ = peer.ask(Produce, [batch(b"b")], entries=[topic.entry()], acks=acks)
        assert reply.results[0].error.code == 0
    assert values_of(topic.fetch(peer)[1]) == [b"a", b"b", b"b"]


def test_a_retry_is_stored_once(house: Any) -> None:
    house.start()
    topic, peer = house.create(), house.peer()
    sealed = [batch(b"%d" % n, producer_id=7, producer_epoch=0, base_sequence=n) for n in range(3)]
    for _ in range(3):
        reply, _ = peer.ask(Produce, sealed, entries=[topic.entry()] * 3)
        assert [result.base_offset for result in reply.results] == [0, 1, 2]
    assert values_of(topic.fetch(peer)[1]) == [b"0", b"1", b"2"]


def test_other_peers_are_answered_while_one_is_gone(house: Any) -> None:
    house.start()
    topic, gone, peer = house.create(), house.peer(), house.peer()
    gone.send(Produce, [batch(b"a")], entries=[topic.entry()])
    gone.close()
    assert topic.produce(peer, b"b").error.code == 0


# -------------------------------------------------------------------------------- fetch


def test_a_fetch_that_waits_costs_no_rounds(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 0
    step = Loop.step

    def counted(loop: Loop, *arguments: Any) -> None:
        nonlocal rounds
        rounds += 1
        step(loop, *arguments)

    monkeypatch.setattr(Loop, "step", counted)
    house.start()
    topic, peer = house.create(), house.peer()
    topic.produce(peer, b"a")
    before, began = rounds, time.monotonic()
    for _ in range(10):
        assert not topic.fetch(peer, 1, max_wait_ms=50)[1]
    # A few for each fetch, and those of the heartbeats.
    assert rounds - before < 100 + 20 * (time.monotonic() - began)


def test_a_fetch_waits_for_an_append(house: Any) -> None:
    house.start()
    topic, reader, writer = house.create(), house.peer(), house.peer()
    request = reader.send(Fetch, entries=[topic.fetch_entry(0)], max_wait_ms=30_000)
    with pytest.raises(TimeoutError):
        reader.receive(timeout=0.1)
    sent = time.monotonic()
    topic.produce(writer, b"a")
    reply, frames = reader.receive()
    assert time.monotonic() - sent < BUSY_S
    assert (reply.request_id, values_of(frames)) == (request, [b"a"])


def test_a_fetch_waits_for_its_partitions_only(house: Any) -> None:
    house.start()
    topic, reader, writer = house.create(partitions=2), house.peer(), house.peer()
    ids = [
        reader.send(Fetch, entries=[topic.fetch_entry(0, partition)], max_wait_ms=30_000)
        for partition in (0, 1)
    ]
    topic.produce(writer, b"b", partition=1)
    assert reader.receive()[0].request_id == ids[1]
    topic.produce(writer, b"a", partition=0)
    assert reader.receive()[0].request_id == ids[0]


def test_an_empty_fetch_ends_with_its_wait(house: Any) -> None:
    house.start()
    topic, peer = house.create(), house.peer()
    for wait_ms in (0, 50):
        start = time.monotonic()
        reply, frames = topic.fetch(peer, 0, max_wait_ms=wait_ms)
        assert (reply.results, frames) == ([], [])
        assert wait_ms / 1_000 <= time.monotonic() - start < wait_ms / 1_000 + BUSY_S


def test_min_bytes_waits_for_enough_or_the_end_of_the_wait(house: Any) -> None:
    house.start()
    topic, reader, writer = house.create(), house.peer(), house.peer()
    size = len(batch(bytes(1_000)))
    reader.send(Fetch, entries=[topic.fetch_entry(0)], max_wait_ms=30_000, min_bytes=3 * size)
    for _ in range(2):
        topic.produce(writer, bytes(1_000))
        with pytest.raises(TimeoutError):
            reader.receive(timeout=0.05)
    topic.produce(writer, bytes(1_000))
    assert len(reader.receive()[1]) == 3
    start = time.monotonic()
    _, frames = topic.fetch(reader, 2, max_wait_ms=100, min_bytes=10 * size)
    assert len(frames) == 1
    assert time.monotonic() - start >= 0.1


def test_no_more_is_waited_for_than_the_entries_may_bring(house: Any) -> None:
    house.start()
    topic, reader, writer = house.create(partitions=2), house.peer(), house.peer()
    size = len(batch(bytes(1_000)))
    entries = [topic.fetch_entry(0, partition=number, max_bytes=size) for number in range(2)]
    reader.send(Fetch, entries=entries, max_wait_ms=60_000, min_bytes=10 * size)
    topic.produce(writer, bytes(1_000), partition=0)
    topic.produce(writer, bytes(1_000), partition=1)
    assert len(reader.receive()[1]) == 2


def test_what_does_not_fit_counts_as_there(house: Any) -> None:
    """By whole batches no bound is reached exactly; who wants as much would wait for nothing."""
    house.start()
    topic, reader, writer = house.create(partitions=2), house.peer(), house.peer()
    size = len(batch(bytes(1_000)))
    for _ in range(2):
        topic.produce(writer, bytes(1_000), partition=0)
    bound = 2 * size - 1
    one, two = [topic.fetch_entry(0, partition=number, max_bytes=bound) for number in range(2)]
    _, frames = reader.ask(Fetch, entries=[one], max_wait_ms=60_000, min_bytes=bound)
    assert len(frames) == 1
    reader.send(Fetch, entries=[one, two], max_wait_ms=60_000, min_bytes=bound + size)
    with pytest.raises(TimeoutError):
        reader.receive(timeout=0.05)
    topic.produce(writer, bytes(1_000), partition=1)
    assert len(reader.receive()[1]) == 2
    reader.send(Fetch, entries=[topic.fetch_entry(1, max_bytes=bound)], max_wait_ms=60_000, min_bytes=bound)
    with pytest.raises(TimeoutError):
        reader.receive(timeout=0.05)
    topic.produce(writer, bytes(1_000), partition=0)
    assert len(reader.receive()[1]) == 1


def test_offsets_outside_of_the_log_are_errors(house: Any) -> None:
    house.start()
    topic, peer = house.create(), house.peer()
    topic.produce(peer, b"a")
    for offset in (-1, 2, 2**62):
        reply, _ = topic.fetch(peer, offset, max_wait_ms=5_000)
        assert [result.error.code for result in reply.results] == [ErrorCode.OFFSET_OUT_OF_RANGE]


def test_errors_are_answered_at_once_beside_what_there_is(house: Any) -> None:
    house.start()
    topic, peer = house.create(partitions=3), house.peer()
    topic.produce(peer, b"a", partition=1)
    entries = [
        FetchEntry(topic.id, 0, topic.epoch + 1, 0, 1_000),
        topic.fetch_entry(0, 1),
        topic.fetch_entry(0, 2),
        FetchEntry(bytes(16), 0, 0, 0, 1_000),
    ]
    reply, frames = peer.ask(Fetch, entries=entries, max_wait_ms=5_000)
    assert {(r.topic_id, r.partition): r.error.code for r in reply.results} == {
        (topic.id, 0): ErrorCode.UNKNOWN_LEADER_EPOCH,
        (topic.id, 1): ErrorCode.NONE,
        (bytes(16), 0): ErrorCode.NOT_LEADER,
    }
    assert values_of(frames) == [b"a"]


def test_bounds_give_whole_batches_and_at_least_one(house: Any) -> None:
    house.start()
    topic, peer = house.create(), house.peer()
    for _ in range(5):
        topic.produce(peer, bytes(10_000))
    size = len(batch(bytes(10_000)))
    for max_bytes, count in ((1, 1), (size, 1), (2 * size, 2), (2 * size + 1, 2), (100 * size, 5)):
        reply, frames = peer.ask(Fetch, entries=[topic.fetch_entry(0, 0, max_bytes)])
        assert len(frames) == reply.results[0].batches == count
        reply, frames = peer.ask(Fetch, entries=[topic.fetch_entry(0)], max_bytes=max_bytes)
        assert len(frames) == count


def test_no_partition_starves_the_others(house: Any) -> None:
    house.start()
    topic, peer = house.create(partitions=3), house.peer()
    for partition in range(3):
        for _ in range(3):
            topic.produce(peer, bytes(10_000), partition=partition)
    entries = [topic.fetch_entry(0, partition) for partition in range(3)]
    first = set()
    for _ in range(6):
        reply, _ = peer.ask(Fetch, entries=entries, max_bytes=25_000)
        assert [result.batches for result in reply.results] == [2]
        first.add(reply.results[0].partition)
    assert first == {0, 1, 2}


def test_many_small_batches_do_not_pass_the_bound_on_frames(house: Any) -> None:
    house.start()
    topic, peer = house.create(), house.peer()
    for _ in range(6):
        peer.ask(Produce, [batch(b"x")] * 256, entries=[topic.entry()] * 256)
    _, frames = topic.fetch(peer, 0)
    assert len(frames) == FETCH_REPLY_BATCHES_MAX
    _, rest = topic.fetch(peer, len(frames))
    assert len(frames) + len(rest) == 6 * 256


# ------------------------------------------------------------------------ offsets, logs


def test_offsets_by_name_and_time(house: Any) -> None:
    house.start()
    topic, peer = house.create(), house.peer()
    topic.produce(peer, b"a", b"b", timestamps=[1_000, 2_000])
    topic.produce(peer, b"c", timestamps=5_000)

    def ask(*timestamps: int, epoch: int = topic.epoch) -> list[tuple[int, int, int]]:
        queries = [OffsetQuery(topic.id, 0, epoch, timestamp) for timestamp in timestamps]
        reply, _ = peer.ask(ListOffsets, queries=queries)
        return [(result.error.code, result.offset, result.timestamp) for result in reply.results]

    assert ask(EARLIEST, LATEST) == [(0, 0, -1), (0, 3, -1)]
    assert ask(0, 1_001, 2_001, 5_000, 5_001, LATEST) == [
        (0, 0, 1_000),
        (0, 1, 2_000),
        (0, 2, 5_000),
        (0, 2, 5_000),
        (0, -1, -1),
        (0, 3, -1),
    ]
    assert ask(EARLIEST, epoch=topic.epoch + 1) == [(ErrorCode.UNKNOWN_LEADER_EPOCH, -1, -1)]
    assert ask(1, epoch=topic.epoch - 1) == [(ErrorCode.FENCED_LEADER_EPOCH, -1, -1)]


def test_describes_its_logs(house: Any) -> None:
    house.start()
    topic, peer = house.create(partitions=2), house.peer()
    topic.produce(peer, b"a", b"b", partition=1)
    reply, _ = peer.ask(DescribeLogs)
    logs = {(log.topic_id, log.partition): log for log in reply.logs}
    assert logs.keys() == {(topic.id, 0), (topic.id, 1)}
    log = logs[topic.id, 1]
    assert (log.log_start_offset, log.log_end_offset, log.high_watermark) == (0, 2, 2)
    assert (log.size_bytes, logs[topic.id, 0].size_bytes) == (len(batch(b"a", b"b")), 0)
    assert 0 < reply.used_bytes < reply.quota_bytes == house.node_config().quota_bytes


def test_answers_a_ping(house: Any) -> None:
    house.start()
    assert isinstance(house.peer().ask(Ping)[0], Pong)


# ------------------------------------------------------------------------------- topics


def test_a_deleted_topic_is_dropped_and_its_fetches_end(house: Any) -> None:
    house.start()
    topic, peer, admin = house.create(), house.peer(), house.peer(house.coordinator_ipc)
    topic.produce(peer, b"a")
    peer.send(Fetch, entries=[topic.fetch_entry(1)], max_wait_ms=30_000)
    admin.ask(DeleteTopic, name="t")
    reply, _ = peer.receive()
    assert [result.error.code for result in reply.results] == [ErrorCode.UNKNOWN_TOPIC]
    assert topic.produce(peer, b"b").error.code == ErrorCode.UNKNOWN_TOPIC
    deadline = time.monotonic() + PATIENCE_S
    while peer.ask(DescribeLogs)[0].logs:
        assert time.monotonic() < deadline
    assert house.create().id != topic.id


def test_retention_deletes_what_is_too_much(house: Any) -> None:
    house.start(retention_check_ms=50)
    topic, peer = house.create(retention_bytes=25_000), house.peer()
    for _ in range(10):
        topic.produce(peer, bytes(10_000))
    deadline = time.monotonic() + PATIENCE_S
    while (log := peer.ask(DescribeLogs)[0].logs[0]).log_start_offset < 7:
        assert time.monotonic() < deadline
    assert 25_000 <= log.size_bytes < 36_000
    reply, _ = topic.fetch(peer, 0)
    assert [result.error.code for result in reply.results] == [ErrorCode.OFFSET_OUT_OF_RANGE]
