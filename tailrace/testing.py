"""A real cluster for tests: real processes, sockets and files, in a temporary folder on free ports.

with Cluster(nodes=3) as cluster:
    with Producer(cluster.bootstrap_servers) as producer: ...
    cluster.kill(1)
    cluster.start(1)
"""

import json
import os
import shutil
import signal
import tempfile
import weakref
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

from tailrace.client.arguments import check_int
from tailrace.processes.launch import (
    COORDINATOR,
    Child,
    Launcher,
    Role,
    wait_until_ready,
)
from tailrace.processes.layout import layout_of
from tailrace.processes.parent_pipe import ParentPipe, describe_exit
from tailrace.protocol.errors import InvalidArgumentError, TailraceError
from tailrace.protocol.limits import GIB, NODES_MAX
from tailrace.transport.endpoint import split_tcp

READY_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 30.0

_LOG_BYTES_SHOWN: Final = 4_096


class Cluster:
    """One coordinator and `nodes` nodes with ids from 1 on; they run when the constructor returns.

    Nothing is restarted but by `start` and `start_coordinator`. The processes end with this one,
    however it ends. Sizes in bytes, times in milliseconds; the options are those of a node, and the
    coordinator's `session_timeout_ms`.

    Raises InvalidArgumentError; TailraceError, with the end of its log, when a process does not start.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        flush: Literal["commit", "relaxed"] = "commit",
        ephemeral: bool = False,
        quota_bytes: int = 16 * GIB,
        reserve_bytes: int | None = None,
        retention_check_ms: int | None = None,
        session_timeout_ms: int = 6_000,
    ) -> None:
        check_int("nodes", nodes, 1, NODES_MAX)
        folder = Path(tempfile.mkdtemp(prefix="tailrace-"))
        self._resources = _Resources(folder)
        self._finalizer = weakref.finalize(self, self._resources.close)
        self.node_ids = tuple(range(1, nodes + 1))
        self.data_dir = self._resources.layout.root
        self._port = 0
        settings = {"flush": flush, "ephemeral": ephemeral, "quota_bytes": quota_bytes}
        if reserve_bytes is not None:
            settings["reserve_bytes"] = reserve_bytes
        if retention_check_ms is not None:
            settings["retention_check_ms"] = retention_check_ms
        file = folder / "cluster.yaml"
        config = {
            "data_dir": str(self.data_dir),
            "coordinator": {"listen": "127.0.0.1:0", "session_timeout_ms": session_timeout_ms},
            "node_defaults": settings,
            "nodes": [{"id": node_id} for node_id in self.node_ids],
        }
        file.write_text(json.dumps(config, indent=2))  # JSON is YAML
        self._launcher = Launcher(file, self._resources.layout)
        try:
            self._start(COORDINATOR, *map(Role, self.node_ids))
        except BaseException:
            self._finalizer()
            raise

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:
            self._finalizer()

    @property
    def bootstrap_servers(self) -> str:
        """What clients are given: `127.0.0.1:port`, the same for the cluster's whole life."""
        return f"127.0.0.1:{self._port}"

    @property
    def log_folder(self) -> Path:
        """One log file a process: `coordinator.log`, `node-1.log`, ..."""
        return self._resources.folder / "logs"

    @property
    def coordinator_pid(self) -> int:
        """The coordinator's process id."""
        return self._running(COORDINATOR).pid

    def pid(self, node_id: int) -> int:
        """A running node's process id, to send it signals."""
        return self._running(self._role(node_id)).pid

    def kill(self, node_id: int) -> None:
        """SIGKILL for a node; returns when it is gone."""
        self._kill(self._role(node_id))

    def start(self, node_id: int) -> None:
        """Start a killed node again, on the data it left; returns when it is ready."""
        self._start(self._role(node_id))

    def kill_coordinator(self) -> None:
        """SIGKILL for the coordinator; returns when it is gone."""
        self._kill(COORDINATOR)

    def start_coordinator(self) -> None:
        """Start the killed coordinator again, on its data and its port; returns when it is ready."""
        self._start(COORDINATOR)

    def stop(self) -> None:
        """Stop cleanly, the nodes first, and remove everything. A second call does nothing.

        Raises TailraceError, after that, when a process had to be killed or ended with an error.
        """
        if not self._finalizer.alive:
            return
        children = self._resources.children
        coordinator = [child for role, child in children.items() if role == COORDINATOR]
        nodes = [child for role, child in children.items() if role != COORDINATOR]
        try:
            failures = [*_stop(nodes), *_stop(coordinator)]
        finally:
            self._finalizer()
        if failures:
            raise TailraceError(f"the cluster did not stop cleanly: {', '.join(failures)}")

    def _role(self, node_id: int) -> Role:
        if node_id not in self.node_ids:
            raise InvalidArgumentError(f"there is no node {node_id!r}; the nodes are {self.node_ids}")
        return Role(node_id)

    def _running(self, role: Role) -> Child:
        child = self._resources.children.get(role)
        if child is None:
            raise InvalidArgumentError(f"{role.name} does not run")
        return child

    def _kill(self, role: Role) -> None:
        self._running(role).close()
        del self._resources.children[role]

    def _start(self, *roles: Role) -> None:
        if not self._finalizer.alive:
            raise InvalidArgumentError("the cluster was stopped")
        children = self._resources.children
        for role in roles:
            if role in children:
                raise InvalidArgumentError(f"{role.name} runs already")
        for role in roles:
            command = self._launcher.command(role, self._resources.parent.reader, self._port)
            with self._log(role).open("ab") as log:
                children[role] = Child(role, command, self._resources.parent, log)
        late = wait_until_ready([children[role] for role in roles], READY_WITHIN_S)
        if late is not None:
            raise self._not_started(late)
        if COORDINATOR in roles:
            listener = children[COORDINATOR].listener
            assert listener is not None
            _, self._port = split_tcp(listener["tcp"])

    def _not_started(self, child: Child) -> TailraceError:
        reason = child.failure or f"not ready within {READY_WITHIN_S:g} s"
        code = child.wait(0.5)
        if child.failure is None and code is not None:
            reason = describe_exit(code)
        child.close()
        self._resources.children.pop(child.role)
        log = self._log(child.role).read_bytes()[-_LOG_BYTES_SHOWN:].decode(errors="replace")
        return TailraceError(f"{child.role.name} did not start: {reason}\n{log}".rstrip())

    def _log(self, role: Role) -> Path:
        return self.log_folder / f"{role.name}.log"


class _Resources:
    """What must not outlive the test: apart from the cluster, so that it can be collected."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = layout_of(folder / "data")
        self.children: dict[Role, Child] = {}
        self._owner = os.getpid()
        self.parent = ParentPipe()
        (folder / "logs").mkdir()

    def close(self) -> None:
        """Kill what runs, remove the folder. Not in a fork of the test process, which only has copies."""
        if os.getpid() != self._owner:
            return
        for child in self.children.values():
            child.send(signal.SIGKILL)
        for child in self.children.values():
            child.close()
        self.children.clear()
        self.parent.close()
        shutil.rmtree(self.folder)
        shutil.rmtree(self.layout.run, ignore_errors=True)  # elsewhere when the folder's path is long


def _stop(children: list[Child]) -> list[str]:
    """Stop some processes together; what was wrong with any of them."""
    for child in children:
        child.stop()
    failures = []
    for child in children:
        code = child.wait(STOP_WITHIN_S)
        if code is None:
            failures.append(f"{child.role.name} did not stop within {STOP_WITHIN_S:g} s")
        elif code != 0:
            failures.append(f"{child.role.name} ended with {describe_exit(code)}")
    return failures
