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


def told(
    cluster_id: str, *topics: TopicInfo, openings: tuple[int, ...] = (), epoch: int = 0, version: int = 1
) -> SnapshotTaken:
    """By a coordinator whose store has these marks: of all its openings, if `epoch` is not given."""
    snapshot = Snapshot(epoch or len(openings) or 1, version, (), topics)
    return SnapshotTaken(1, cluster_id=cluster_id, snapshot=snapshot, openings=openings)


def joined(folder: Path, *coordinators: SnapshotTaken) -> Belonging:
    """Of a node that is started again after it has followed these."""
    for coordinator in coordinators:
        belonging = Belonging(folder)
        assert belonging.refusal(coordinator, HELD) is None
        belonging.join(coordinator)
        assert belonging.is_news
        belonging.record()
    return Belonging(folder, 99)


def test_a_node_with_logs_joins_no_other_cluster_with_topics(tmp_path: Path) -> None:
    belonging = joined(tmp_path, told("ours"))
    refusal = belonging.refusal(told("theirs", TOPIC), HELD)
    assert "belongs to cluster ours, and the coordinator to cluster theirs" in str(refusal)
    assert belonging.refusal(told("theirs", TOPIC), ()) is None, "without logs there is nothing to mix up"
    assert belonging.refusal(told("ours", TOPIC), HELD) is None


def test_a_node_that_was_in_no_cluster_joins_any(tmp_path: Path) -> None:
    assert Belonging(tmp_path).refusal(told("theirs", TOPIC), HELD) is None
    assert Belonging(tmp_path, 7).controller_epoch("theirs") == 7


def test_a_coordinator_that_lost_its_store_and_one_that_has_it_again(tmp_path: Path) -> None:
    belonging = joined(tmp_path, told("ours", epoch=5), told("anew", epoch=1))
    assert (tmp_path / "clusters").read_text() == "ours 5 0\nanew 1 0\n"
    assert belonging.refusal(told("anew", TOPIC), HELD) is None
    assert belonging.refusal(told("ours", TOPIC), HELD) is None
    assert [belonging.controller_epoch(known) for known in ("ours", "anew", "next")] == [5, 1, 0]
    joined(tmp_path, told("ours", epoch=6))
    assert (tmp_path / "clusters").read_text() == "anew 1 0\nours 6 0\n"


def test_a_file_of_an_earlier_version_says_nothing_of_epochs(tmp_path: Path) -> None:
    (tmp_path / "clusters").write_text("before\nours\n")
    belonging = Belonging(tmp_path, 4)
    assert belonging.controller_epoch("ours") == 4
    assert belonging.refusal(told("ours", TOPIC, openings=(1,)), HELD) is None
    assert belonging.refusal(told("theirs", TOPIC), HELD) is not None


def test_a_node_that_runs_stays_in_its_cluster(tmp_path: Path) -> None:
    belonging = joined(tmp_path, told("ours"), told("anew"))
    belonging.join(told("ours"))
    for other in ("anew", "theirs"):
        refusal = belonging.refusal(told(other), HELD)
        assert f"is of cluster {other} now, and this node of cluster ours" in str(refusal)


def test_a_coordinator_on_an_older_copy_of_its_store(tmp_path: Path) -> None:
    belonging = joined(tmp_path, told("ours", openings=(11, 12, 13)))
    for openings in ((11, 12), (11, 12, 93), (11, 12, 93, 94, 95, 96)):
        refusal = belonging.refusal(told("ours", openings=openings), HELD)
        assert "runs on an older copy of its data folder" in str(refusal)
    for openings in ((11, 12, 13), (11, 12, 13, 14), ()):
        assert belonging.refusal(told("ours", openings=openings), HELD) is None
    assert belonging.refusal(told("anew", openings=(21,)), HELD) is None


def test_a_mark_may_have_given_way_to_newer_ones(tmp_path: Path) -> None:
    belonging = joined(tmp_path, told("ours", openings=(11, 12, 13)))
    assert belonging.refusal(told("ours", openings=(14, 15), epoch=5), HELD) is None
    assert belonging.refusal(told("ours", openings=(93, 14, 15), epoch=5), HELD) is not None


def test_a_copy_that_was_made_while_the_coordinator_ran(tmp_path: Path) -> None:
    """It has the mark, but an older version than its nodes; those that were started meanwhile know none."""
    belonging = Belonging(tmp_path)
    belonging.join(told("ours", openings=(11,), version=20))
    restored = told("ours", openings=(11, 12), version=19)
    assert "older copy" in str(belonging.refusal(restored, HELD, version=20))
    assert belonging.refusal(restored, HELD, version=19) is None


def test_a_disk_that_takes_nothing_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    belonging = Belonging(tmp_path)
    belonging.join(told("ours"))
    (tmp_path / "clusters.new").mkdir()
    belonging.record()
    assert "that the node is in cluster ours is not recorded" in caplog.text


@pytest.mark.slow
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
