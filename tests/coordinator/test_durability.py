"""What was answered is stored: after kill -9 in the middle of bursts, and when the disk fails."""

import time
from pathlib import Path
from random import Random
from typing import Any

from tailrace.coordinator.store.lmdb_store import LmdbStore
from tailrace.protocol.cluster import Listener
from tailrace.protocol.limits import KIB
from tailrace.protocol.messages import (
    Beat,
    CreateTopic,
    DeleteTopic,
    Failed,
    InitProducer,
    NodeRegistered,
    ProducerReady,
    RegisterNode,
    TopicDeleted,
)
from tailrace.protocol.wire import decode_published, decode_reply

from ..durability import recording

IN_FLIGHT = 60


class History:
    """Keeps requests in flight and remembers what was answered."""

    def __init__(self, peer: Any, round_number: int) -> None:
        self.peer = peer
        self.round = round_number
        self.random = Random(round_number)
        self.topics = 0
        self.kinds: dict[int, tuple[str, str]] = {}
        self.producers: dict[int, int] = {}
        self.deleted: set[str] = set()
        self.versions = 0

    def send(self) -> None:
        choice = self.peer.requests % 4
        if choice == 0:
            self.topics += 1
            name = f"t-{self.round}-{self.topics}"
            self.peer.send(CreateTopic, name=name, partitions=3, timeout_ms=60_000)
            self.kinds[self.peer.send(DeleteTopic, name=name)] = ("delete", name)
        elif choice == 1 and self.producers:
            producer_id, epoch = self.random.choice(list(self.producers.items()))
            self.peer.send(InitProducer, producer_id=producer_id, producer_epoch=epoch)
        elif choice == 2:
            listener = Listener("tcp://127.0.0.1:1")
            self.peer.send(RegisterNode, node_id=1, listener=listener, storage_id="s")
        else:
            self.peer.send(InitProducer)

    def take(self, reply: Any) -> None:
        if isinstance(reply, ProducerReady):
            epoch = max(reply.producer_epoch, self.producers.get(reply.producer_id, 0))
            self.producers[reply.producer_id] = epoch
        elif isinstance(reply, TopicDeleted):
            self.deleted.add(self.kinds[reply.request_id][1])
        elif isinstance(reply, NodeRegistered):
            self.versions = max(self.versions, reply.snapshot.version)

    def run(self, replies: int) -> None:
        for _ in range(IN_FLIGHT):
            self.send()
        for _ in range(replies):
            self.take(self.peer.receive())
            self.send()

    def drain(self) -> None:
        """What had been answered before the kill and is still in the connection."""
        while (message := self.peer.connection.receive()) is not None:
            self.take(decode_reply(message[0]))


def test_everything_answered_before_a_kill_is_there_after_it(spawn: Any, peers: Any, tmp_path: Path) -> None:
    folder = tmp_path / "coordinator"
    last_version = epochs = 0
    for round_number in range(4):
        child = spawn()
        peer = peers.peer(child.endpoint)
        peer.ask(RegisterNode, node_id=1, listener=Listener("tcp://127.0.0.1:1"), storage_id="s")
        history = History(peer, round_number)
        history.run(history.random.randrange(50, 400))
        child.kill()
        history.drain()
        store = LmdbStore(folder)
        state = store.load()
        store.close()
        assert history.producers, "the history did something"
        assert state.next_producer_id > max(history.producers)
        for producer_id, epoch in history.producers.items():
            assert state.producer_epochs.get(producer_id, 0) >= epoch
        assert not history.deleted & set(state.cluster.topic_ids)
        assert len(state.tombstones) >= len(history.deleted)
        assert state.cluster.version >= history.versions > last_version
        assert state.cluster.controller_epoch == epochs + 1
        last_version, epochs = state.cluster.version, state.cluster.controller_epoch


def test_a_store_that_fails_ends_the_coordinator_before_it_answers(
    spawn: Any, peers: Any, tmp_path: Path
) -> None:
    """A limit on the file's size stands for a disk that refuses a write."""
    spawn().kill()  # the file is made, with its room
    child = spawn(file_bytes_max=128 * KIB)
    peer = peers.peer(child.endpoint)
    peer.ask(RegisterNode, node_id=1, listener=Listener("tcp://127.0.0.1:1"), storage_id="s")
    for number in range(5):
        peer.ask(CreateTopic, name=f"small-{number}", timeout_ms=0)
    peer.send(CreateTopic, name="large", partitions=3_000, timeout_ms=0)
    errors = child.wait()
    assert child.process.returncode == 1
    assert "StorageFaultError: the coordinator's store in" in errors
    assert "Free space or replace the disk" in errors
    assert peer.connection.receive() is None
    store = LmdbStore(tmp_path / "coordinator")
    assert set(store.load().cluster.topic_ids) == {f"small-{number}" for number in range(5)}
    store.close()


def test_no_answer_and_no_publication_leaves_before_its_sync(spawn: Any, peers: Any, tmp_path: Path) -> None:
    """A sync that takes 150 ms delays both; one that fails keeps both back, and ends the coordinator."""
    control = tmp_path / "control"
    child = spawn(recording.environment(control=control), beat_interval_ms=60_000)
    peer = peers.peer(child.endpoint)
    peer.ask(RegisterNode, node_id=1, listener=Listener("tcp://127.0.0.1:1"), storage_id="s")
    updates = peers.subscribe(peer.snapshot().publisher.tcp)
    while updates.subscriber.receive() is None:  # until the subscription is known there
        peer.ask(RegisterNode, node_id=1, listener=Listener("tcp://127.0.0.1:1"), storage_id="s")
    registered = peer.snapshot().snapshot.version  # of the updates that are still on their way

    control.write_text("delay 150")
    before = time.monotonic()
    peer.send(CreateTopic, name="slow", timeout_ms=0)
    while updates.next().version <= registered:
        pass
    assert time.monotonic() - before >= 0.15
    assert isinstance(peer.receive(), Failed)
    assert peer.ask(InitProducer).request_id == peer.requests
    assert time.monotonic() - before >= 0.3

    control.write_text("eio")
    peer.send(CreateTopic, name="failed", timeout_ms=0)
    assert "StorageFaultError" in child.wait()
    assert peer.connection.receive() is None
    while (published := updates.subscriber.receive()) is not None:
        assert isinstance(decode_published(published), Beat), "the welcome may come late"
