"""The local path at a real node: the same answers as over frames, and nothing to gain by lying."""

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tailrace.node.storage.planner import Planner
from tailrace.protocol.columns import encode
from tailrace.protocol.decode import decode
from tailrace.protocol.descriptor import Descriptor, decode_descriptor, descriptor_frame, frames_of
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.limits import KIB
from tailrace.protocol.local_messages import ArenaOpened, OpenArena
from tailrace.protocol.messages import Failed, Fetch, Fetched, FetchEntry, Produce
from tailrace.transport.arena import SLOTS_AT, Arena

from ..patience import PATIENCE_S

NOW = time.time_ns() // 1_000_000
VALUE = b"v" * (20 * KIB)


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena()
    yield arena
    arena.close()


@pytest.fixture
def topic(house: Any) -> Any:
    house.start()
    return house.create()


@pytest.fixture
def peer(house: Any, topic: Any, arena: Arena) -> Any:
    peer = house.peer()
    reply, _ = peer.ask(OpenArena, fd=arena.fd, token=arena.token)
    assert isinstance(reply, ArenaOpened), reply
    return peer


def batch_of(*values: bytes) -> bytes:
    return encode(list(values), timestamps=NOW)


def produce(peer: Any, topic: Any, arena: Arena, *batches: bytes) -> list[Any]:
    slot, descriptor = arena.place(batches) or pytest.fail("no room")
    reply, _ = peer.ask(Produce, frames_of(descriptor), entries=[topic.entry()] * len(batches))
    arena.release(slot)
    return list(reply.results)


def fetch(peer: Any, topic: Any, frames: Any, offset: int = 0, **options: int) -> tuple[Any, list[bytes]]:
    entry = FetchEntry(topic.id, 0, topic.epoch, offset, 1 << 20)
    reply, payload = peer.ask(Fetch, frames, entries=[entry], **options)
    return reply, payload


def test_batches_in_and_out(peer: Any, topic: Any, arena: Arena) -> None:
    batches = [batch_of(VALUE, b"1"), batch_of(b"2"), batch_of(VALUE, b"4")]
    results = produce(peer, topic, arena, *batches)
    assert [result.base_offset for result in results] == [0, 2, 3]
    slot, descriptor = arena.reserve(100 * KIB) or pytest.fail("no room")
    reply, payload = fetch(peer, topic, frames_of(descriptor))
    assert isinstance(reply, Fetched)
    frame = descriptor_frame(payload)
    assert frame is not None, "many bytes come by way of the slot"
    got = arena.lend(slot, decode_descriptor(frame))
    assert [value for data in got for value in decode(data).values] == [VALUE, b"1", b"2", VALUE, b"4"]
    assert got == fetch(peer, topic, ())[1], "as the frames would be"


def test_few_bytes_and_batches_that_are_too_large_come_as_frames(peer: Any, topic: Any, arena: Arena) -> None:
    produce(peer, topic, arena, batch_of(b"small"), batch_of(VALUE))
    _, descriptor = arena.reserve(1 * KIB) or pytest.fail("no room")
    for offset, values in ((0, [b"small"]), (1, [VALUE])):
        reply, payload = fetch(peer, topic, frames_of(descriptor), offset)
        assert reply.results[0].batches == len(payload) == 1
        assert decode(payload[0]).values == values


def test_a_slot_bounds_a_reply(peer: Any, topic: Any, arena: Arena) -> None:
    size = len(batch_of(VALUE))
    produce(peer, topic, arena, *[batch_of(VALUE)] * 5)
    slot, descriptor = arena.reserve(3 * size) or pytest.fail("no room")
    reply, payload = fetch(peer, topic, frames_of(descriptor))
    assert reply.results[0].batches in (2, 3)
    frame = descriptor_frame(payload)
    assert frame is not None
    assert len(arena.lend(slot, decode_descriptor(frame))) == reply.results[0].batches


def test_a_fetch_that_waits(house: Any, peer: Any, topic: Any, arena: Arena) -> None:
    slot, descriptor = arena.reserve(100 * KIB) or pytest.fail("no room")
    entry = FetchEntry(topic.id, 0, topic.epoch, 0, 1 << 20)
    peer.send(Fetch, frames_of(descriptor), entries=[entry], max_wait_ms=10_000)
    topic.produce(house.peer(), VALUE)
    reply, payload = peer.receive()
    frame = descriptor_frame(payload)
    assert frame is not None
    (data,) = arena.lend(slot, decode_descriptor(frame))
    assert decode(data).values == [VALUE]
    assert reply.results[0].high_watermark == 1


def test_bytes_that_changed_after_they_were_sent(peer: Any, topic: Any, arena: Arena) -> None:
    good, bad = batch_of(b"good"), bytearray(batch_of(VALUE))
    bad[-100] ^= 1  # as if it had been written to between the send and the commit
    results = produce(peer, topic, arena, good, bytes(bad), good)
    assert [result.error.code for result in results] == [0, ErrorCode.CORRUPT_BATCH, 0]
    reply, payload = fetch(peer, topic, ())
    assert [decode(data).values for data in payload] == [[b"good"]] * 2
    assert reply.results[0].high_watermark == 2


def test_bytes_that_change_once_the_node_has_looked(
    peer: Any, topic: Any, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is what was stored."""
    data = batch_of(VALUE)
    slot, descriptor = arena.place([data]) or pytest.fail("no room")
    at, plan = slot.start + len(data) - 100, Planner.plan

    def plan_and_change(planner: Planner, appends: Any) -> Any:
        planned = plan(planner, appends)
        arena._memory[at] = data[-100] ^ 1
        return planned

    with monkeypatch.context() as patch:
        patch.setattr(Planner, "plan", plan_and_change)
        reply, _ = peer.ask(Produce, frames_of(descriptor), entries=[topic.entry()])
    assert reply.results[0].error.code == ErrorCode.CORRUPT_BATCH
    assert fetch(peer, topic, ())[1] == []
    assert produce(peer, topic, arena, data)[0].base_offset == 0


@pytest.mark.parametrize(
    "descriptor",
    [
        Descriptor(0, [100]),
        Descriptor(SLOTS_AT, [1 << 30]),
        Descriptor(SLOTS_AT + 8, [100]),
        Descriptor(SLOTS_AT, [100, 1 << 30]),
        Descriptor(-64, [100]),
        Descriptor(SLOTS_AT, [0]),
    ],
)
def test_lies(peer: Any, topic: Any, arena: Arena, descriptor: Descriptor) -> None:
    frames = frames_of(descriptor)
    reply, _ = peer.ask(Produce, frames, entries=[topic.entry()] * len(descriptor.lengths))
    assert isinstance(reply, Failed)
    assert reply.error.code == ErrorCode.MALFORMED_REQUEST
    reply, _ = fetch(peer, topic, frames)
    assert isinstance(reply, Failed)
    assert produce(peer, topic, arena, batch_of(b"still here"))[0].error.code == 0


def test_a_slot_that_holds_no_batch(peer: Any, topic: Any, arena: Arena) -> None:
    results = produce(peer, topic, arena, b"x" * 1_000, bytes(30))
    assert [result.error.code for result in results] == [ErrorCode.CORRUPT_BATCH] * 2


def test_two_slots_are_no_place_for_a_reply(peer: Any, topic: Any) -> None:
    reply, _ = fetch(peer, topic, frames_of(Descriptor(SLOTS_AT, [100, 100])))
    assert reply.error.code == ErrorCode.MALFORMED_REQUEST


def test_without_an_arena(house: Any, topic: Any) -> None:
    peer = house.peer()
    reply, _ = peer.ask(Produce, frames_of(Descriptor(SLOTS_AT, [100])), entries=[topic.entry()])
    assert reply.error.code == ErrorCode.MALFORMED_REQUEST
    reply, _ = peer.ask(OpenArena, fd=10_000, token=bytes(16))
    assert reply.error.code == ErrorCode.LOCAL_PATH


def test_not_over_tcp(house: Any, topic: Any, arena: Arena) -> None:
    peer = house.peer(house.nodes[0].listener.tcp)
    reply, _ = peer.ask(OpenArena, fd=arena.fd, token=arena.token)
    assert reply.error.code == ErrorCode.LOCAL_PATH
    assert "ipc" in reply.error.message


def mappings() -> int:
    """Arenas that this process, and so the node in it, has mapped."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("/memfd:tailrace-arena")


def test_nothing_is_left_of_a_connection(house: Any, topic: Any) -> None:
    before = mappings()
    arena = Arena()
    peer = house.peer()
    assert isinstance(peer.ask(OpenArena, fd=arena.fd, token=arena.token)[0], ArenaOpened)
    assert isinstance(peer.ask(OpenArena, fd=arena.fd, token=arena.token)[0], ArenaOpened), "again"
    arena.close()
    assert mappings() == before + 1, "the node's"
    peer.close()
    deadline = time.monotonic() + PATIENCE_S
    while mappings() > before:
        assert time.monotonic() < deadline, "the node keeps the memory of a client that is gone"
        os.sched_yield()
