"""What waits is bounded: more is refused as BUSY, and the rest goes on."""

import time
from functools import partial
from typing import Any

import pytest

from tailrace.protocol.columns import encode
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.messages import (
    Failed,
    Fetch,
    Fetched,
    ListOffsets,
    OffsetQuery,
    OffsetsListed,
    Ping,
    Pong,
    Produce,
)

from ..patience import PATIENCE_S, wait_until

NOW = time.time_ns() // 1_000_000
LOOP, BROKER = "tailrace.node.loop.", "tailrace.node.broker."


def test_produce_bytes_of_one_connection(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = encode([bytes(1_000)], timestamps=NOW)
    monkeypatch.setattr(BROKER + "IN_FLIGHT_BYTES_PER_CLIENT_MAX", 3 * len(batch))
    house.start()
    topic, peer = house.create(), house.peer()
    for _ in range(3):
        reply, _ = peer.ask(Produce, [batch] * 5, entries=[topic.entry()] * 5)
        assert [result.error.code for result in reply.results] == [0, 0, 0, ErrorCode.BUSY, ErrorCode.BUSY]
    assert len(topic.fetch(peer, 0)[1]) == 9


def test_produce_bytes_of_all_connections(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = encode([bytes(1_000)], timestamps=NOW)
    monkeypatch.setattr(BROKER + "IN_FLIGHT_BYTES_MAX", len(batch))
    house.start()
    topic = house.create()
    peers = [house.peer() for _ in range(4)]
    results = []
    for _ in range(20):
        for peer in peers:
            peer.send(Produce, [batch], entries=[topic.entry()])
        results += [peer.receive()[0].results[0] for peer in peers]
    stored = [result.base_offset for result in results if result.error.code == 0]
    assert sorted(stored) == list(range(len(stored)))
    assert {result.error.code for result in results} <= {0, ErrorCode.BUSY}
    assert topic.produce(peers[0], b"a").error.code == 0, "what was taken is given back"


def test_parked_fetches_of_one_connection(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BROKER + "FETCHES_PER_CLIENT_MAX", 3)
    house.start()
    topic, greedy, peer = house.create(), house.peer(), house.peer()
    ids = [greedy.send(Fetch, entries=[topic.fetch_entry(0)], max_wait_ms=30_000) for _ in range(4)]
    reply, _ = greedy.receive()
    assert isinstance(reply, Failed)
    assert (reply.request_id, reply.error.code) == (ids[3], ErrorCode.BUSY)
    peer.send(Fetch, entries=[topic.fetch_entry(0)], max_wait_ms=30_000)
    topic.produce(house.peer(), b"a")
    assert isinstance(peer.receive()[0], Fetched)
    assert {greedy.receive()[0].request_id for _ in range(3)} == set(ids[:3])
    assert len(topic.fetch(greedy, 0)[1]) == 1


def test_partitions_that_parked_fetches_wait_for(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOOP + "PARKED_PARTITIONS_MAX", 5)
    house.start()
    topic, peer = house.create(partitions=3), house.peer()
    entries = [topic.fetch_entry(0, partition) for partition in range(3)]
    first, second = (peer.send(Fetch, entries=entries, max_wait_ms=60_000) for _ in range(2))
    refused, _ = peer.receive()
    assert (refused.request_id, refused.error.code) == (second, ErrorCode.BUSY)
    topic.produce(house.peer(), b"a")
    reply, _ = peer.receive()
    assert isinstance(reply, Fetched)
    assert reply.request_id == first
    entries = [topic.fetch_entry(1, partition) for partition in range(3)]
    assert isinstance(peer.ask(Fetch, entries=entries, max_wait_ms=50)[0], Fetched)


def test_reads_that_wait_for_the_disk(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.node.reader.READS_QUEUED_MAX", 0)
    house.start()
    topic, peer = house.create(), house.peer()
    topic.produce(peer, b"a")
    queries = [OffsetQuery(topic.id, 0, topic.epoch, 5)]
    for _ in range(3):
        reply, _ = peer.ask(ListOffsets, queries=queries)
        assert reply.error.code == ErrorCode.BUSY
    monkeypatch.setattr("tailrace.node.reader.READS_QUEUED_MAX", 10)
    assert isinstance(peer.ask(ListOffsets, queries=queries)[0], OffsetsListed)


def test_a_peer_that_went_away_is_forgotten_in_time(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BROKER + "PARKED_FETCHES_MAX", 1)
    monkeypatch.setattr(BROKER + "FETCHES_PER_CLIENT_MAX", 1)
    house.start()
    topic, gone, peer = house.create(), house.peer(), house.peer()
    gone.send(Fetch, entries=[topic.fetch_entry(0)], max_wait_ms=2_000)
    gone.send(Ping)
    assert isinstance(gone.receive()[0], Pong), "then the fetch is parked"
    entries = [topic.fetch_entry(0)]
    assert isinstance(peer.ask(Fetch, entries=entries, max_wait_ms=1)[0], Failed)
    gone.close()
    deadline = time.monotonic() + PATIENCE_S
    while isinstance(peer.ask(Fetch, entries=entries, max_wait_ms=1)[0], Failed):
        assert time.monotonic() < deadline, "its slot is free again"


def test_fetched_bytes_that_are_not_read(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that asks for ever more and reads nothing cannot fill the node's memory."""
    batch = encode([bytes(1_000_000)], timestamps=NOW)
    monkeypatch.setattr(BROKER + "UNSENT_BYTES_PER_CLIENT_MAX", 5 * len(batch))
    house.start()
    topic, peer = house.create(), house.peer()
    monkeypatch.setattr("tailrace.transport.context.RECEIVE_HIGH_WATER_MESSAGES", 1)
    greedy = house.peer()
    peer.ask(Produce, [batch], entries=[topic.entry()])
    count = 200
    ids = [greedy.send(Fetch, entries=[topic.fetch_entry(0)], max_wait_ms=0) for _ in range(count)]
    assert len(topic.fetch(peer, 0)[1]) == 1
    replies = [greedy.receive() for _ in range(count)]
    assert [reply.request_id for reply, _ in replies] == ids
    read = [frames for reply, frames in replies if isinstance(reply, Fetched)]
    busy = [reply.error.code for reply, _ in replies if isinstance(reply, Failed)]
    assert set(busy) == {ErrorCode.BUSY}
    assert all(len(frames) == 1 for frames in read)
    assert len(busy) > count // 4
    again = partial(greedy.ask, Fetch, entries=[topic.fetch_entry(0)], max_wait_ms=0)
    wait_until(lambda: len(again()[1]) == 1, "it may fetch again, once it has read")
