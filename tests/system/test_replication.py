"""Three replicas: what is acknowledged survives whatever happens to a minority, and nobody notices.

`Load` checks at its end that nothing was lost, nothing came twice, and each key's order was kept.
"""

import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tailrace import Admin, Consumer, Producer, TopicPartition
from tailrace.node.storage import Storage
from tailrace.protocol.cluster import NO_LEADER, PartitionInfo
from tailrace.protocol.errors import NotEnoughReplicasError, TimedOutError
from tailrace.protocol.limits import MIB, REPLICA_FETCH_BYTES_MAX
from tailrace.testing import Cluster

from ..patience import BUSY_S, PATIENCE_S, wait_until
from ..suspended import suspended
from .load import Load

NODES = (1, 2, 3)
GIVES_UP_MS = 5_000
"""How long a producer tries: long enough for an answer of a busy machine, and to be waited out."""
_numbers = count(1)


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    """Three nodes that these tests break and mend again."""
    with Cluster(nodes=3, session_timeout_ms=1_000) as cluster:
        yield cluster


@pytest.fixture
def admin(three: Cluster) -> Iterator[Admin]:
    with Admin(three.bootstrap_servers) as admin:
        yield admin


def create(admin: Admin, partitions: int = 3, min_insync: int = 2, **config: int | str) -> str:
    name = f"replicated-{next(_numbers)}"
    config["min_insync_replicas"] = min_insync
    admin.create_topic(name, partitions=partitions, replication_factor=3, config=config)
    return name


def partitions(admin: Admin, topic: str) -> tuple[PartitionInfo, ...]:
    """As the coordinator has them now."""
    return admin._engine.refresh(PATIENCE_S).existing_topic(topic).partitions


def whole(admin: Admin, topic: str) -> None:
    """Wait until all replicas of the topic are in sync."""
    wait_until(lambda: all(len(p.isr) == 3 for p in partitions(admin, topic)), "all replicas are in sync")


def test_leaders_killed_in_turn(three: Cluster, admin: Admin) -> None:
    topic = create(admin)
    with Load(three.bootstrap_servers, topic) as load:
        for node_id in NODES:
            load.wait_for_traffic()
            load.wait_for_flight()
            three.kill(node_id)
            load.wait_for_traffic()
            assert all(node_id not in p.isr and p.leader > 0 for p in partitions(admin, topic))
            three.start(node_id)
            whole(admin, topic)


def test_a_new_leader_long_before_the_session_of_the_old_one_is_over() -> None:
    """By its closed connection: about 0.3 s on an idle machine."""
    with Cluster(nodes=3, session_timeout_ms=60_000) as cluster, Admin(cluster.bootstrap_servers) as admin:
        topic = create(admin, partitions=1)
        (before,) = partitions(admin, topic)
        with Producer(cluster.bootstrap_servers, linger_ms=0) as producer:
            producer.send(topic, b"before").result(PATIENCE_S)
            killed_at = time.monotonic()
            cluster.kill(before.leader)
            producer.send(topic, b"after").result(PATIENCE_S)
            assert time.monotonic() - killed_at < BUSY_S
        (after,) = partitions(admin, topic)
    assert after.leader != before.leader
    assert after.leader_epoch > before.leader_epoch


def test_a_suspended_leader_is_replaced_and_what_it_says_later_counts_for_nothing(
    three: Cluster, admin: Admin
) -> None:
    topic = create(admin, partitions=1)
    with Load(three.bootstrap_servers, topic, request_timeout_ms=1_000) as load:
        load.wait_for_traffic()
        (before,) = partitions(admin, topic)
        with suspended(three.pid(before.leader)):
            wait_until(
                lambda: partitions(admin, topic)[0].leader not in (-1, before.leader), "another leader"
            )
            load.wait_for_traffic()
        load.wait_for_traffic()
        whole(admin, topic)


def test_a_suspended_follower_leaves_and_comes_back(three: Cluster, admin: Admin) -> None:
    topic = create(admin, partitions=1)
    with Load(three.bootstrap_servers, topic) as load:
        load.wait_for_traffic()
        (info,) = partitions(admin, topic)
        follower = next(n for n in info.isr if n != info.leader)
        with suspended(three.pid(follower)):
            wait_until(lambda: follower not in partitions(admin, topic)[0].isr, "the follower is out")
            load.wait_for_traffic()
        whole(admin, topic)


def test_all_killed_at_once(three: Cluster, admin: Admin) -> None:
    topic = create(admin)
    with Load(three.bootstrap_servers, topic) as load:
        load.wait_for_traffic()
        load.wait_for_flight()
        three.kill_coordinator()
        for node_id in NODES:
            three.kill(node_id)
        three.start_coordinator()
        for node_id in NODES:
            three.start(node_id)
        load.wait_for_traffic()
        whole(admin, topic)


def test_the_coordinator_away_while_data_flows(three: Cluster, admin: Admin) -> None:
    topic = create(admin)
    with Load(three.bootstrap_servers, topic) as load:
        load.wait_for_traffic()
        three.kill_coordinator()
        load.wait_for_traffic()
        three.start_coordinator()
        load.wait_for_traffic()


@pytest.mark.slow
def test_too_few_in_sync(three: Cluster, admin: Admin) -> None:
    """With min_insync_replicas=2 and one node left: no acks=all, reads go on, and all of it comes back."""
    topic = create(admin, partitions=1)
    tp = TopicPartition(topic, 0)
    with Producer(three.bootstrap_servers, linger_ms=0, delivery_timeout_ms=GIVES_UP_MS) as producer:
        producer.send(topic, b"safe").result()
        (info,) = partitions(admin, topic)
        others = [node_id for node_id in info.replicas if node_id != info.leader]
        for node_id in others:
            three.kill(node_id)
        wait_until(lambda: len(partitions(admin, topic)[0].isr) == 1, "the leader is alone")
        assert set(partitions(admin, topic)[0].elr) | set(partitions(admin, topic)[0].isr) >= {info.leader}
        refused = producer.send(topic, b"refused")
        with pytest.raises((TimedOutError, NotEnoughReplicasError), match="min_insync_replicas"):
            refused.result()
        with Consumer(bootstrap_servers=three.bootstrap_servers, auto_offset_reset="earliest") as consumer:
            consumer.assign([tp])
            assert next(iter(consumer)).value == b"safe"
        for node_id in others:
            three.start(node_id)
        whole(admin, topic)
        producer.send(topic, b"again").result()
        with pytest.raises(Exception, match="1 record not acknowledged"):
            producer.close()


@pytest.mark.slow
def test_a_follower_that_was_far_behind_has_all_of_it_in_order(three: Cluster, admin: Admin) -> None:
    """It reads ahead of its disk while it catches up."""
    topic = create(admin, partitions=1, min_insync=1)
    (info,) = partitions(admin, topic)
    follower = next(n for n in info.replicas if n != info.leader)
    three.kill(follower)
    values = [number.to_bytes(4) * (MIB // 16) for number in range(8 * REPLICA_FETCH_BYTES_MAX * 4 // MIB)]
    with Producer(three.bootstrap_servers) as producer:
        producer.send_many(topic, values)
    three.start(follower)
    whole(admin, topic)
    others = [node_id for node_id in info.replicas if node_id != follower]
    for node_id in others:
        three.kill(node_id)
    wait_until(lambda: partitions(admin, topic)[0].leader == follower, "the follower leads")
    with Consumer(bootstrap_servers=three.bootstrap_servers, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        records = iter(consumer)
        assert [next(records).value for _ in values] == values
    for node_id in others:
        three.start(node_id)
    whole(admin, topic)


def test_a_replica_without_its_disk_is_made_anew(three: Cluster, admin: Admin) -> None:
    topic = create(admin, partitions=1)
    with Load(three.bootstrap_servers, topic) as load:
        load.wait_for_traffic()
        (info,) = partitions(admin, topic)
        follower = next(n for n in info.isr if n != info.leader)
        three.kill(follower)
        wait_until(lambda: follower not in partitions(admin, topic)[0].isr, "the follower is out")
        shutil.rmtree(node_folder(three, follower))
        three.start(follower)
        load.wait_for_traffic()
        whole(admin, topic)


def test_who_may_lack_records_leads_only_where_the_topic_says_so() -> None:
    """What only the dead leader had is kept for when it is back, or given up: then both replicas agree."""
    with Cluster(nodes=2, session_timeout_ms=1_000) as cluster, Admin(cluster.bootstrap_servers) as admin:
        for topic in ("safe", "risky"):
            config = {"unclean_leader_election": topic == "risky"}
            admin.create_topic(topic, partitions=1, replication_factor=2, config=config)

        def write(value: bytes) -> None:
            with Producer(cluster.bootstrap_servers, linger_ms=0) as producer:
                for topic in ("safe", "risky"):
                    producer.send(topic, value).result(PATIENCE_S)

        def written(topic: str) -> list[bytes]:
            with Consumer(
                bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest"
            ) as consumer:
                place = TopicPartition(topic, 0)
                consumer.assign([place])
                records = iter(consumer)
                return [next(records).value for _ in range(consumer.end_offsets([place])[place])]

        write(b"to both")
        cluster.kill(2)
        write(b"to one")
        cluster.kill(1)
        cluster.start(2)
        wait_until(lambda: partitions(admin, "risky")[0].leader == 2, "the other one leads")
        assert partitions(admin, "safe")[0].leader == NO_LEADER
        assert admin.describe_cluster().unclean_elections == 1
        assert "unclean election" in (cluster.log_folder / "coordinator.log").read_text()
        assert written("risky") == [b"to both"]
        cluster.start(1)
        for topic in ("safe", "risky"):
            wait_until(lambda topic=topic: len(partitions(admin, topic)[0].isr) == 2, "both are in sync")
        assert written("safe") == [b"to both", b"to one"]
        write(b"again")
        assert written("safe") == [b"to both", b"to one", b"again"]
        assert written("risky") == [b"to both", b"again"]


@pytest.mark.slow
def test_a_replica_with_an_older_copy_of_its_disk_does_not_lead() -> None:
    with Cluster(nodes=2, session_timeout_ms=1_000) as cluster, Admin(cluster.bootstrap_servers) as admin:
        admin.create_topic("t", partitions=1, replication_factor=2, config={"min_insync_replicas": 2})
        with Producer(cluster.bootstrap_servers, linger_ms=0) as producer:
            producer.send("t", b"before").result(PATIENCE_S)
            (info,) = partitions(admin, "t")
            follower = next(n for n in info.replicas if n != info.leader)
            folder = node_folder(cluster, follower)
            cluster.kill(follower)
            shutil.copytree(folder, folder.with_name("copy"))
            cluster.start(follower)
            wait_until(lambda: len(partitions(admin, "t")[0].isr) == 2, "both are in sync")
            producer.send("t", b"after").result(PATIENCE_S)
        cluster.kill(info.leader)
        wait_until(lambda: partitions(admin, "t")[0].leader == follower, "the follower leads")
        cluster.kill(follower)
        shutil.rmtree(folder)
        folder.with_name("copy").rename(folder)
        cluster.start(follower)
        (back,) = partitions(admin, "t")
        assert (back.leader, back.isr, back.elr) == (NO_LEADER, (), (info.leader,))
        assert "older copy of its storage" in (cluster.log_folder / "coordinator.log").read_text()
        cluster.start(info.leader)
        wait_until(lambda: len(partitions(admin, "t")[0].isr) == 2, "both are in sync")
        with Consumer(bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest") as consumer:
            consumer.assign([TopicPartition("t", 0)])
            records = iter(consumer)
            assert [next(records).value, next(records).value] == [b"before", b"after"]


def node_folder(cluster: Cluster, node_id: int) -> Path:
    (folder,) = cluster.log_folder.parent.glob(f"**/node-{node_id}")
    return folder


def test_the_replicas_are_the_same_byte_for_byte() -> None:
    with Cluster(nodes=3, session_timeout_ms=1_000) as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            topic = create(admin)
            with Load(cluster.bootstrap_servers, topic) as load:
                for node_id in NODES[:2]:
                    load.wait_for_flight()
                    cluster.kill(node_id)
                    load.wait_for_traffic()
                    cluster.start(node_id)
                load.wait_for_traffic()
            whole(admin, topic)
            topic_id = admin._engine.refresh(PATIENCE_S).existing_topic(topic).topic_id
            ends = [load_end(cluster, topic, partition) for partition in range(3)]
        folders = [node_folder(cluster, node_id) for node_id in NODES]
        for node_id in NODES:
            cluster.kill(node_id)
        contents = [
            [contents_of(folder, (topic_id, partition), end) for partition, end in enumerate(ends)]
            for folder in folders
        ]
    assert all(sum(map(len, logs)) > 0 for logs in contents)
    assert contents[0] == contents[1] == contents[2]


def load_end(cluster: Cluster, topic: str, partition: int) -> int:
    tp = TopicPartition(topic, partition)
    with Consumer(bootstrap_servers=cluster.bootstrap_servers) as consumer:
        return consumer.end_offsets([tp])[tp]


def contents_of(folder: Path, key: tuple[bytes, int], end: int) -> list[bytes]:
    """The committed batches of one log, and a check of the whole storage."""
    storage = Storage.open(folder, quota_bytes=16 << 30, reserve_bytes=1 << 20)
    try:
        assert not storage.verify().problems
        log = storage.logs[key]
        return storage.read(log, log.log_start_offset, 1 << 30, end, bytes)
    finally:
        storage.close(clean=True)
