"""A data folder in use, or of a newer version: the command refuses it, and harms nothing."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import lmdb
import msgspec
import pytest

from tailrace import Admin, Consumer, Producer, TailraceError
from tailrace.protocol.errors import DataFolderError, NotEnoughNodesError
from tailrace.testing import Cluster

from ..patience import PATIENCE_S, wait_until


@pytest.fixture
def own() -> Iterator[Cluster]:
    """A cluster of the test's own, with records in topic `t`."""
    with Cluster() as cluster:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("t")
        write(cluster, b"before")
        yield cluster


def write(cluster: Cluster, value: bytes) -> None:
    with Producer(cluster.bootstrap_servers) as producer:
        producer.send("t", value)


def read(cluster: Cluster, count: int) -> list[bytes]:
    with Consumer("t", bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest") as consumer:
        return [record.value for record in islice(consumer, count)]


def start_another(cluster: Cluster, *role: str) -> str:
    """Run one more process on the cluster's folders, which must be refused; what it says."""
    where = ["--config", cluster.log_folder.parent / "cluster.yaml", "--data-dir", cluster.data_dir]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tailrace", *role, *map(str, where)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


def test_a_second_node(own: Cluster) -> None:
    said = start_another(own, "node", "--id", "1", "--coordinator", own.bootstrap_servers)
    folder = own.data_dir / "node-1"
    assert said.startswith(f"Error: node-1: data folder {folder} is in use by process {own.pid(1)}; stop it")
    write(own, b"after")
    assert read(own, 2) == [b"before", b"after"]


def test_a_second_coordinator(own: Cluster) -> None:
    said = start_another(own, "coordinator", "--port", "0")
    folder = own.data_dir / "coordinator"
    assert f"{folder} is in use by another process ({own.coordinator_pid}): stop it" in said
    with Admin(own.bootstrap_servers) as admin:
        admin.create_topic("another")
        assert admin.list_topics() == ["another", "t"]


def make_the_node_newer(cluster: Cluster) -> Path:
    cluster.kill(1)
    folder = cluster.data_dir / "node-1"
    (folder / "format").write_text("tailrace-storage 2\n")
    return folder


def make_the_coordinator_newer(cluster: Cluster) -> Path:
    cluster.kill_coordinator()
    folder = cluster.data_dir / "coordinator"
    with lmdb.open(str(folder), max_dbs=6) as environment:
        meta = environment.open_db(b"meta")
        with environment.begin(write=True) as transaction:
            transaction.put(b"format", msgspec.msgpack.encode(2), db=meta)
    return folder


@pytest.mark.parametrize(
    ("make_newer", "start", "role"),
    [
        (make_the_node_newer, lambda cluster: cluster.start(1), ("node", "--id", "1")),
        (make_the_coordinator_newer, Cluster.start_coordinator, ("coordinator",)),
    ],
    ids=["node", "coordinator"],
)
def test_a_newer_format(
    own: Cluster,
    make_newer: Callable[[Cluster], Path],
    start: Callable[[Cluster], None],
    role: tuple[str, ...],
) -> None:
    folder = make_newer(own)
    before = (folder / "data.mdb").read_bytes()
    said = start_another(own, *role)
    assert str(folder) in said
    assert "has format 2, this version" in said
    with pytest.raises(TailraceError, match="has format 2"):
        start(own)
    assert (folder / "data.mdb").read_bytes() == before


def test_an_offset_store_of_a_newer_format(own: Cluster, tmp_path: Path) -> None:
    def consume() -> Consumer:
        return Consumer("t", bootstrap_servers=own.bootstrap_servers, offset_store=tmp_path)

    consume().close()
    (folder,) = tmp_path.iterdir()
    with lmdb.open(str(folder), max_dbs=8) as environment:
        database = environment.open_db(b"tailrace")
        with environment.begin(write=True, db=database) as transaction:
            transaction.put(b"identity", msgspec.msgpack.encode({"format": 2}))
    before = (folder / "data.mdb").read_bytes()
    with pytest.raises(DataFolderError, match="has format 2, this Tailrace knows 1: use the version"):
        consume()
    assert (folder / "data.mdb").read_bytes() == before


def node_says(cluster: Cluster, text: str) -> None:
    log = cluster.log_folder / "node-1.log"
    wait_until(lambda: text in log.read_text(), text)


def replace(folder: Path, by: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(by, folder)


def test_an_older_copy_of_the_coordinators_folder(own: Cluster, tmp_path: Path) -> None:
    """However often it is started: its elections would know nothing of what came after the copy."""
    folder, clusters = own.data_dir / "coordinator", own.data_dir / "node-1" / "clusters"
    older, newest = tmp_path / "older", tmp_path / "newest"
    own.kill_coordinator()
    shutil.copytree(folder, older)
    followed = clusters.read_text()
    own.start_coordinator()
    wait_until(lambda: clusters.read_text() != followed, "the node follows the newer coordinator")
    own.kill_coordinator()
    folder.rename(newest)
    shutil.copytree(older, folder)
    own.start_coordinator()
    node_says(own, "the coordinator runs on an older copy of its data folder")
    for _ in range(3):
        own.kill_coordinator()
        own.start_coordinator()
    own.kill(1)
    with pytest.raises(TailraceError, match=r"on an older copy of its data folder.* remove .*/clusters and"):
        own.start(1)
    own.kill_coordinator()
    replace(folder, newest)
    own.start_coordinator()
    own.start(1)
    write(own, b"after")
    assert read(own, 2) == [b"before", b"after"]


@pytest.mark.slow
def test_a_coordinator_that_lost_its_folder_while_nodes_run(own: Cluster, tmp_path: Path) -> None:
    folder, lost = own.data_dir / "coordinator", tmp_path / "lost"
    own.kill_coordinator()
    shutil.move(folder, lost)
    own.start_coordinator()
    node_says(own, "put the coordinator's data folder of that cluster back, or restart the node")
    with Admin(own.bootstrap_servers) as admin, pytest.raises(NotEnoughNodesError, match="0 nodes are alive"):
        admin.create_topic("anew")
    own.kill_coordinator()
    replace(folder, lost)
    own.start_coordinator()
    write(own, b"after")
    assert read(own, 2) == [b"before", b"after"]


def test_a_coordinator_that_lost_its_folder_for_good(own: Cluster) -> None:
    """Its epochs begin anew: those that its nodes have seen in the cluster before say nothing about them."""
    for _ in range(3):
        own.kill_coordinator()
        own.start_coordinator()
    with Admin(own.bootstrap_servers) as admin:
        admin.create_topic("lost")  # the node has seen the last epoch
    own.kill_coordinator()
    shutil.rmtree(own.data_dir / "coordinator")
    own.start_coordinator()
    for value in (b"anew", b"again"):
        own.kill(1)
        own.start(1)
        with Admin(own.bootstrap_servers) as admin:
            if not admin.list_topics():
                admin.create_topic("t")
        write(own, value)
    assert read(own, 2) == [b"anew", b"again"]
