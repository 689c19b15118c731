"""The clients of a run as the parent sees them."""

import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from tailrace.bench.lines import Command, encode
from tailrace.processes.parent_pipe import describe_exit

from .tasks import ClientTask


class Client:
    """One process, in a group of its own. It ends when its stdin does."""

    def __init__(self, task: ClientTask, logs: Path) -> None:
        self.task = task
        with (logs / f"{task.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tailrace.torture.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self._log = logs / f"{task.name}.log"
        self._write(msgspec.json.encode(task) + b"\n")

    def tell(self, command: Command) -> None:
        """Have it do something, if it still runs."""
        self._write(encode(command))

    @property
    def over(self) -> bool:
        """Has it ended?"""
        return self._process.poll() is not None

    def failure(self) -> str | None:
        """Why it has ended too early; None while it runs, and when it ended well."""
        code = self._process.poll()
        return f"{describe_exit(code)}: {self._last_words()}" if code else None

    def wait(self, timeout_s: float) -> str | None:
        """Wait for its end; what was wrong with it, or None."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return f"was not done within {timeout_s:g} s"
        return self.failure()

    def close(self) -> None:
        """Kill it if it runs, and give everything back."""
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is told of when its end is noticed
            self._process.stdin.write(data)
            self._process.stdin.flush()


def wait_for(clients: Iterable[Client], timeout_s: float) -> list[tuple[str, str]]:
    """Until all have ended; the names of those that did not end well, and why."""
    deadline = time.monotonic() + timeout_s
    wrong = []
    for client in clients:
        failure = client.wait(max(0.0, deadline - time.monotonic()))
        if failure is not None:
            wrong.append((client.task.name, failure))
    return wrong
