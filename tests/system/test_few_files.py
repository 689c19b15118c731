"""Servers that may open few files: a client more than they have descriptors for ends none of them."""

import resource
from contextlib import ExitStack
from pathlib import Path

from tailrace import Admin, Producer
from tailrace.testing import Cluster

from ..patience import PATIENCE_S, wait_until

CLIENTS = 55
SPARE = 150
"""Descriptors for them, of which each takes three at a node, two of a coordinator's."""


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def path_of(producer: Producer) -> str:
    [path] = producer.metrics()["paths"].values()
    return str(path)


def test_more_clients_than_descriptors() -> None:
    with Cluster(nodes=1) as cluster, ExitStack() as stack:
        with Admin(cluster.bootstrap_servers) as admin:
            admin.create_topic("t")
        pids = cluster.pid(1), cluster.coordinator_pid
        for pid in pids:
            most = open_files(pid) + SPARE
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
        producers = [stack.enter_context(Producer(cluster.bootstrap_servers)) for _ in range(CLIENTS)]
        for producer in producers:
            producer.send("t", b"value").result(PATIENCE_S)
        assert "tcp" not in path_of(producers[0])
        assert "tcp" in path_of(producers[-1])
        for producer in producers[: CLIENTS // 2]:
            producer.close()

        def is_local() -> bool:
            with Producer(cluster.bootstrap_servers) as late:
                late.send("t", b"value").result(PATIENCE_S)
                return "tcp" not in path_of(late)

        wait_until(is_local, "clients are served locally again")
        assert pids == (cluster.pid(1), cluster.coordinator_pid)
