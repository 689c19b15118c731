"""Partitions move, a node is emptied and taken out, leadership goes back: under load, and nobody notices."""

from collections.abc import Iterator

import pytest

from tailrace import Admin, Producer, TopicPartition
from tailrace.testing import Cluster

from ..patience import wait_until
from .load import Load


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with Cluster(nodes=3, session_timeout_ms=1_000) as cluster:
        yield cluster


@pytest.fixture
def admin(three: Cluster) -> Iterator[Admin]:
    with Admin(three.bootstrap_servers) as admin:
        yield admin


def moved(admin: Admin, topic: str) -> bool:
    """Nothing of the topic moves, and all its replicas are in sync."""
    parts = admin.describe_topic(topic).partitions
    return all(not part.target and set(part.isr) == set(part.replicas) for part in parts)


def test_a_partition_goes_to_other_nodes_with_its_records(three: Cluster, admin: Admin) -> None:
    admin.create_topic("moved", 1, 1)
    (before,) = admin.describe_topic("moved").partitions
    others = [n for n in (1, 2, 3) if n != before.leader]
    with Load(three.bootstrap_servers, "moved") as load:
        load.wait_for_traffic()
        for target in (others, others[::-1], [before.leader]):
            admin.move_partitions({TopicPartition("moved", 0): target})
            wait_until(lambda: moved(admin, "moved"), "the partition has moved")
            (after,) = admin.describe_topic("moved").partitions
            assert after.replicas == tuple(target)
            load.wait_for_traffic()


def test_a_node_is_emptied_and_its_place_taken_again(three: Cluster, admin: Admin) -> None:
    admin.create_topic("drained", 3, 2, {"min_insync_replicas": 2})
    with Load(three.bootstrap_servers, "drained") as load:
        load.wait_for_traffic()
        admin.drain_node(3)
        wait_until(lambda: admin.drain_node(3).held == 0, "node 3 holds nothing")
        load.wait_for_traffic()
        three.kill(3)
        admin.remove_node(3)
        assert [node.node_id for node in admin.describe_cluster().nodes] == [1, 2]
        load.wait_for_traffic()
        three.start(3)
        admin.ready(nodes=3)
        plan = admin.plan_rebalance()
        assert {3} <= {node_id for replicas in plan.values() for node_id in replicas}
        admin.move_partitions(plan)
        wait_until(lambda: moved(admin, "drained"), "the partitions have moved")
        assert admin.plan_rebalance() == {}
        load.wait_for_traffic()


def held_by(admin: Admin, topic: str) -> dict[int, int]:
    """The nodes that have a log of the topic: its size."""
    logs = admin.describe_logs().items()
    return {node_id: log.size_bytes for node_id, node in logs for log in node.logs if log.topic == topic}


def test_what_has_moved_frees_its_space(three: Cluster, admin: Admin) -> None:
    admin.create_topic("freed", 1, 2)
    (before,) = admin.describe_topic("freed").partitions
    staying, leaving = before.replicas
    (other,) = {1, 2, 3} - {staying, leaving}
    with Producer(three.bootstrap_servers) as producer:
        producer.send_many("freed", [bytes(100_000)] * 100)
    wait_until(lambda: moved(admin, "freed"), "all replicas are in sync")
    used = admin.describe_logs()[leaving].used_bytes
    admin.move_partitions({TopicPartition("freed", 0): [staying, other]})
    wait_until(lambda: set(held_by(admin, "freed")) == {staying, other}, "only its replicas hold it")
    wait_until(lambda: admin.describe_logs()[leaving].used_bytes < used - 9_000_000, "the space is free")
    admin.move_partitions({TopicPartition("freed", 0): [staying, leaving]})
    wait_until(lambda: set(held_by(admin, "freed")) == {staying, leaving}, "it is back")
    sizes = held_by(admin, "freed")
    assert sizes[staying] == sizes[leaving] > 10_000_000


def test_a_node_that_was_away_deletes_what_has_moved_meanwhile(three: Cluster, admin: Admin) -> None:
    admin.create_topic("left", 1, 2)
    (before,) = admin.describe_topic("left").partitions
    staying, leaving = before.replicas
    (other,) = {1, 2, 3} - {staying, leaving}
    wait_until(lambda: set(held_by(admin, "left")) == {staying, leaving}, "its replicas hold it")
    three.kill(leaving)
    wait_until(lambda: admin.describe_topic("left").partitions[0].isr == (staying,), "it is out of sync")
    admin.move_partitions({TopicPartition("left", 0): [staying, other]})
    wait_until(lambda: moved(admin, "left"), "the partition has moved")
    three.start(leaving)
    wait_until(lambda: set(held_by(admin, "left")) == {staying, other}, "only its replicas hold it")


def test_leadership_goes_back(three: Cluster, admin: Admin) -> None:
    admin.create_topic("led", 3, 3)
    before = [part.leader for part in admin.describe_topic("led").partitions]
    assert sorted(filter(None, before)) == [1, 2, 3]
    with Load(three.bootstrap_servers, "led") as load:
        load.wait_for_traffic()
        three.kill(2)
        load.wait_for_traffic()
        three.start(2)
        wait_until(lambda: moved(admin, "led"), "all replicas are in sync")
        assert admin.elect_leaders(["led"]).waiting == 0
        assert [part.leader for part in admin.describe_topic("led").partitions] == before
        load.wait_for_traffic()
