"""A node with a fault in one of its logs: another replica leads, and the log is made anew."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailrace.node.storage import schema
from tailrace.node.storage.environment import Storage
from tailrace.protocol.cluster import PartitionInfo
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.messages import ACKS_ALL, DescribeLogs, GetSnapshot, Produce, SnapshotTaken

from ..patience import wait_until
from .conftest import House, Peer, Topic


@pytest.fixture
def storages(monkeypatch: pytest.MonkeyPatch) -> dict[str, Storage]:
    """Of the nodes that are started, by the name of their folder."""
    opened: dict[str, Storage] = {}
    open_storage = Storage.open

    def remember(folder: Path, **options: Any) -> Storage:
        opened[folder.name] = open_storage(folder, **options)
        return opened[folder.name]

    monkeypatch.setattr(Storage, "open", remember)
    return opened


def spoil(storage: Storage, topic: Topic) -> None:
    """There is something beyond the log's end, so that nothing can be appended."""
    log = storage.logs[topic.id, 0]
    with storage._tables.environment.begin(write=True) as transaction:
        assert transaction.put(schema.offset_key(log.log_end_offset + 5), b"?", db=log.database)


def flip(storage: Storage, topic: Topic, offset: int) -> None:
    """A bit of this batch is another one, as found after a restart: nothing was appended by this process."""
    log = storage.logs[topic.id, 0]
    key = schema.offset_key(offset)
    with storage._tables.environment.begin(write=True) as transaction:
        batch = bytearray(transaction.get(key, db=log.database))
        batch[-1] ^= 1
        assert transaction.put(key, bytes(batch), db=log.database)
    log.hot_offset = log.log_end_offset


def partition(house: House) -> PartitionInfo:
    reply, _ = house.peer(house.coordinator_ipc).ask(GetSnapshot)
    assert isinstance(reply, SnapshotTaken)
    return reply.snapshot.topics[0].partitions[0]


def wait(condition: Callable[[], bool]) -> None:
    wait_until(condition, "another replica leads, or the log is made anew")


def produce(topic: Topic, leader: Peer, value: bytes) -> ErrorCode:
    batch = encode([value], timestamps=time.time_ns() // 1_000_000)
    reply, _ = leader.ask(Produce, [batch], acks=ACKS_ALL, entries=[topic.entry()])
    return ErrorCode(reply.results[0].error.code)


def ends(house: House) -> list[int]:
    replies = [house.peer(house.node_config(node_id).ipc).ask(DescribeLogs)[0] for node_id in (1, 2)]
    return [log.log_end_offset for reply in replies for log in reply.logs]


def two(house: House) -> tuple[Topic, Peer]:
    house.start_coordinator()
    for node_id in (1, 2):
        house.start(node_id)
    topic = house.create(replicas=2)
    leader = house.peer(house.node_config(partition(house).leader).ipc)
    assert produce(topic, leader, b"first") is ErrorCode.NONE
    wait(lambda: partition(house).isr == partition(house).replicas)
    return topic, leader


def test_another_one_leads_and_the_log_is_made_anew(
    bare_house: House, storages: dict[str, Storage], caplog: pytest.LogCaptureFixture
) -> None:
    topic, leader = two(bare_house)
    before = partition(bare_house)
    spoil(storages[f"node-{before.leader}"], topic)
    assert produce(topic, leader, b"second") is ErrorCode.LEADER_NOT_AVAILABLE

    wait(lambda: partition(bare_house).leader not in (before.leader, -1))
    after = partition(bare_house)
    topic.epoch = after.leader_epoch
    leader = bare_house.peer(bare_house.node_config(after.leader).ipc)
    wait(lambda: produce(topic, leader, b"third") is ErrorCode.NONE)
    wait(lambda: set(partition(bare_house).isr) == {1, 2})
    wait(lambda: ends(bare_house) == [2, 2])
    assert not storages[f"node-{before.leader}"].verify().problems
    assert "the log of t-0 is faulty" in caplog.text


def test_a_follower_leaves_and_comes_back_with_a_new_log(
    bare_house: House, storages: dict[str, Storage]
) -> None:
    topic, leader = two(bare_house)
    before = partition(bare_house)
    follower = sum(before.replicas) - before.leader
    spoil(storages[f"node-{follower}"], topic)
    assert produce(topic, leader, b"second") is ErrorCode.NONE
    after = partition(bare_house)
    assert (after.leader, after.leader_epoch) == (before.leader, before.leader_epoch + 1)
    wait(lambda: set(partition(bare_house).isr) == {1, 2})
    wait(lambda: ends(bare_house) == [2, 2])
    assert not storages[f"node-{follower}"].verify().problems


def test_the_last_one_in_sync_stays(bare_house: House, storages: dict[str, Storage]) -> None:
    bare_house.start_coordinator()
    nodes = {node_id: bare_house.start(node_id) for node_id in (1, 2)}
    topic = bare_house.create(replicas=2)
    before = partition(bare_house)
    nodes[sum(before.replicas) - before.leader].stop()
    leader = bare_house.peer(bare_house.node_config(before.leader).ipc)
    assert produce(topic, leader, b"first") is ErrorCode.NONE
    spoil(storages[f"node-{before.leader}"], topic)
    assert produce(topic, leader, b"second") is ErrorCode.LEADER_NOT_AVAILABLE
    assert produce(topic, leader, b"second") is ErrorCode.LEADER_NOT_AVAILABLE
    assert (partition(bare_house).leader, partition(bare_house).isr) == (before.leader, (before.leader,))
    assert len(topic.fetch(leader, 0)[1]) == 1, "what it has can be read"


def test_a_sole_replica_says_what_is_wrong(bare_house: House, storages: dict[str, Storage]) -> None:
    bare_house.start_coordinator()
    bare_house.start(1)
    topic, leader = bare_house.create(), bare_house.peer()
    spoil(storages["node-1"], topic)
    assert produce(topic, leader, b"first") is ErrorCode.STORAGE_FAULT


def test_what_cannot_be_read_is_made_anew_too(bare_house: House, storages: dict[str, Storage]) -> None:
    topic, leader = two(bare_house)
    assert produce(topic, leader, b"second") is ErrorCode.NONE, "the last one is read from memory"
    before = partition(bare_house)
    storage = storages[f"node-{before.leader}"]
    log = storage.logs[topic.id, 0]
    with storage._tables.environment.begin(write=True) as transaction:
        assert transaction.put(schema.offset_key(0), b"rotten", db=log.database)
    reply, frames = topic.fetch(leader, 0)
    assert [result.error.code for result in reply.results] == [ErrorCode.LEADER_NOT_AVAILABLE]
    assert frames == []
    wait(lambda: partition(bare_house).leader not in (before.leader, -1))
    topic.epoch = partition(bare_house).leader_epoch
    leader = bare_house.peer(bare_house.node_config(partition(bare_house).leader).ipc)
    wait(lambda: len(topic.fetch(leader, 0)[1]) == 2)
    wait(lambda: set(partition(bare_house).isr) == {1, 2})
    wait(lambda: not storage.verify().problems)


def test_a_flipped_bit_is_not_served_while_another_one_could_lead(
    bare_house: House, storages: dict[str, Storage], caplog: pytest.LogCaptureFixture
) -> None:
    topic, leader = two(bare_house)
    for value in (b"second", b"third"):
        assert produce(topic, leader, value) is ErrorCode.NONE
    before = partition(bare_house)
    storage = storages[f"node-{before.leader}"]
    flip(storage, topic, 1)
    reply, frames = topic.fetch(leader, 0)
    assert ([result.error.code for result in reply.results], len(frames)) == ([ErrorCode.NONE], 1)
    reply, frames = topic.fetch(leader, 1)
    assert [result.error.code for result in reply.results] == [ErrorCode.LEADER_NOT_AVAILABLE]
    assert frames == []
    assert "the log of t-0 is faulty" in caplog.text
    wait(lambda: partition(bare_house).leader not in (before.leader, -1))
    topic.epoch = partition(bare_house).leader_epoch
    leader = bare_house.peer(bare_house.node_config(partition(bare_house).leader).ipc)
    wait(lambda: len(topic.fetch(leader, 0)[1]) == 3)
    wait(lambda: set(partition(bare_house).isr) == {1, 2})
    wait(lambda: not storage.verify().problems)


def test_a_flipped_bit_of_the_last_one_in_sync(
    bare_house: House, storages: dict[str, Storage], caplog: pytest.LogCaptureFixture
) -> None:
    """Consumers get it, and may leave it out; followers would refuse it, and the node says why."""
    bare_house.start_coordinator()
    nodes = {node_id: bare_house.start(node_id) for node_id in (1, 2)}
    topic = bare_house.create(replicas=2)
    before = partition(bare_house)
    follower = sum(before.replicas) - before.leader
    nodes[follower].stop()
    leader = bare_house.peer(bare_house.node_config(before.leader).ipc)
    for value in (b"first", b"second", b"third"):
        assert produce(topic, leader, value) is ErrorCode.NONE
    flip(storages[f"node-{before.leader}"], topic, 1)
    assert len(topic.fetch(leader, 0)[1]) == 3
    assert "faulty" not in caplog.text
    bare_house.start(follower)
    wait(lambda: "the log of t-0 is faulty" in caplog.text)
    storage = storages[f"node-{follower}"]
    wait(lambda: storage.logs[topic.id, 0].log_end_offset == 1)
    assert (partition(bare_house).leader, partition(bare_house).isr) == (before.leader, (before.leader,))
    assert len(topic.fetch(leader, 0)[1]) == 3
