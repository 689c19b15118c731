"""The cluster under torture: which of its processes run, are suspended or dead is decided here alone."""

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tailrace.processes.launch import COORDINATOR, Child, Launcher, Role, wait_until_ready
from tailrace.processes.layout import layout_of
from tailrace.processes.parent_pipe import ParentPipe, describe_exit
from tailrace.protocol.errors import TailraceError
from tailrace.transport.endpoint import split_tcp

from .network import Network

READY_WITHIN_S: Final = 120.0
"""A process that is not ready by then hangs: on an idle machine it takes a second."""
STOP_WITHIN_S: Final = 60.0


class Processes:
    """One coordinator and the nodes of `settings`, which are those of a YAML file."""

    def __init__(
        self, settings: Mapping[str, Any], folder: Path, logs: Path, network: Network | None
    ) -> None:
        self.roles = (COORDINATOR, *(Role(node["id"]) for node in settings["nodes"]))
        self.layout = layout_of(folder / "data")
        self.suspended: set[Role] = set()
        self._children: dict[Role, Child] = {}
        self._ready_by: dict[Role, float] = {}
        self._parent = ParentPipe()
        self._logs = logs
        self._network = network
        self._host, self._port = split_tcp(f"tcp://{settings['coordinator']['listen']}")
        file = folder / "cluster.yaml"
        file.write_text(json.dumps({**settings, "data_dir": str(self.layout.root)}, indent=2))  # JSON is YAML
        self._launcher = Launcher(file, self.layout)

    @property
    def bootstrap_servers(self) -> str:
        """What clients are given, the same for the whole run."""
        return f"{self._host}:{self._port}"

    def folder_of(self, role: Role) -> Path:
        """Where a node keeps its data."""
        assert role.node_id is not None
        return self.layout.node(role.node_id)

    @property
    def running(self) -> list[Role]:
        """The processes that run and are not suspended, in the order of `roles`."""
        return [role for role in self.roles if role in self._children and role not in self.suspended]

    def start_all(self) -> None:
        """Start everything; returns when it is ready. Raises TailraceError."""
        for group in (self.roles[:1], self.roles[1:]):
            for role in group:
                self.start(role)
            late = wait_until_ready([self._children[role] for role in group], READY_WITHIN_S)
            if late is not None:
                raise TailraceError(f"{late.role.name} did not start: {late.failure or 'see its log'}")
            listener = self._children[COORDINATOR].listener
            assert listener is not None
            _, self._port = split_tcp(listener["tcp"])

    def start(self, role: Role) -> None:
        """Start a process that does not run. Does not wait until it is ready."""
        if role in self._children:
            return
        command = self._launcher.command(role, self._parent.reader, self._port)
        if self._network is not None:
            command = self._network.wrap(role, command, self.layout.run)
        with (self._logs / f"{role.name}.log").open("ab") as log:
            self._children[role] = Child(role, command, self._parent, log)
        self._ready_by[role] = time.monotonic() + READY_WITHIN_S

    def kill(self, role: Role) -> None:
        """SIGKILL; returns when it is gone."""
        child = self._children.pop(role, None)
        self.suspended.discard(role)
        if child is not None:
            child.close()

    def suspend(self, role: Role) -> None:
        """SIGSTOP."""
        if role in self._children:
            self.suspended.add(role)
            self._children[role].send(signal.SIGSTOP)

    def resume(self, role: Role) -> None:
        """SIGCONT, if it is still the one that was suspended."""
        if role in self.suspended:
            self.suspended.discard(role)
            self._children[role].send(signal.SIGCONT)

    def ended(self) -> list[tuple[Role, str]]:
        """Those that ended by themselves, and why; they do not count as running any more."""
        found = []
        for role, child in list(self._children.items()):
            child.read_events()
            code = child.exit_code()
            if code is not None:
                why = child.failure or "see its log"
                found.append((role, f"ended with {describe_exit(code)}: {why}"))
            elif self._is_late(role, child):
                found.append((role, f"was not ready within {READY_WITHIN_S:g} s"))
        for role, _ in found:
            self.kill(role)
        return found

    def _is_late(self, role: Role, child: Child) -> bool:
        late = child.listener is None and time.monotonic() > self._ready_by[role]
        return late and role not in self.suspended

    def stop(self) -> list[tuple[Role, str]]:
        """Stop everything cleanly, the nodes first; those that did not end well, and how."""
        wrong = []
        for group in (self.roles[1:], self.roles[:1]):
            children = {role: self._children[role] for role in group if role in self._children}
            for child in children.values():
                child.stop()
            for role, child in children.items():
                code = child.wait(STOP_WITHIN_S)
                if code is None:
                    wrong.append((role, f"did not stop within {STOP_WITHIN_S:g} s"))
                elif code:
                    wrong.append((role, f"stopped with {describe_exit(code)}"))
                self.kill(role)
        return wrong

    def close(self) -> None:
        """Kill what runs."""
        for role in self.roles:
            self.kill(role)
        self._parent.close()
