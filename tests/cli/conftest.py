"""The command as its users run it: a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tailrace.testing import Cluster

from ..patience import PATIENCE_S

COMMAND = (sys.executable, "-P", "-m", "tailrace")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=2) as cluster:
        yield cluster


@pytest.fixture
def tailrace(request: pytest.FixtureRequest) -> Run:
    """`tailrace("topic", "list", code=0)`: run to the end; on the module's cluster if it has one."""

    def run(*args: object, code: int = 0, given: str | None = None) -> "subprocess.CompletedProcess[str]":
        environment = dict(os.environ)
        if "cluster" in request.fixturenames:
            environment["TAILRACE_BOOTSTRAP_SERVERS"] = request.getfixturevalue("cluster").bootstrap_servers
        command = [*COMMAND, *map(str, args)]
        done = subprocess.run(
            command,
            input=given,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


class Up:
    """A running `tailrace up ... --json`, whose events are read as they come."""

    def __init__(self, *args: object) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "up", *map(str, args), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def event(self) -> dict[str, Any]:
        """The next event."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """Kill it, which ends its children."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def up() -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*args: object) -> Up:
        started.append(Up(*args))
        return started[-1]

    yield start
    for each in started:
        each.close()


def _is_there(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def all_gone() -> Callable[[list[int]], None]:
    """`all_gone(pids)`: wait until none of these processes is there."""

    def wait(pids: list[int]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while left := [pid for pid in pids if _is_there(pid)]:
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.01)

    return wait
