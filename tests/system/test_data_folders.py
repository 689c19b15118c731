"""A data folder in use, or of a newer version: the command refuses it, and harms nothing."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import lmdb
import msgspec
import pytest

from tailrace import Admin, Consumer, Producer, TailraceError
from tailrace.protocol.errors import DataFolderError
from tailrace.testing import Cluster

from ..patience import PATIENCE_S


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
