"""The admin client against a real cluster of one coordinator and two nodes."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tailrace.client.admin import Admin
from tailrace.client.engine import Engine
from tailrace.protocol.batch import parse_header
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import (
    ClosedError,
    ConnectionFailedError,
    InvalidArgumentError,
    InvalidConfigError,
    InvalidTopicError,
    NotEnoughNodesError,
    TopicExistsError,
    UnknownPartitionError,
    UnknownTopicError,
)
from tailrace.protocol.limits import PARTITIONS_PER_TOPIC_MAX
from tailrace.protocol.messages import Produce, Produced, ProduceEntry
from tailrace.protocol.record import TopicPartition

from ..patience import BUSY_S, PATIENCE_S

PROCESS = Path(__file__).with_name("cluster_process.py")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    process = subprocess.Popen(
        [sys.executable, PROCESS, folder, "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process.stdout.readline().strip()
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0, "the cluster stops cleanly"


@pytest.fixture
def admin(address):
    with Admin(address, request_timeout_ms=int(PATIENCE_S * 1_000)) as admin:
        admin.ready(nodes=2)
        yield admin
        for name in admin.list_topics():
            admin.delete_topic(name)


def append(address, topic, partition, values, timestamps):
    """One batch, sent as a producer does."""
    engine = Engine(address, name="append")
    engine.start()
    try:
        info = engine.wait_for_topic(topic, PATIENCE_S)
        place = info.partitions[partition]
        entry = ProduceEntry(info.topic_id, partition, place.leader_epoch)
        batch = encode(values, timestamps=timestamps)
        assert parse_header(batch).record_count == len(values)
        reply, _ = engine.call(
            place.leader,
            lambda request_id: Produce(request_id, entries=[entry]),
            (batch,),
            timeout_s=PATIENCE_S,
        )
        assert isinstance(reply, Produced)
        assert [result.error.code for result in reply.results] == [0]
    finally:
        engine.close()


def test_a_topic_from_its_creation_to_its_end(admin) -> None:
    created = admin.create_topic("flights", 3, config={"retention_ms": 60_000, "retention.bytes": "1000000"})
    assert created.name == "flights"
    assert created.config == {
        "retention_ms": 60_000,
        "retention_bytes": 1_000_000,
        "min_insync_replicas": 1,
        "unclean_leader_election": False,
    }
    assert created.replication_factor == 1
    assert [partition.partition for partition in created.partitions] == [0, 1, 2]
    assert {partition.leader for partition in created.partitions} == {1, 2}
    assert admin.list_topics() == ["flights"]
    assert admin.describe_topic("flights") == created
    assert admin.describe_topics() == [created]
    admin.delete_topic("flights")
    assert admin.list_topics() == []
    with pytest.raises(UnknownTopicError):
        admin.describe_topic("flights")


def test_a_topic_can_be_written_as_soon_as_it_is_created(admin, address) -> None:
    for number in range(5):
        admin.create_topic(f"t{number}")
        append(address, f"t{number}", 0, [b"v"], 1)


def test_the_cluster_is_described(admin) -> None:
    admin.create_topic("b")
    admin.create_topic("a")
    cluster = admin.describe_cluster()
    assert cluster.cluster_id
    assert cluster.controller_epoch == 1
    assert cluster.topics == ("a", "b")
    assert [(node.node_id, node.alive) for node in cluster.nodes] == [(1, True), (2, True)]
    assert all(node.tcp.startswith("tcp://127.0.0.1:") and node.ipc for node in cluster.nodes)


def test_offsets_by_time_and_at_the_ends(admin, address) -> None:
    admin.create_topic("flights", 2)
    first, second = TopicPartition("flights", 0), TopicPartition("flights", 1)
    append(address, "flights", 0, [b"a", b"b"], [1_000, 2_000])
    append(address, "flights", 0, [b"c"], 3_000)
    ends = admin.list_offsets({first: Admin.LATEST, second: Admin.LATEST})
    assert [(place, at.offset) for place, at in ends.items()] == [(first, 3), (second, 0)]
    assert admin.list_offsets({first: Admin.EARLIEST})[first].offset == 0
    by_time = {
        timestamp: admin.list_offsets({first: timestamp})[first] for timestamp in (0, 1_500, 3_000, 3_001)
    }
    assert by_time == {0: (0, 1_000), 1_500: (1, 2_000), 3_000: (2, 3_000), 3_001: None}
    assert admin.list_offsets({}) == {}


def test_logs_are_described_with_names_and_sizes(admin, address) -> None:
    admin.create_topic("flights", 2)
    append(address, "flights", 1, [b"x" * 1000], 1)
    nodes = admin.describe_logs()
    assert sorted(nodes) == [1, 2]
    logs = {(log.topic, log.partition): log for node in nodes.values() for log in node.logs if log.topic}
    assert sorted(logs) == [("flights", 0), ("flights", 1)]
    written = logs["flights", 1]
    assert (written.log_start_offset, written.log_end_offset, written.high_watermark) == (0, 1, 1)
    assert written.size_bytes > 1000
    assert all(0 < node.used_bytes < node.quota_bytes for node in nodes.values())
    assert list(admin.describe_logs([2])) == [2]


def test_what_the_coordinator_refuses(admin) -> None:
    admin.create_topic("flights")
    there = admin.create_topic("flights", partitions=99, exist_ok=True)
    assert there == admin.describe_topic("flights"), "it is left as it is"
    with pytest.raises(TopicExistsError, match="flights"):
        admin.create_topic("flights")
    with pytest.raises(InvalidTopicError, match="a/b"):
        admin.create_topic("a/b")
    with pytest.raises(InvalidConfigError, match="did you mean 'retention_ms'"):
        admin.create_topic("other", config={"retention_mss": 1})
    with pytest.raises(InvalidConfigError, match="neither true nor false"):
        admin.create_topic("other", config={"unclean_leader_election": 2})
    with pytest.raises(UnknownTopicError, match="flights"):
        admin.delete_topic("flihgts")
    with pytest.raises(UnknownTopicError, match="did you mean 'flights'"):
        admin.describe_topics(["flights", "flihgts"])
    with pytest.raises(UnknownTopicError, match="did you mean 'flights'"):
        admin.list_offsets({TopicPartition("flihgts", 0): Admin.LATEST})
    with pytest.raises(UnknownPartitionError, match="'flights' has 1 partitions, so there is no 1"):
        admin.list_offsets({TopicPartition("flights", 1): Admin.LATEST})
    assert admin.list_topics() == ["flights"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": 5}, InvalidTopicError),
        ({"name": "t", "partitions": 0}, InvalidArgumentError),
        ({"name": "t", "partitions": PARTITIONS_PER_TOPIC_MAX + 1}, InvalidArgumentError),
        ({"name": "t", "partitions": 2.5}, InvalidArgumentError),
        ({"name": "t", "replication_factor": True}, InvalidArgumentError),
        ({"name": "t", "config": {"retention_ms": None}}, InvalidConfigError),
        ({"name": "t", "config": {5: 5}}, InvalidConfigError),
        ({"name": "t", "timeout_ms": -1}, InvalidArgumentError),
    ],
)
def test_arguments_that_do_not_fit(admin, arguments, error) -> None:
    with pytest.raises(error):
        admin.create_topic(**arguments)
    assert admin.list_topics() == []


def test_ready_says_what_is_missing(admin) -> None:
    started = time.monotonic()
    with pytest.raises(NotEnoughNodesError, match="2 nodes are alive, 3 are needed"):
        admin.ready(300, nodes=3)
    assert time.monotonic() - started < 0.3 + BUSY_S


def test_a_dead_address(free_address) -> None:
    with Admin(free_address) as admin:
        for call in (
            admin.list_topics,
            admin.describe_cluster,
            admin.ready,
            lambda **t: admin.create_topic("t", **t),
        ):
            started = time.monotonic()
            with pytest.raises(ConnectionFailedError, match=f"{free_address}: connection refused"):
                call(timeout_ms=100)
            assert time.monotonic() - started < 0.1 + BUSY_S


def test_a_closed_admin(address) -> None:
    admin = Admin(address)
    admin.close()
    with pytest.raises(ClosedError, match=r"admin-\d+ is closed"):
        admin.list_topics()
