"""Start the processes of a cluster, and hear from them.

A child is `python -m tailrace coordinator|node ... --json`: it prints one JSON line on stdout when it
is ready or when it cannot start, logs to stderr, and ends when its parent does, because the parent
alone holds the writing end of a pipe that the child watches.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from .layout import Layout
from .parent_pipe import ParentPipe

_LINE_BYTES_MAX: Final = 64 * 1024

Event = dict[str, Any]


@dataclass(frozen=True)
class Role:
    """Which process of a cluster: the coordinator, or the node of `node_id`."""

    node_id: int | None = None

    @property
    def name(self) -> str:
        """`coordinator` or `node-1`."""
        return "coordinator" if self.node_id is None else f"node-{self.node_id}"

    def fields(self) -> Event:
        """The role in an event."""
        return {"role": "coordinator" if self.node_id is None else "node", "node_id": self.node_id}


COORDINATOR: Final = Role()


@dataclass(frozen=True)
class Launcher:
    """How the processes of one cluster are started."""

    file: Path
    layout: Layout

    def command(self, role: Role, parent_fd: int, port: int | None = None) -> list[str]:
        """The command line; `port` is for the coordinator, in place of the file's.

        `-P` keeps the current folder off the import path, whatever lies there.
        """
        command = [sys.executable, "-P", "-m", "tailrace"]
        if role.node_id is None:
            command += ["coordinator"] + ([] if port is None else ["--port", str(port)])
        else:
            coordinator = self.layout.ipc(COORDINATOR.name)
            command += ["node", "--id", str(role.node_id), "--coordinator", coordinator]
        command += ["--config", str(self.file), "--data-dir", str(self.layout.root)]
        return [*command, "--parent-fd", str(parent_fd), "--json"]


class Child:
    """One running process.

    In a process group of its own, so that Ctrl-C reaches the parent only, which stops the children
    in the right order.
    """

    def __init__(self, role: Role, command: list[str], parent: ParentPipe, stderr: int | IO[bytes]) -> None:
        self.role = role
        self.listener: Event | None = None
        """The event that it sent when it was ready: its endpoints."""
        self.failure: str | None = None
        """Why it could not start or go on, in its own words."""
        self.prints: list[bytes] = []
        """Lines on its stdout that are no events: the work of a library, or of somebody who debugs."""
        self._line = b""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            pass_fds=(parent.reader,),
            process_group=0,
        )
        assert self._process.stdout is not None
        self.stdout = self._process.stdout.fileno()
        self.stderr = -1 if self._process.stderr is None else self._process.stderr.fileno()
        os.set_blocking(self.stdout, False)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def read_events(self) -> bool:
        """Take in what the child has said; False when it has closed its stdout. Never waits."""
        try:
            chunk = os.read(self.stdout, _LINE_BYTES_MAX)
        except BlockingIOError:
            return True
        *lines, self._line = (self._line + chunk).split(b"\n")
        for line in lines:
            self._on_line(line)
        return bool(chunk)

    def _on_line(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or "event" not in event:
            self.prints.append(line)
        elif event["event"] == "ready":
            self.listener = event
        elif event["event"] == "failed":
            self.failure = event["message"]

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs. Never waits."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """The exit code, or None when it still runs after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Ask it to end cleanly, also when it is suspended."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)

    def close(self) -> None:
        """Kill it if it runs, and give everything back."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def wait_until_ready(children: Sequence[Child], timeout_s: float) -> Child | None:
    """Wait until all are ready; the first that is not, because it ended or was too slow, or None."""
    deadline = time.monotonic() + timeout_s
    for child in children:
        while child.listener is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([child.stdout], [], [], left)[0] or not child.read_events():
                return child
    return None
