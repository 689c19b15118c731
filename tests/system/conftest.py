"""Whole clusters of real processes, and what to do to them."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tailrace import Admin
from tailrace.testing import Cluster

WITHIN_S = 20.0
"""What is waited for takes well under a second on an idle machine."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes, for all tests that leave them as they found them."""
    with Cluster(nodes=2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def admin(cluster: Cluster) -> Iterator[Admin]:
    with Admin(cluster.bootstrap_servers) as admin:
        yield admin


def wait_until(condition: Callable[[], object], what: str, within_s: float = WITHIN_S) -> None:
    """Look again and again; fails, saying `what` was waited for, when it takes too long."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        time.sleep(0.002)


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """These processes are suspended (SIGSTOP), with every thread: sockets stay, and nobody answers."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            wait_until(partial(_is_stopped, pid), f"process {pid} is stopped")
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return all("\nState:\tT" in (thread / "status").read_text() for thread in threads)
