"""A node's folder in a cluster that is not its own."""

import shutil
from pathlib import Path

import pytest

from tailrace import Admin, Producer, TailraceError
from tailrace.node.belonging import Belonging
from tailrace.protocol.cluster import Snapshot, TopicConfig, TopicInfo
from tailrace.protocol.messages import SnapshotTaken
from tailrace.testing import Cluster

HELD = {b"t" * 16}
TOPIC = TopicInfo(b"x" * 16, "theirs", TopicConfig(), ())


def told(cluster_id: str, *topics: TopicInfo) -> SnapshotTaken:
    return SnapshotTaken(1, cluster_id=cluster_id, snapshot=Snapshot(1, 1, (), topics))


def joined(folder: Path, *cluster_ids: str) -> Belonging:
    for cluster_id in cluster_ids:
        belonging = Belonging(folder)
        assert belonging.meet(told(cluster_id), HELD) is None
        belonging.record()
    return Belonging(folder)


def test_a_node_with_logs_joins_no_other_cluster_with_topics(tmp_path: Path) -> None:
    belonging = joined(tmp_path, "ours")
    refusal = belonging.meet(told("theirs", TOPIC), HELD)
    assert "belongs to cluster ours, and the coordinator to cluster theirs" in str(refusal)
    assert belonging.meet(told("theirs", TOPIC), ()) is None, "without logs there is nothing to mix up"
    assert belonging.meet(told("ours", TOPIC), HELD) is None


def test_a_node_that_was_in_no_cluster_joins_any(tmp_path: Path) -> None:
    assert Belonging(tmp_path).meet(told("theirs", TOPIC), HELD) is None


def test_a_coordinator_that_lost_its_store_and_one_that_has_it_again(tmp_path: Path) -> None:
    belonging = joined(tmp_path, "ours", "anew")
    assert (tmp_path / "clusters").read_text() == "ours\nanew\n"
    assert belonging.meet(told("anew", TOPIC), HELD) is None
    assert belonging.meet(told("ours", TOPIC), HELD) is None


def test_a_disk_that_takes_nothing_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    belonging = Belonging(tmp_path)
    belonging.meet(told("ours"), HELD)
    (tmp_path / "clusters.new").mkdir()
    belonging.record()
    assert "that the node is in cluster ours is not recorded" in caplog.text


def test_folders_that_were_mixed_up() -> None:
    with Cluster() as ours, Cluster() as theirs:
        for cluster in (ours, theirs):
            with Admin(cluster.bootstrap_servers) as admin:
                admin.create_topic("orders")
            with Producer(cluster.bootstrap_servers) as producer:
                producer.send("orders", b"x")
            cluster.kill(1)
        own, other = theirs.data_dir / "node-1", theirs.data_dir / "kept"
        own.rename(other)
        shutil.copytree(ours.data_dir / "node-1", own)
        with pytest.raises(TailraceError, match=r"belongs to cluster \w+, and the coordinator to cluster"):
            theirs.start(1)
        shutil.rmtree(own)
        other.rename(own)
        for cluster in (ours, theirs):
            cluster.start(1)
