"""A leader that has not heard of the coordinator for its lease, and so may have a successor."""

import time

import pytest

from tailrace.node import clock, loop
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.messages import (
    ACKS_ALL,
    ACKS_LEADER,
    EARLIEST,
    LATEST,
    OK,
    ListOffsets,
    OffsetQuery,
    Produce,
)

from ..patience import wait_until
from .conftest import House, Peer, Topic

REFUSED = ErrorCode.LEADER_NOT_AVAILABLE
WAIT_MS = 300


def produce(topic: Topic, leader: Peer, value: bytes, acks: int) -> ErrorCode:
    batch = encode([value], timestamps=time.time_ns() // 1_000_000)
    reply, _ = leader.ask(Produce, [batch], acks=acks, entries=[topic.entry()])
    return ErrorCode(reply.results[0].error.code)


def offset_at(topic: Topic, leader: Peer, timestamp: int) -> tuple[ErrorCode, int]:
    query = OffsetQuery(topic.id, 0, topic.epoch, timestamp)
    reply, _ = leader.ask(ListOffsets, queries=[query])
    return ErrorCode(reply.results[0].error.code), reply.results[0].offset


@pytest.fixture
def house_of_two(bare_house: House) -> tuple[House, Topic, Peer]:
    """A topic on two nodes, with one record; the leader; sessions last a minute."""
    bare_house.start_coordinator(session_timeout_ms=60_000)
    for node_id in (1, 2):
        bare_house.start(node_id)
    topic = bare_house.create(replicas=2)
    leader = bare_house.peer(bare_house.node_config(topic.info.partitions[0].leader).ipc)
    assert produce(topic, leader, b"first", ACKS_ALL) is ErrorCode.NONE
    return bare_house, topic, leader


def assert_it_leads(topic: Topic, leader: Peer) -> None:
    assert produce(topic, leader, b"more", ACKS_LEADER) is ErrorCode.NONE
    assert produce(topic, leader, b"more", ACKS_ALL) is ErrorCode.NONE
    assert offset_at(topic, leader, LATEST) == (ErrorCode.NONE, 3)
    reply, frames = topic.fetch(leader, 3, max_wait_ms=0)
    assert (reply.results, frames) == ([], [])


def test_what_is_refused_and_what_goes_on(
    house_of_two: tuple[House, Topic, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    house, topic, leader = house_of_two
    assert house.coordinator is not None
    house.coordinator.stop()
    assert_it_leads(topic, leader)

    # The machine is suspended for an hour: no time has passed for processes, but for everybody else.
    monkeypatch.setattr(loop, "uptime_s", lambda: clock.uptime_s() + 3_600)
    # It may have looked at the clock just before.
    wait_until(lambda: offset_at(topic, leader, LATEST) == (REFUSED, -1), "the lease is over")
    assert produce(topic, leader, b"for itself", ACKS_LEADER) is REFUSED
    assert offset_at(topic, leader, 2**60) == (REFUSED, -1)
    asked_at = time.monotonic()
    reply, _ = topic.fetch(leader, 3, max_wait_ms=WAIT_MS)
    assert [result.error.code for result in reply.results] == [REFUSED]
    assert time.monotonic() - asked_at >= WAIT_MS / 1_000

    assert produce(topic, leader, b"for all", ACKS_ALL) is ErrorCode.NONE
    assert offset_at(topic, leader, EARLIEST) == (ErrorCode.NONE, 0)
    assert offset_at(topic, leader, 0) == (ErrorCode.NONE, 0)
    reply, frames = topic.fetch(leader, 0, max_wait_ms=0)
    assert [(result.error, result.batches) for result in reply.results] == [(OK, 4)]
    assert len(frames) == 4


def test_its_clock_goes_on_while_the_machine_is_suspended() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = clock.uptime_s()
    assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME)
