"""Nodes and coordinators that stop, die and come back; what a client may rely on meanwhile."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tailrace.node.main import Node
from tailrace.protocol.columns import encode
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import ConnectionFailedError, DataFolderError, ErrorCode, NodeIdInUseError
from tailrace.protocol.messages import (
    LATEST,
    CreateTopic,
    DeleteTopic,
    DescribeLogs,
    Fetch,
    GetSnapshot,
    ListOffsets,
    OffsetQuery,
    Ping,
    Produce,
    SnapshotTaken,
    TopicCreated,
)

from ..patience import BUSY_S, PATIENCE_S, wait_until

NOW = time.time_ns() // 1_000_000


def batch(value: bytes, sequence: int = -1) -> bytes:
    producer = 7 if sequence >= 0 else -1
    return encode(
        [value],
        timestamps=NOW,
        producer_id=producer,
        producer_epoch=0 if sequence >= 0 else -1,
        base_sequence=sequence,
    )


def topic_info(house: Any, name: str = "t") -> Any:
    reply, _ = house.peer(house.coordinator_ipc).ask(GetSnapshot)
    assert isinstance(reply, SnapshotTaken)
    (topic,) = [topic for topic in reply.snapshot.topics if topic.name == name]
    return topic


def follow_epoch(house: Any, topic: Any) -> None:
    """Take the topic's leader epoch as it is now."""
    topic.epoch = topic_info(house).partitions[0].leader_epoch


def fetched(topic: Any, peer: Any) -> list[bytes]:
    _, frames = topic.fetch(peer, 0)
    return [value for frame in frames for value in decode(frame).values]


def test_a_leader_tells_where_earlier_epochs_ended(house: Any) -> None:
    """There a consumer begins that was to read from the end while nobody led the partition."""
    node, topic = house.start(), house.create()
    ended = []
    for values in ([b"0", b"1"], [], [b"2"]):
        follow_epoch(house, topic)
        peer = house.peer()
        if values:
            topic.produce(peer, *values)
        ended.append(topic.epoch)
        node.stop()
        node = house.start()
    follow_epoch(house, topic)
    peer = house.peer()
    queries = [OffsetQuery(topic.id, 0, topic.epoch, LATEST, epoch) for epoch in ended]
    reply, _ = peer.ask(ListOffsets, queries=queries)
    assert [result.offset for result in reply.results] == [2, 2, 3]
    # One that has not ended, or is yet to come, tells nothing but the high watermark.
    queries = [
        OffsetQuery(topic.id, 0, topic.epoch, LATEST, epoch) for epoch in (topic.epoch, topic.epoch + 1)
    ]
    reply, _ = peer.ask(ListOffsets, queries=queries)
    assert [result.offset for result in reply.results] == [3, 3]


@pytest.mark.parametrize("kill", [True, False])
def test_what_was_acked_is_there_after_a_restart(house: Any, kill: bool) -> None:
    process = house.spawn()
    topic, peer = house.create(), house.peer()
    sealed = [batch(b"%d" % n, n) for n in range(20)]
    for one in sealed:
        assert peer.ask(Produce, [one], entries=[topic.entry()])[0].results[0].error.code == 0
    process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
    assert process.wait(PATIENCE_S) == (-signal.SIGKILL if kill else 0)

    house.spawn()
    follow_epoch(house, topic)
    peer = house.peer()
    assert fetched(topic, peer) == [b"%d" % n for n in range(20)]
    # Retries of before are recognised, what follows is appended.
    for sequence, offset in ((19, 19), (0, 0), (20, 20)):
        entries = [topic.entry()]
        reply, _ = peer.ask(Produce, [batch(b"%d" % sequence, sequence)], entries=entries)
        assert (reply.results[0].error.code, reply.results[0].base_offset) == (0, offset)
    assert len(fetched(topic, peer)) == 21


def test_a_restart_fences_the_epoch_before(house: Any) -> None:
    first = house.start()
    topic = house.create()
    first.stop()
    house.start()
    assert topic_info(house).partitions[0].leader_epoch > topic.epoch
    peer = house.peer()
    assert topic.produce(peer, b"late").error.code == ErrorCode.FENCED_LEADER_EPOCH
    reply, _ = topic.fetch(peer, 0)
    assert [result.error.code for result in reply.results] == [ErrorCode.FENCED_LEADER_EPOCH]


def test_a_node_leaves_when_it_stops(house: Any) -> None:
    node = house.start()
    house.create()
    assert topic_info(house).partitions[0].leader == 1
    node.stop()
    assert topic_info(house).partitions[0].leader == -1


def test_a_stop_commits_and_answers_what_was_accepted(house: Any) -> None:
    node = house.start()
    topic, peer, idle = house.create(), house.peer(), house.peer()
    parked = idle.send(Fetch, entries=[topic.fetch_entry(0)], max_wait_ms=60_000, min_bytes=10_000_000)
    requests = [peer.send(Produce, [batch(b"%d" % n)], entries=[topic.entry()]) for n in range(50)]
    first, _ = peer.receive()
    start = time.monotonic()
    node.part.stop()
    reply, frames = idle.receive()
    assert (reply.request_id, reply.results, frames) == (parked, [], [])
    replies = [first, *(peer.receive()[0] for _ in requests[1:])]
    node.stop()
    assert time.monotonic() - start < BUSY_S, "it waited for the parked fetch"
    stored = [reply.results[0].base_offset for reply in replies if hasattr(reply, "results")]
    refused = [reply.error.code for reply in replies if not hasattr(reply, "results")]
    assert stored == list(range(len(stored)))
    assert set(refused) <= {ErrorCode.SHUTTING_DOWN}

    house.start()
    follow_epoch(house, topic)
    assert len(fetched(topic, house.peer())) == len(stored)


def test_a_clean_stop_is_told_to_the_next_start(house: Any) -> None:
    from tailrace.node.storage.environment import Storage

    house.start().stop()
    config = house.node_config()
    storage = Storage.open(config.data_dir, quota_bytes=config.quota_bytes, reserve_bytes=0)
    clean = storage.clean
    storage.close(clean=True)
    assert clean


def test_data_flows_while_the_coordinator_restarts(house: Any) -> None:
    house.start()
    topic, peer = house.create(), house.peer()
    house.coordinator.stop()
    for n in range(5):
        assert topic.produce(peer, b"%d" % n).error.code == 0
    house.start_coordinator()
    other = house.create("other")
    assert other.produce(peer, b"a").error.code == 0
    # The node took its session up again: the same leader epoch is served.
    assert topic.produce(peer, b"5").error.code == 0
    assert len(fetched(topic, peer)) == 6


def test_a_node_waits_for_its_coordinator(bare_house: Any, caplog: Any) -> None:
    node = bare_house.launch()
    deadline = time.monotonic() + PATIENCE_S
    while "no coordinator at" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not node.is_ready()
    bare_house.start_coordinator()
    node.wait_ready()


def test_a_node_that_never_found_its_coordinator_can_be_stopped(bare_house: Any) -> None:
    node = bare_house.launch()
    node.stop()
    assert not node.listener.tcp


def test_a_topic_that_was_deleted_while_the_node_was_away_is_dropped(house: Any) -> None:
    node = house.start()
    gone, kept, peer = house.create("gone"), house.create("kept"), house.peer()
    for topic in (gone, kept):
        topic.produce(peer, b"a")
    node.stop()
    house.peer(house.coordinator_ipc).ask(DeleteTopic, name="gone")
    house.start()
    peer = house.peer()
    deadline = time.monotonic() + PATIENCE_S
    while {log.topic_id for log in peer.ask(DescribeLogs)[0].logs} != {kept.id}:
        assert time.monotonic() < deadline


def test_logs_that_the_cluster_does_not_know_are_kept(house: Any, caplog: Any) -> None:
    """The coordinator lost its data: not a reason to delete the node's."""
    node = house.start()
    topic = house.create()
    topic.produce(house.peer(), b"a")
    node.stop()
    house.coordinator.stop()
    (house.folder / "coordinator").rename(house.folder / "lost")
    house.start_coordinator()
    house.start()
    assert f"not in the cluster state; their logs are kept: {topic.id.hex()}" in caplog.text
    assert caplog.text.count("their logs are kept") == 1
    peer = house.peer()
    assert {log.topic_id for log in peer.ask(DescribeLogs)[0].logs} == {topic.id}
    assert topic.produce(peer, b"b").error.code == ErrorCode.NOT_LEADER


def test_an_older_coordinator_is_refused(house: Any) -> None:
    """Its epoch is as high in the end, but it lacks the marks that the node has heard of."""
    node = house.start()
    house.coordinator.stop()
    folder, older = house.folder / "coordinator", house.folder / "older"
    shutil.copytree(folder, older)
    for name in ("second", "third"):
        house.start_coordinator()
        house.create(name)
        house.coordinator.stop()
    node.stop()
    folder.rename(house.folder / "newer")
    older.rename(folder)
    for _ in range(3):
        house.start_coordinator()
        with pytest.raises(DataFolderError, match="runs on an older copy of its data folder"):
            house.start()
        house.coordinator.stop()


def test_a_created_topic_can_be_written_at_once(house: Any) -> None:
    house.start()
    peer = house.peer()
    for n in range(20):
        assert house.create(f"t{n}", partitions=3).produce(peer, b"a", partition=2).error.code == 0


def test_two_nodes_share_the_partitions(house: Any) -> None:
    house.start(1)
    house.start(2)
    reply, _ = house.peer(house.coordinator_ipc).ask(CreateTopic, name="t", partitions=4)
    assert isinstance(reply, TopicCreated)
    peers = {node_id: house.peer(house.node_config(node_id).ipc) for node_id in (1, 2)}
    logs = {
        node_id: {log.partition for log in peer.ask(DescribeLogs)[0].logs} for node_id, peer in peers.items()
    }
    assert {len(partitions) for partitions in logs.values()} == {2}
    assert logs[1] | logs[2] == {0, 1, 2, 3}


def test_the_data_folder_is_held_by_one_node(house: Any) -> None:
    house.start()
    with pytest.raises(DataFolderError):
        house.start(1, ipc="")
    assert house.create().produce(house.peer(), b"a").error.code == 0


def test_an_address_in_use_is_an_error_that_names_it(house: Any) -> None:
    node = house.start()
    with pytest.raises(ConnectionFailedError, match=node.listener.tcp):
        house.start(2, tcp=node.listener.tcp)
    house.start(2)


def test_a_node_id_in_use_ends_the_second_node(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.node.membership.NODE_ID_PATIENCE_S", 0.1)
    house.start()
    with pytest.raises(NodeIdInUseError, match="node 1 is alive"):
        house.start(1, data_dir=house.folder / "other", ipc="")
    assert house.create().produce(house.peer(), b"a").error.code == 0


def test_a_node_ends_with_its_parent(house: Any) -> None:
    read_end, write_end = os.pipe()
    ready = threading.Event()
    node = Node(house.node_config())
    thread = threading.Thread(target=node.run, args=(lambda _: ready.set(), read_end))
    thread.start()
    assert ready.wait(PATIENCE_S)
    os.write(write_end, b"a word is no end")
    assert house.peer().ask(Ping)
    os.close(write_end)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    os.close(read_end)


def test_stop_before_run_and_after_it(house: Any) -> None:
    node = Node(house.node_config())
    node.stop()
    node.run(lambda _: None)
    node.stop()


def test_an_idle_node_uses_hardly_any_cpu(house: Any) -> None:
    process = house.spawn()
    topic, peer = house.create(), house.peer()
    topic.produce(peer, b"a")
    peer.send(Fetch, entries=[topic.fetch_entry(1)], max_wait_ms=60_000)

    def cpu() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def idle() -> bool:  # a busy machine may charge it with more in some seconds, not in all of them
        before = cpu()
        time.sleep(1.5)  # what is measured is idleness
        return cpu() - before <= 0.03

    wait_until(idle, "it sleeps")
