"""A coordinator over real sockets: nodes come and go, topics are made, bad peers hurt nobody."""

import logging
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tailrace.coordinator.config import CoordinatorConfig
from tailrace.coordinator.main import Coordinator
from tailrace.coordinator.store.lmdb_store import LmdbStore
from tailrace.protocol.cluster import NO_LEADER, ClusterState, Listener, NodeInfo
from tailrace.protocol.errors import ConnectionFailedError, DataFolderError, ErrorCode
from tailrace.protocol.limits import HEADER_BYTES_MAX
from tailrace.protocol.messages import (
    Beat,
    ClusterLeft,
    CreateTopic,
    DeleteTopic,
    Failed,
    GetSnapshot,
    Heartbeat,
    HeartbeatSeen,
    InitProducer,
    LeaveCluster,
    NodeRegistered,
    Ping,
    Pong,
    Produce,
    ProduceEntry,
    ProducerReady,
    RegisterNode,
    TopicCreated,
    TopicDeleted,
    Update,
)
from tailrace.protocol.wire import encode

from ..patience import BUSY_S, wait_until
from ..suspended import suspended


def register(peer: Any, node_id: int = 1, storage_id: str = "s", **fields: Any) -> NodeRegistered:
    fields.setdefault("listener", Listener(f"tcp://127.0.0.1:{node_id}"))
    reply = peer.ask(RegisterNode, node_id=node_id, storage_id=storage_id, **fields)
    assert isinstance(reply, NodeRegistered)
    return reply


def beat(peer: Any, node: NodeInfo | None, applied_version: int = 0) -> Any:
    assert node is not None
    return peer.ask(
        Heartbeat, node_id=node.node_id, node_epoch=node.node_epoch, applied_version=applied_version
    )


def new_producer(peer: Any) -> int:
    reply = peer.ask(InitProducer)
    assert isinstance(reply, ProducerReady)
    assert reply.producer_epoch == 0
    return reply.producer_id


def failed_with(reply: Any) -> int:
    assert isinstance(reply, Failed)
    return reply.error.code


def test_a_node_registers_beats_and_leaves(start: Any, peers: Any) -> None:
    peer = peers.peer(start(session_timeout_ms=60_000).listener.tcp)
    assert isinstance(peer.ask(Ping), Pong)
    assert failed_with(peer.ask(Heartbeat, node_id=1, node_epoch=1)) == ErrorCode.UNKNOWN_NODE
    node = register(peer).node
    assert beat(peer, node) == HeartbeatSeen(peer.requests, controller_epoch=1)
    assert failed_with(peer.ask(Heartbeat, node_id=1, node_epoch=99)) == ErrorCode.STALE_NODE_EPOCH
    other = peers.peer(peer.connection.endpoint)
    refused = other.ask(RegisterNode, node_id=1, listener=Listener("tcp://x:1"), storage_id="other")
    assert failed_with(refused) == ErrorCode.NODE_ID_IN_USE
    assert isinstance(peer.ask(LeaveCluster, node_id=1, node_epoch=node.node_epoch), ClusterLeft)
    assert failed_with(beat(peer, node)) == ErrorCode.STALE_NODE_EPOCH
    assert [node.alive for node in peer.snapshot().snapshot.nodes] == [False]


def test_topics_are_created_described_and_deleted(start: Any, peers: Any) -> None:
    endpoint = start(session_timeout_ms=60_000).listener.tcp
    node_peer, client = peers.peer(endpoint), peers.peer(endpoint)
    node = register(node_peer).node
    request_id = client.send(CreateTopic, name="t", partitions=3, config={"retention.ms": "60000"})
    assert failed_with(client.ask(CreateTopic, name="t")) == ErrorCode.TOPIC_EXISTS
    version = client.snapshot().snapshot.version
    beat(node_peer, node, version)
    created = client.receive()
    assert isinstance(created, TopicCreated)
    assert created.request_id == request_id
    assert created.topic is not None
    assert created.topic.config.retention_ms == 60_000
    assert [p.leader for p in created.topic.partitions] == [1, 1, 1]
    assert client.snapshot().snapshot.topics == (created.topic,)
    assert isinstance(client.ask(DeleteTopic, name="t"), TopicDeleted)
    assert failed_with(client.ask(DeleteTopic, name="t")) == ErrorCode.UNKNOWN_TOPIC
    assert client.snapshot().snapshot.topics == ()
    assert register(node_peer, topic_ids=[created.topic.topic_id]).deleted_topics == [created.topic.topic_id]


def test_a_topic_whose_leader_does_not_open_it_exists_all_the_same(start: Any, peers: Any) -> None:
    peer = peers.peer(start(session_timeout_ms=60_000).listener.tcp)
    register(peer)
    before = time.monotonic()
    reply = peer.ask(CreateTopic, name="t", timeout_ms=150)
    assert 0.15 <= time.monotonic() - before < 0.15 + BUSY_S
    assert failed_with(reply) == ErrorCode.TIMED_OUT
    assert "was created" in reply.error.message
    assert [topic.name for topic in peer.snapshot().snapshot.topics] == ["t"]


def test_a_silent_node_dies_and_comes_back(start: Any, peers: Any) -> None:
    endpoint = start(session_timeout_ms=1_500).listener.tcp
    peer = peers.peer(endpoint)
    updates = peers.listening(peer.snapshot().publisher.tcp)
    before = time.monotonic()
    node = register(peer).node
    peer.send(CreateTopic, name="t", partitions=2, timeout_ms=60_000)
    state = ClusterState(peer.snapshot().snapshot)
    while state.nodes[1].alive:
        published = updates.next()
        if published.version > state.version:
            assert isinstance(published, Update)
            state.apply_all(published.changes)
            state.version = published.version
    assert time.monotonic() - before >= 1.5
    [topic] = state.topics.values()
    assert [(p.leader, p.leader_epoch, p.isr) for p in topic.partitions] == [(NO_LEADER, 0, (1,))] * 2
    assert failed_with(beat(peer, node)) == ErrorCode.STALE_NODE_EPOCH
    again = register(peer)
    [topic] = again.snapshot.topics
    assert [(p.leader, p.leader_epoch, p.isr) for p in topic.partitions] == [(1, 1, (1,))] * 2
    assert again.node is not None
    peer.send(Heartbeat, node_id=1, node_epoch=again.node.node_epoch, applied_version=again.snapshot.version)
    assert isinstance(peer.receive(), TopicCreated)
    assert isinstance(peer.receive(), HeartbeatSeen)


def test_a_node_whose_connection_ends_is_replaced_before_its_session_ends(start: Any, peers: Any) -> None:
    endpoint = start(session_timeout_ms=60_000).listener.tcp
    first, second = peers.peer(endpoint), peers.peer(endpoint)
    updates = peers.listening(second.snapshot().publisher.tcp)
    register(first, 1)
    register(second, 2)
    second.send(CreateTopic, name="t", partitions=2, replication_factor=2, timeout_ms=60_000)
    state = ClusterState(second.snapshot().snapshot)
    [topic] = state.topics.values()
    assert [p.leader for p in topic.partitions] == [1, 2]
    first.connection.close()
    ended = time.monotonic()
    while state.nodes[1].alive:
        published = updates.next()
        if isinstance(published, Update) and published.version > state.version:
            state.apply_all(published.changes)
            state.version = published.version
    assert time.monotonic() - ended <= BUSY_S
    [topic] = state.topics.values()
    assert [(p.leader, p.leader_epoch, p.isr) for p in topic.partitions] == [(2, 1, (2,)), (2, 0, (2,))]


def test_a_node_that_connects_anew_lives_on(start: Any, peers: Any) -> None:
    """And so does one that does not, while its process is there: it may serve its lease."""
    endpoint = start(session_timeout_ms=60_000).listener.tcp
    first, second, observer = (peers.peer(endpoint) for _ in range(3))
    with socket.create_server(("127.0.0.1", 0)) as address:
        port = address.getsockname()[1]
        node = register(first, listener=Listener(f"tcp://127.0.0.1:{port}")).node
        first.connection.close()
        address.accept()[0].close()
        address.accept()[0].close()
        assert observer.snapshot().snapshot.nodes[0].alive
        assert isinstance(beat(second, node), HeartbeatSeen)


def test_a_beating_node_lives_on(start: Any, peers: Any) -> None:
    peer = peers.peer(start(session_timeout_ms=2_000).listener.tcp)
    node = register(peer).node
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert isinstance(beat(peer, node), HeartbeatSeen)
        peer.poller.poll(0.05)


def test_a_coordinator_that_was_stopped_does_not_declare_nodes_dead(spawn: Any, peers: Any) -> None:
    child = spawn(session_timeout_ms=2_000)
    peer = peers.peer(child.endpoint)
    node = register(peer).node
    with suspended(child.process.pid):
        time.sleep(2.2)  # the pause itself is what is tested
    assert isinstance(beat(peer, node), HeartbeatSeen)


def test_a_new_subscriber_hears_a_beat_as_it_can_hear(start: Any, peers: Any) -> None:
    """So it knows at once of what was published while its subscription was on its way."""
    peer = peers.peer(start(beat_interval_ms=3_600_000).listener.tcp)
    publisher = peer.snapshot().publisher
    for _ in range(3):
        assert isinstance(peers.subscribe(publisher.tcp).next(), Beat)


def test_snapshot_and_updates_give_the_state(start: Any, peers: Any) -> None:
    peer = peers.peer(start(session_timeout_ms=60_000, beat_interval_ms=10).listener.tcp)
    updates = peers.listening(peer.snapshot().publisher.tcp)
    first = peer.snapshot()
    state = ClusterState(first.snapshot)
    for node_id in (1, 2, 3):
        node = register(peer, node_id).node
    for number in range(20):
        peer.send(CreateTopic, name=f"t-{number}", partitions=number + 1, timeout_ms=60_000)
    for number in range(0, 20, 2):
        peer.send(DeleteTopic, name=f"t-{number}")
    assert node is not None
    peer.send(LeaveCluster, node_id=3, node_epoch=node.node_epoch)
    while not isinstance(peer.receive(), ClusterLeft):
        pass
    last = peer.snapshot()
    beats = 0
    while state.version < last.snapshot.version or beats == 0:
        published = updates.next()
        assert published.controller_epoch == 1
        if isinstance(published, Beat):
            beats += published.version == last.snapshot.version
        elif published.version > state.version:
            assert published.version == state.version + 1
            state.apply_all(published.changes)
            state.version = published.version
    assert state.snapshot() == last.snapshot
    assert len(last.snapshot.topics) == 10


def test_a_restart_keeps_everything_and_raises_the_controller_epoch(start: Any, peers: Any) -> None:
    first = start(session_timeout_ms=60_000)
    peer = peers.peer(first.listener.tcp)
    nodes = [register(peer, node_id).node for node_id in (1, 2)]
    peer.send(CreateTopic, name="t", partitions=5, timeout_ms=60_000)
    old = new_producer(peer)
    before = peer.snapshot()
    first.coordinator.stop()
    assert failed_with(peer.receive()) == ErrorCode.SHUTTING_DOWN
    first.join()

    second = start(session_timeout_ms=60_000)
    peer = peers.peer(second.listener.tcp)
    after = peer.snapshot()
    assert after.cluster_id == before.cluster_id
    assert after.snapshot.controller_epoch == before.snapshot.controller_epoch + 1
    assert after.snapshot.version == before.snapshot.version
    assert after.snapshot.nodes == before.snapshot.nodes
    assert after.snapshot.topics == before.snapshot.topics
    for node in nodes:
        assert beat(peer, node) == HeartbeatSeen(peer.requests, controller_epoch=2)
    assert new_producer(peer) > old
    raised = peer.ask(InitProducer, producer_id=old, producer_epoch=0)
    assert raised == ProducerReady(peer.requests, producer_id=old, producer_epoch=1)


def test_a_store_that_was_put_back_gives_no_producer_id_a_second_time(
    start: Any, peers: Any, tmp_path: Path
) -> None:
    """Nodes would take the records of the second producer for those of the first, sent again."""
    folder, copy = tmp_path / "coordinator", tmp_path / "copy"
    issued: list[int] = []

    def run() -> None:
        running = start()
        peer = peers.peer(running.listener.tcp)
        issued.extend(new_producer(peer) for _ in range(50))
        running.coordinator.stop()
        running.join()

    run()
    shutil.copytree(folder, copy)
    for _ in range(2):
        run()
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)
    run()
    assert len(set(issued)) == len(issued) == 200
    assert 0 <= min(issued) <= max(issued) < 2**63


def test_a_second_coordinator_on_the_folder_is_refused(start: Any, peers: Any) -> None:
    peer = peers.peer(start().listener.tcp)
    with pytest.raises(DataFolderError, match=f"in use by another process \\({os.getpid()}\\)"):
        start()
    assert isinstance(peer.ask(Ping), Pong)
    register(peer)


def test_an_address_in_use_is_named_and_the_folder_is_given_back(start: Any, tmp_path: Path) -> None:
    used = start().listener.tcp
    with pytest.raises(ConnectionFailedError, match=f"{used}: address already in use"):
        start(tcp=used, data_dir=tmp_path / "other")
    LmdbStore(tmp_path / "other").close()


def test_clients_of_the_same_machine_use_ipc(start: Any, peers: Any, tmp_path: Path) -> None:
    ipc, publisher_ipc = f"ipc://{tmp_path}/run/c.sock", f"ipc://{tmp_path}/run/p.sock"
    listener = start(ipc=ipc, publisher_ipc=publisher_ipc).listener
    assert listener.ipc == ipc
    peer = peers.peer(ipc)
    assert peer.snapshot().publisher.ipc == publisher_ipc
    assert isinstance(peers.listening(publisher_ipc).next(), Beat)


@pytest.mark.parametrize(
    ("header", "frames", "code"),
    [
        (b"\xc1garbage", [], ErrorCode.MALFORMED_REQUEST),
        (b"\x90", [], ErrorCode.MALFORMED_REQUEST),
        (b"\x93\xcc\xfa\x07\x01", [], ErrorCode.MALFORMED_REQUEST),
        (b"\x93\x05\x07\x02", [], ErrorCode.UNSUPPORTED_VERSION),
        (encode(Produce(7, entries=[ProduceEntry(b"t" * 16, 0, 0)])), [], ErrorCode.MALFORMED_REQUEST),
        (encode(GetSnapshot(7)), [b"payload"], ErrorCode.MALFORMED_REQUEST),
        (encode(CreateTopic(7, name="x" * 5000)), [], ErrorCode.MALFORMED_REQUEST),
        (b"\x00" * (HEADER_BYTES_MAX + 1), [], ErrorCode.REQUEST_TOO_LARGE),
    ],
    ids=[
        "garbage",
        "empty",
        "unknown kind",
        "version",
        "for nodes",
        "payload",
        "too long a text",
        "too large",
    ],
)
def test_a_bad_request_is_answered_and_logged_once(
    start: Any,
    peers: Any,
    caplog: pytest.LogCaptureFixture,
    header: bytes,
    frames: list[bytes],
    code: ErrorCode,
) -> None:
    caplog.set_level(logging.WARNING, "tailrace.coordinator")
    endpoint = start().listener.tcp
    bad, good = peers.peer(endpoint), peers.peer(endpoint)
    for _ in range(3):
        bad.send_raw(header, frames)
        assert failed_with(bad.receive()) == code
    assert isinstance(bad.ask(Ping), Pong)
    assert isinstance(good.ask(Ping), Pong)
    assert [record.message.split(":")[0].split()[2:] for record in caplog.records] == [
        ["sent", "a", "bad", "request"]
    ]


def test_it_ends_with_its_parent(start: Any) -> None:
    reader, writer = os.pipe()
    try:
        running = start(parent_fd=reader)
        os.close(writer)
        running.join()
    finally:
        os.close(reader)


def test_it_ends_on_a_signal(spawn: Any, peers: Any) -> None:
    child = spawn()
    assert isinstance(peers.peer(child.endpoint).ask(Ping), Pong)
    child.signal(signal.SIGTERM)
    assert child.wait() == ""
    assert child.process.returncode == 0


def test_a_second_stop_does_nothing(start: Any) -> None:
    running = start()
    running.stop()
    running.coordinator.stop()


def test_a_stop_before_the_start_ends_it_at_once(tmp_path: Path) -> None:
    coordinator = Coordinator(CoordinatorConfig(data_dir=tmp_path / "c", tcp="tcp://127.0.0.1:0"))
    coordinator.stop()
    coordinator.run(lambda _: None)


def test_it_sleeps_when_there_is_nothing_to_do(spawn: Any, peers: Any) -> None:
    child = spawn()
    peer = peers.peer(child.endpoint)
    register(peer)
    ticks = Path(f"/proc/{child.process.pid}/stat")

    def cpu() -> float:
        return sum(map(int, ticks.read_text().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def idle() -> bool:  # a busy machine may charge it with more in some seconds, not in all of them
        before = cpu()
        time.sleep(1.0)  # what is measured is a second of idleness
        return cpu() - before <= 0.06

    wait_until(idle, "it sleeps")
