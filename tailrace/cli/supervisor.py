"""`tailrace up`: the parent of a cluster's processes.

It starts the coordinator and all nodes at once, says when they are ready, passes their logs on,
starts what dies again, and stops everything in order. It serves nothing itself, and imports neither
sockets nor storage.

A process that ends before the cluster was ready for the first time ends everything: its reason (a
port in use, a data folder in use) does not go away by itself. Nor does a storage fault, at any time:
that process stays down, and the others go on.
"""

import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tailrace.processes.launch import COORDINATOR, Child, Event, Launcher, Role
from tailrace.processes.parent_pipe import ParentPipe, describe_exit
from tailrace.processes.restarts import Restarts
from tailrace.processes.signal_pipe import STOP_SIGNALS, SignalPipe, stop_signals
from tailrace.transport.endpoint import split_tcp

from . import exit_codes
from .relay import Relay

READY_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 10.0
"""How long the nodes, and then the coordinator, may take to stop before they are killed."""
SAME_SIGNAL_S: Final = 0.5
"""One Ctrl-C may come twice: from the terminal, and from a wrapper that passes it on."""

Report = Callable[[Event], None]


@dataclass
class Member:
    """One process that should run. `child` is None between its death and its next start."""

    role: Role
    child: Child | None = None
    restarts: Restarts = field(default_factory=Restarts)
    restart_at: float | None = None
    announced: bool = False
    """Its present child was reported as ready."""


class Supervisor:
    """Runs one cluster; `report` is called with each event: ready, exited, restarted, stopped."""

    def __init__(self, launcher: Launcher, node_ids: Sequence[int], report: Report, stderr: int) -> None:
        self._launcher = launcher
        self._report = report
        self._relay = Relay(stderr)
        self._coordinator = Member(COORDINATOR)
        self._nodes = [Member(Role(node_id)) for node_id in node_ids]
        self._parent = ParentPipe()
        self._selector = selectors.DefaultSelector()
        self._port: int | None = None
        self._was_ready = False
        self._stop_signals = 0
        self._next_signal_at = 0.0
        self._exit_code = exit_codes.OK

    def run(self, port: int | None) -> int:
        """Run the cluster until a signal or a failed start; the exit code.

        `port` is the coordinator's, in place of the file's; 0 takes any free one, kept from then on.
        """
        self._port = port
        signals = SignalPipe((*stop_signals(), signal.SIGCHLD))
        self._watch(signals.reader, lambda: self._on_signals(signals.read()))
        try:
            self._run()
            self._stop(self._nodes)
            self._stop([self._coordinator])
        finally:
            for member in self._members():
                if member.child is not None:
                    member.child.close()
            signals.close()
            self._selector.close()
            self._parent.close()
        self._report({"event": "stopped", "exit_code": self._exit_code})
        return self._exit_code

    def _members(self) -> list[Member]:
        return [self._coordinator, *self._nodes]

    def _run(self) -> None:
        ready_by = time.monotonic() + READY_WITHIN_S
        for member in self._members():
            self._start(member)
        while not self._stop_signals and self._exit_code == exit_codes.OK:
            now = time.monotonic()
            due = [member.restart_at for member in self._members() if member.restart_at is not None]
            if not self._was_ready:
                due.append(ready_by)
            self._wait(min(due) - now if due else None)
            self._look_after_members(time.monotonic(), ready_by)

    def _wait(self, timeout_s: float | None) -> None:
        for key, _ in self._selector.select(timeout_s):
            key.data()

    def _look_after_members(self, now: float, ready_by: float) -> None:
        for member in self._members():
            self._look_after(member, now)
        if self._was_ready:
            return
        missing = [member.role.name for member in self._members() if not member.announced]
        if not missing:
            self._was_ready = True
            self._report_ready()
        elif now >= ready_by:
            self._fail(f"not ready within {READY_WITHIN_S:g} s: {', '.join(missing)}")

    def _look_after(self, member: Member, now: float) -> None:
        child = member.child
        if child is None:
            if member.restart_at is not None and now >= member.restart_at:
                self._start(member)
            return
        if child.listener is not None and not member.announced:
            self._on_ready(member, child, child.listener, now)
        code = child.exit_code()
        if code is not None:
            self._drain(child)
            self._on_exit(member, child, code, now)

    def _on_ready(self, member: Member, child: Child, listener: Event, now: float) -> None:
        member.announced = True
        member.restarts.ready(now)
        if member is self._coordinator:
            # Clients know the cluster by this address: it must outlive the process.
            _, self._port = split_tcp(listener["tcp"])
        if self._was_ready:
            self._report({"event": "restarted", **member.role.fields(), "pid": child.pid})

    def _on_exit(self, member: Member, child: Child, code: int, now: float) -> None:
        self._forget(member, child)
        reason = child.failure or describe_exit(code)
        if not self._was_ready:
            self._fail(f"{member.role.name} could not start: {reason}")
            return
        event = {"event": "exited", **member.role.fields(), "pid": child.pid, "reason": reason}
        if code == exit_codes.STORAGE_FAULT:
            self._report({**event, "restart_in_ms": None})
            return
        pause_s = member.restarts.died(now)
        member.restart_at = now + pause_s
        self._report({**event, "restart_in_ms": round(pause_s * 1000)})

    def _fail(self, reason: str) -> None:
        if self._exit_code == exit_codes.OK:
            self._exit_code = exit_codes.ERROR
            self._report({"event": "failed", "message": reason})

    def _start(self, member: Member) -> None:
        command = self._launcher.command(member.role, self._parent.reader, self._port)
        child = Child(member.role, command, self._parent, stderr=subprocess.PIPE)
        member.child, member.restart_at, member.announced = child, None, False
        self._watch(child.stdout, lambda: self._on_stdout(child))
        self._watch(child.stderr, lambda: self._on_stderr(child))

    def _watch(self, fd: int, action: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, action)

    def _on_stdout(self, child: Child) -> None:
        if not self._read_events(child):
            self._selector.unregister(child.stdout)

    def _read_events(self, child: Child) -> bool:
        more = child.read_events()
        for line in child.prints:
            self._relay.say(child.role.name, line)
        child.prints.clear()
        return more

    def _on_stderr(self, child: Child) -> None:
        if not self._relay.pump(child.role.name, child.stderr):
            self._selector.unregister(child.stderr)

    def _drain(self, child: Child) -> None:
        """What a dead child said last: its ends of the pipes are closed, so this does not wait."""
        while self._read_events(child):
            pass
        while self._relay.pump(child.role.name, child.stderr):
            pass

    def _forget(self, member: Member, child: Child) -> None:
        for fd in (child.stdout, child.stderr):
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        child.close()
        member.child = None

    def _on_signals(self, numbers: Iterable[int]) -> None:
        if not any(number in STOP_SIGNALS for number in numbers):
            return
        now = time.monotonic()
        if now >= self._next_signal_at:
            self._stop_signals += 1
            self._next_signal_at = now + SAME_SIGNAL_S

    def _stop(self, members: Sequence[Member]) -> None:
        """Ask these to stop and wait for it; kill them when it takes too long or a second signal comes."""
        for member in members:
            if member.child is not None:
                member.child.stop()
        patience = time.monotonic() + STOP_WITHIN_S
        killed = False
        while any(member.child is not None for member in members):
            if not killed and (self._stop_signals > 1 or time.monotonic() >= patience):
                killed = True
                late = [member.role.name for member in members if member.child is not None]
                self._relay.say("up", f"killing {', '.join(late)}".encode())
                for member in members:
                    if member.child is not None:
                        member.child.send(signal.SIGKILL)
                self._exit_code = self._exit_code or exit_codes.ERROR
            self._wait(None if killed else max(0.0, patience - time.monotonic()))
            for member in members:
                child = member.child
                if child is not None and child.exit_code() is not None:
                    self._drain(child)
                    self._forget(member, child)

    def _report_ready(self) -> None:
        children = [(member.role, member.child) for member in self._members()]
        processes = [{**role.fields(), "pid": child.pid} for role, child in children if child is not None]
        assert self._coordinator.child is not None
        listener = self._coordinator.child.listener or {}
        self._report(
            {
                "event": "ready",
                "bootstrap_servers": str(listener["tcp"]).removeprefix("tcp://"),
                "coordinator": {key: listener[key] for key in ("pid", "tcp", "ipc")},
                "data_dir": str(self._launcher.layout.root),
                "processes": processes,
            }
        )
