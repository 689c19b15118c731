"""A replica comes back under a leader elected uncleanly, and has deleted where the two logs part."""

import logging
import time

import pytest

from tailrace.protocol.cluster import PartitionInfo
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.messages import ACKS_ALL, DescribeLogs, GetSnapshot, LogInfo, Produce, SnapshotTaken

from ..patience import wait_until
from .conftest import House, Peer, Running, Topic

HOUR_MS = 3_600_000
DELETED_FROM = {"all": {"retention_ms": HOUR_MS}, "some": {"retention_bytes": 10_000}}


class Cluster:
    """A coordinator, two nodes and what may be asked of them."""

    def __init__(self, house: House) -> None:
        self._house = house
        house.start_coordinator()
        self._coordinator = house.peer(house.coordinator_ipc)
        self._nodes: dict[int, Running] = {}
        self._peers: dict[int, Peer] = {}
        for node_id in (1, 2):
            self.start(node_id)

    def start(self, node_id: int) -> None:
        self._nodes[node_id] = self._house.start(node_id, retention_check_ms=20)
        self._peers[node_id] = self._house.peer(self._house.node_config(node_id).ipc)

    def stop(self, node_id: int) -> None:
        self._nodes[node_id].stop()

    def partition(self) -> PartitionInfo:
        reply, _ = self._coordinator.ask(GetSnapshot)
        assert isinstance(reply, SnapshotTaken)
        return reply.snapshot.topics[0].partitions[0]

    def produce(self, topic: Topic, node_id: int, count: int, value: bytes, ago_ms: int = 0) -> None:
        batch = encode([value], timestamps=time.time_ns() // 1_000_000 - ago_ms)
        topic.epoch = self.partition().leader_epoch
        for _ in range(count):
            reply, _ = self._peers[node_id].ask(Produce, [batch], acks=ACKS_ALL, entries=[topic.entry()])
            assert reply.results[0].error.code == ErrorCode.NONE

    def log(self, node_id: int) -> LogInfo:
        reply, _ = self._peers[node_id].ask(DescribeLogs)
        return reply.logs[0]


@pytest.mark.parametrize("deleted", DELETED_FROM)
@pytest.mark.parametrize("more", [1, 10], ids=["behind", "ahead"])
def test_it_has_what_the_leader_has(
    bare_house: House, deleted: str, more: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It ended at 8. The two have 3 records in common, and after these so many `more` have come."""
    caplog.set_level(logging.INFO)
    cluster = Cluster(bare_house)
    topic = bare_house.create(replicas=2, unclean_leader_election=1, **DELETED_FROM[deleted])
    first = cluster.partition().leader
    second = 3 - first
    cluster.produce(topic, first, 3, b"both", ago_ms=2 * HOUR_MS)
    wait_until(lambda: cluster.partition().isr == (1, 2), "both in sync")
    wait_until(lambda: cluster.log(second).log_end_offset == 3, "both have all")
    cluster.stop(second)
    cluster.produce(topic, first, 5, bytes(6_000), ago_ms=2 * HOUR_MS)
    start = 8 if deleted == "all" else 6
    wait_until(lambda: cluster.log(first).log_start_offset == start, "the first leader deletes")
    cluster.stop(first)

    cluster.start(second)
    wait_until(lambda: cluster.partition().leader == second, "an unclean election")
    cluster.produce(topic, second, more, b"new")
    new_start = 3 if deleted == "all" else 0
    wait_until(lambda: cluster.log(second).log_start_offset == new_start, "the second leader deletes")
    caplog.clear()
    cluster.start(first)
    wait_until(lambda: cluster.partition().isr == (1, 2), "back in sync")
    wait_until(lambda: cluster.log(first) == cluster.log(second), "the same log")
    assert cluster.log(first).log_end_offset == 3 + more
    assert caplog.text.count("begins anew at offset") == 1
    assert "is cut to" not in caplog.text
