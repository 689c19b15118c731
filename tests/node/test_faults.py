"""Disks that fail or are full, and bugs in the writer: nothing is acknowledged that is not stored."""

import logging
import threading
import time
from typing import Any

import pytest

from tailrace.node.storage.environment import Storage
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import ErrorCode, StorageFaultError
from tailrace.protocol.messages import DeleteTopic, DescribeLogs, Failed, Fetch, Produce

from ..patience import BUSY_S, PATIENCE_S

NOW = time.time_ns() // 1_000_000
MIB = 1024 * 1024


@pytest.mark.parametrize("error", [StorageFaultError("EIO"), RuntimeError("a bug")])
def test_a_fault_ends_the_node_and_tells_who_waits(
    house: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    caplog.set_level(logging.CRITICAL)
    node = house.start()
    topic, peer, reader = house.create(), house.peer(), house.peer()
    topic.produce(peer, b"a")
    reader.send(Fetch, entries=[topic.fetch_entry(1)], max_wait_ms=30_000)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Storage, "commit", fail)
    batch = encode([b"b"], timestamps=NOW)
    start = time.monotonic()
    requests = [peer.send(Produce, [batch], entries=[topic.entry()]) for _ in range(20)]
    for request in requests:
        reply, _ = peer.receive()
        assert isinstance(reply, Failed)
        assert (reply.request_id, reply.error.code) == (request, ErrorCode.STORAGE_FAULT)
    assert reader.receive()[0].error.code == ErrorCode.STORAGE_FAULT
    node.join(timeout=BUSY_S)
    assert time.monotonic() - start < BUSY_S
    assert node.error is error
    assert caplog.text.count("the node stops, since its storage failed") == 1

    monkeypatch.undo()
    house.start()
    reply, _ = house.peer().ask(DescribeLogs)
    assert [log.log_end_offset for log in reply.logs] == [1]


def test_a_full_quota_refuses_writes_until_there_is_room(house: Any) -> None:
    house.start(quota_bytes=16 * MIB, reserve_bytes=2 * MIB)
    topic, other, peer = house.create(), house.create("other"), house.peer()
    batch = encode([bytes(MIB)], timestamps=NOW)

    def produce(to: Any) -> int:
        reply, _ = peer.ask(Produce, [batch], entries=[to.entry()])
        code: int = reply.results[0].error.code
        return code

    stored = 0
    while (code := produce(topic)) == 0:
        stored += 1
        assert stored < 16
    assert code == ErrorCode.STORAGE_FULL
    assert stored >= 10
    assert len(topic.fetch(peer, 0)[1]) == 1, "reads go on"
    assert produce(other) == ErrorCode.STORAGE_FULL
    house.peer(house.coordinator_ipc).ask(DeleteTopic, name="t")
    deadline = time.monotonic() + PATIENCE_S
    while produce(other) != 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_retention_makes_room_by_itself(house: Any) -> None:
    house.start(quota_bytes=16 * MIB, reserve_bytes=2 * MIB, retention_check_ms=20)
    topic, peer = house.create(retention_bytes=4 * MIB), house.peer()
    batch = encode([bytes(MIB)], timestamps=NOW)
    stored, deadline = 0, time.monotonic() + PATIENCE_S
    while stored < 40:
        reply, _ = peer.ask(Produce, [batch], entries=[topic.entry()])
        stored += reply.results[0].error.code == 0
        assert reply.results[0].error.code in (0, ErrorCode.STORAGE_FULL)
        assert time.monotonic() < deadline


def test_reads_do_not_wait_for_a_slow_disk(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    house.start()
    topic, other, peer, writer = house.create(), house.create("other"), house.peer(), house.peer()
    topic.produce(peer, b"a")
    commit = Storage.commit
    committing, was_read = threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> Any:
        committing.set()
        assert was_read.wait(PATIENCE_S)
        return commit(*arguments)

    monkeypatch.setattr(Storage, "commit", slowly)
    batch = encode([b"b"], timestamps=NOW)
    for _ in range(2):
        committing.clear()
        was_read.clear()
        writer.send(Produce, [batch], entries=[other.entry()])
        assert committing.wait(PATIENCE_S)
        assert len(topic.fetch(peer, 0)[1]) == 1
        was_read.set()
        assert writer.receive()[0].results[0].error.code == 0
