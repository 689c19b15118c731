"""Whole clusters of real processes, and what to do to them."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from tailrace import Admin
from tailrace.testing import Cluster

_numbers = count(1)

WITHIN_S = 20.0
"""What is waited for takes well under a second on an idle machine."""

MakeTopic = Callable[..., str]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes, for all tests that leave them as they found them."""
    with Cluster(nodes=2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def admin(cluster: Cluster) -> Iterator[Admin]:
    with Admin(cluster.bootstrap_servers) as admin:
        yield admin


@pytest.fixture
def topic(admin: Admin) -> MakeTopic:
    """Makes new topics of `cluster`."""

    def make(partitions: int = 2) -> str:
        name = f"topic-{next(_numbers)}"
        admin.create_topic(name, partitions=partitions)
        return name

    return make


def wait_until(condition: Callable[[], object], what: str, within_s: float = WITHIN_S) -> None:
    """Look again and again; fails, saying `what` was waited for, when it takes too long."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        time.sleep(0.002)


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """These processes are suspended (SIGSTOP): their sockets stay, and nobody answers."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
