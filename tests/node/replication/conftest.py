"""A node's part in replication without a node: nothing is sent, and nothing is written."""

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.node.leaders import Led
from tailrace.node.replication.replication import Replication
from tailrace.protocol.cluster import ClusterState, PartitionInfo, Snapshot, TopicConfig, TopicInfo

TOPIC = bytes(16)
KEY = (TOPIC, 0)
LEASE_S = 10.0


def topic(*isr: int, partition_epoch: int = 0) -> TopicInfo:
    partition = PartitionInfo((1, 2, 3), 1, 4, partition_epoch, isr)
    return TopicInfo(TOPIC, "t", TopicConfig(min_insync_replicas=2), (partition,))


@pytest.fixture
def log() -> Any:
    return SimpleNamespace(key=KEY, name="t-0", sole_replica=False, epoch_start=0, high_watermark=5)


@pytest.fixture
def cluster() -> ClusterState:
    return ClusterState(Snapshot(1, 1, (), (topic(1, 2),)))


@pytest.fixture
def replication(log: Any, cluster: ClusterState) -> Replication:
    anything: Any = SimpleNamespace(
        lease_until=LEASE_S, cluster=cluster, end_of_epoch=None, last_epoch=None, add=None
    )
    made = Replication(
        1,
        connect=anything,
        poller=anything,
        membership=anything,
        coordinators=("tcp://127.0.0.1:1",),
        storage=anything,
        writer=anything,
        random=Random(1),
    )
    made.lead({KEY: Led(log, 4)}, 0.0)
    return made
