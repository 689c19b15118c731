"""The clients of a test as the parent sees them: started, heard, told, and ended whatever happens."""

import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import inf
from types import TracebackType
from typing import Final, Self

import msgspec

from tailrace.processes.parent_pipe import describe_exit
from tailrace.processes.signal_pipe import SignalPipe, stop_signals
from tailrace.protocol.errors import TimedOutError, WorkerFailedError

from .histogram import Histogram
from .lines import EVERY_S, Command, Done, Ear, Failed, Line, Ready, Sample, Start, Stop, encode
from .results import Heard, Stretch
from .spec import Task

START_AFTER_S: Final = 0.05
"""All clients have heard of the start by then."""
STOP_WITHIN_S: Final = 10.0
"""Who is not done so long after it was told to stop is killed."""


class Client:
    """One process, in a group of its own: Ctrl-C is the parent's. It ends when its stdin does."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.ready = False
        self.over = False
        self.samples: list[Sample] = []
        self.latencies: list[Stretch] = []
        self.done: Done | None = None
        self.failure = ""
        self.kill_at = inf
        """When it is killed if it is not done by then: it was told to stop."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tailrace.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self._process.stdout is not None
        self.ear = Ear(self._process.stdout.fileno())
        self._write(msgspec.json.encode(task) + b"\n")

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def records(self) -> int:
        """Acknowledged or read, as last heard."""
        return self.samples[-1].records if self.samples else 0

    @property
    def heard(self) -> Heard:
        """All that it has said."""
        return Heard(
            name=self.task.name,
            role=self.task.role,
            pid=self.pid,
            samples=self.samples,
            latencies=self.latencies,
            done=self.done,
        )

    def tell(self, command: Command) -> None:
        """Have it do something, if it still runs."""
        self._write(encode(command))

    def hear(self, line: Line) -> None:
        """Take in what it has said."""
        if isinstance(line, Ready):
            self.ready = True
        elif isinstance(line, Sample):
            if line.latencies:
                self.latencies.append(Stretch(line.at_ns, Histogram(line.latencies).pack()))
            self.samples.append(msgspec.structs.replace(line, latencies={}))
        elif isinstance(line, Done):
            self.done = line
        else:
            assert isinstance(line, Failed)
            self.failure = line.message

    def ended(self) -> None:
        """Its output has ended, and with it the process."""
        code = self._process.wait()
        self.over = True
        if self.done is None and not self.failure:
            self.failure = f"it ended with {describe_exit(code)}"

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close(self) -> None:
        """Kill it if it runs, and give everything back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError:  # it is told of when its output ends
            pass


class Crew:
    """Clients that run together. `tick` is called about four times a second while they are waited for.

    In a `with` block SIGINT, SIGTERM and SIGHUP stop the clients (or `first` of them, if that says so), a
    second one kills them: then they are `interrupted`. At the end of the block none is left.
    """

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._selector = selectors.DefaultSelector()
        self.clients: list[Client] = []
        self.first: list[Client] = []
        """Whom the first signal stops, so that the others finish; if they are done, it stops all."""
        self.interrupted = False
        """Has a signal come?"""
        self.stopping = False
        """Is all to end soon?"""

    def __enter__(self) -> Self:
        self._signals = SignalPipe(stop_signals())
        self._selector.register(self._signals.reader, selectors.EVENT_READ, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for client in self.clients:
            client.kill()
        for client in self.clients:
            client.close()
        self._selector.close()
        self._signals.close()

    def add(self, tasks: Iterable[Task], timeout_s: float) -> list[Client]:
        """Start clients; returns when they are ready.

        Raises WorkerFailedError, TimedOutError, KeyboardInterrupt.
        """
        added = []
        for task in tasks:
            client = Client(task)
            self.clients.append(client)
            self._selector.register(client.ear.fd, selectors.EVENT_READ, client)
            added.append(client)
        deadline = time.monotonic() + timeout_s
        while late := [client.task.name for client in added if not client.ready]:
            if time.monotonic() >= deadline:
                raise TimedOutError(f"{late[0]} was not ready within {timeout_s:g} s")
            self._listen()
            self._check(added)
            if self.stopping:
                raise KeyboardInterrupt
        return added

    def start(self) -> int:
        """Have all begin at one moment, which is given in nanoseconds."""
        at_ns = time.monotonic_ns() + round(START_AFTER_S * 1e9)
        for client in self.clients:
            client.tell(Start(at_ns))
        return at_ns

    def wait(self, clients: Iterable[Client], look: Callable[[], None] = lambda: None) -> None:
        """Until these are done; `look` is called now and then. Raises WorkerFailedError when one fails."""
        waited = list(clients)
        ticked_at = time.monotonic()
        while not all(client.over for client in waited):
            self._listen()
            self._check(self.clients)
            now = time.monotonic()
            if now >= ticked_at + EVERY_S:
                ticked_at = now
                self._tick()
            look()
            for client in self.clients:
                if now >= client.kill_at:
                    client.kill()

    def pause(self, seconds: float) -> None:
        """Let time pass (0: none), and hear what is said in it. Raises WorkerFailedError."""
        until = time.monotonic() + seconds
        while True:
            left_s = until - time.monotonic()
            self._listen(max(0.0, left_s))
            self._check(self.clients)
            if left_s <= 0 or self.stopping:
                return

    def stop(self) -> None:
        """Have all end soon; who does not is killed."""
        self.stopping = True
        self._stop(self.clients)

    def _stop(self, clients: Iterable[Client]) -> None:
        for client in clients:
            client.kill_at = min(client.kill_at, time.monotonic() + STOP_WITHIN_S)
            client.tell(Stop())

    def _listen(self, within_s: float = EVERY_S) -> None:
        for key, _ in self._selector.select(within_s):
            client = key.data
            if client is None:
                self._on_signal()
                continue
            lines, more = client.ear.listen()
            for line in lines:
                client.hear(line)
            if not more:
                self._selector.unregister(key.fd)
                client.ended()

    def _on_signal(self) -> None:
        self._signals.read()
        first = [client for client in self.first if not client.over]
        if first and not self.interrupted:
            self._stop(first)
        else:
            self.stop()
        if self.interrupted:
            for client in self.clients:
                client.kill()
        self.interrupted = True

    def _check(self, clients: Iterable[Client]) -> None:
        """Has one failed? Of those that are to stop, what is missing is only not counted."""
        for client in clients:
            if client.failure and client.kill_at == inf:
                raise WorkerFailedError(f"{client.task.name}: {client.failure}")
