"""Fetch sessions at a real node: the same records as by whole lists, and nothing for who is not in step."""

import time
from typing import Any

import pytest

from tailrace.node.storage import Storage
from tailrace.protocol.errors import ErrorCode, OffsetOutOfRangeError
from tailrace.protocol.messages import Failed, Fetch, Fetched, FetchEntry

from ..patience import PATIENCE_S

LOOP = "tailrace.node.loop."


@pytest.fixture
def topic(house: Any) -> Any:
    house.start()
    return house.create(partitions=4)


def fetch(peer: Any, entries: list[Any], epoch: int, **options: Any) -> Any:
    return peer.ask(Fetch, entries=entries, session=1, epoch=epoch, **options)[0]


def told(reply: Any) -> list[tuple[int, int]]:
    assert isinstance(reply, Fetched), reply
    return [(result.partition, result.batches) for result in reply.results]


def test_partitions_are_named_once_and_again_when_they_were_answered(house: Any, topic: Any) -> None:
    peer, writer = house.peer(), house.peer()
    topic.produce(writer, b"a", partition=1)
    every = [topic.fetch_entry(0, partition) for partition in range(4)]
    assert told(fetch(peer, every, 0)) == [(1, 1)]
    topic.produce(writer, b"b", partition=1)
    topic.produce(writer, b"c", partition=3)
    assert told(fetch(peer, [], 1)) == [(3, 1)], "partition 1 is not in it any more"
    assert told(fetch(peer, [topic.fetch_entry(1, 1)], 2)) == [(1, 1)]
    assert told(fetch(peer, [], 3, max_wait_ms=1)) == []


def test_a_parked_fetch_is_woken_for_what_was_named_before(house: Any, topic: Any) -> None:
    peer, writer = house.peer(), house.peer()
    every = [topic.fetch_entry(0, partition) for partition in range(4)]
    assert told(fetch(peer, every, 0, max_wait_ms=1)) == []
    peer.send(Fetch, entries=[], session=1, epoch=1, max_wait_ms=30_000)
    topic.produce(writer, b"a", partition=2)
    assert told(peer.receive()[0]) == [(2, 1)]


def test_what_cannot_be_read_is_not_waited_for(
    house: Any, topic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as an offset that retention deletes between the look at the log and the read."""
    peer, writer = house.peer(), house.peer()
    topic.produce(writer, b"a")

    def refuse(*_: object) -> None:
        raise OffsetOutOfRangeError("it was cut off")

    monkeypatch.setattr(Storage, "read", refuse)
    reply = fetch(peer, [topic.fetch_entry(0)], 0, max_wait_ms=60_000)
    assert [result.error.code for result in reply.results] == [ErrorCode.OFFSET_OUT_OF_RANGE]


def test_small_records_are_waited_for_in_all_partitions_together(house: Any, topic: Any) -> None:
    peer, writer = house.peer(), house.peer()
    every = [topic.fetch_entry(0, partition) for partition in range(4)]
    topic.produce(writer, b"a", partition=0)
    peer.send(Fetch, entries=every, session=1, min_bytes=400, max_wait_ms=30_000)
    topic.produce(writer, bytes(100), partition=1)
    topic.produce(writer, bytes(200), partition=2)
    assert sorted(told(peer.receive()[0])) == [(0, 1), (1, 1), (2, 1)]


@pytest.mark.parametrize(("epoch", "session"), [(2, 1), (5, 1), (1, 2), (1, 0)])
def test_who_is_not_in_step_begins_anew(house: Any, topic: Any, epoch: int, session: int) -> None:
    peer = house.peer()
    entries = [topic.fetch_entry(0)]
    assert told(fetch(peer, entries, 0, max_wait_ms=1)) == []
    reply = peer.ask(Fetch, entries=[], session=session, epoch=epoch)[0]
    assert isinstance(reply, Failed)
    assert reply.error.code == ErrorCode.UNKNOWN_FETCH_SESSION
    assert told(fetch(peer, entries, 0, max_wait_ms=1)) == []


def test_a_new_connection_has_no_session(house: Any, topic: Any) -> None:
    assert told(fetch(house.peer(), [topic.fetch_entry(0)], 0, max_wait_ms=1)) == []
    reply = fetch(house.peer(), [], 1)
    assert reply.error.code == ErrorCode.UNKNOWN_FETCH_SESSION


def test_a_resting_session_makes_room(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOOP + "FETCH_SESSIONS_MAX", 1)
    house.start()
    topic, peer, other = house.create(), house.peer(), house.peer()
    for who in (peer, other):
        assert told(fetch(who, [topic.fetch_entry(0)], 0, max_wait_ms=1)) == []
    assert fetch(peer, [], 1).error.code == ErrorCode.UNKNOWN_FETCH_SESSION
    assert told(fetch(other, [], 1, max_wait_ms=1)) == []


@pytest.mark.slow
def test_sessions_end_with_their_connection(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOOP + "PARKED_PARTITIONS_MAX", 1)
    house.start()
    topic, peer, other = house.create(), house.peer(), house.peer()
    entries = [topic.fetch_entry(0)]
    peer.send(Fetch, entries=entries, session=1, max_wait_ms=3_000)
    deadline = time.monotonic() + PATIENCE_S
    while not isinstance(reply := other.ask(Fetch, entries=entries, max_wait_ms=0)[0], Failed):
        assert time.monotonic() < deadline, "the fetch does not come"
    assert reply.error.code == ErrorCode.BUSY
    peer.close()
    deadline = time.monotonic() + PATIENCE_S
    while isinstance(other.ask(Fetch, entries=entries, max_wait_ms=1)[0], Failed):
        assert time.monotonic() < deadline


def test_an_answer_about_a_partition_that_is_not_led_any_more(house: Any, topic: Any) -> None:
    peer = house.peer()
    stale = FetchEntry(topic.id, 1, topic.epoch + 1, 0, 1)
    reply = fetch(peer, [topic.fetch_entry(0), stale], 0, max_wait_ms=30_000)
    assert [(result.partition, result.error.code) for result in reply.results] == [
        (1, ErrorCode.UNKNOWN_LEADER_EPOCH)
    ]
    assert told(fetch(peer, [], 1, max_wait_ms=1)) == []
