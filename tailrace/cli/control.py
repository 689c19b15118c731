"""How `tailrace apply` reaches `tailrace up`: a unix socket in the cluster's run folder, which is ours alone.

One request a connection, a line of JSON each way: `{"op": "status"}`; `{"op": "config", "text": ...}` for a
new config; `{"op": "start" | "stop" | "restart", "node_id": 4}`, where null is the coordinator. An answer
with `error` says why not.

Beside the socket lies a copy of the YAML file that the processes are started with, so that a file that
is being edited is not taken in by a restart.
"""

import fcntl
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tailrace.durable import PARENT_MODE, make_folder
from tailrace.processes.launch import Role
from tailrace.processes.layout import Layout
from tailrace.protocol.errors import ConnectionFailedError, DataFolderError, TailraceError, TimedOutError
from tailrace.transport.private_folder import make_private

from .apply_plan import Settings, settings_of
from .cluster_config import ClusterConfig, load_cluster
from .yaml_values import FILE_BYTES_MAX

ANSWER_WITHIN_S: Final = 30.0
PEER_WITHIN_S: Final = 2.0
"""A peer that connects and says nothing must not hold up the supervisor for longer."""
_LINE_BYTES_MAX: Final = 8 * FILE_BYTES_MAX

Fields = dict[str, Any]


def socket_path(layout: Layout) -> Path:
    """Where the supervisor of a cluster listens."""
    return layout.run / "up.sock"


class Control:
    """The supervisor's end; it holds the run folder, so that a data folder has one supervisor.

    Raises DataFolderError.
    """

    def __init__(self, cluster: ClusterConfig) -> None:
        self._layout = cluster.layout
        self.file = cluster.layout.run / "cluster.yaml"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._folder = _lock(cluster.layout)
        except BaseException:
            self._socket.close()
            raise
        try:
            self.take(cluster.file.read_text())
            path = socket_path(cluster.layout)
            path.unlink(missing_ok=True)
            self._socket.bind(str(path))
            self._socket.listen()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise DataFolderError(f"{self._layout.run}: {error.strerror or error}") from None
            raise

    @property
    def reader(self) -> int:
        """Readable when somebody has connected."""
        return self._socket.fileno()

    def take(self, text: str) -> None:
        """Start processes with this config from now on. Raises InvalidConfigError."""
        draft = self.file.with_suffix(".new")
        draft.write_text(text)
        self._cluster = load_cluster(draft, data_dir=self._layout.root)
        draft.replace(self.file)

    def settings(self, role: Role) -> Settings:
        """What a process is started with now."""
        cluster = self._cluster
        return settings_of(cluster.coordinator if role.node_id is None else cluster.joining(role.node_id))

    def serve(self, handle: Callable[[Fields], Fields]) -> None:
        """Answer the peer that has connected."""
        peer, _ = self._socket.accept()
        with peer, suppress(OSError):
            peer.settimeout(PEER_WITHIN_S)
            try:
                answer = handle(_parse(_read_line(peer)))
            except TailraceError as error:
                answer = {"error": str(error)}
            peer.sendall(json.dumps(answer).encode() + b"\n")

    def close(self) -> None:
        """Leave nothing in the folder."""
        self._socket.close()
        for path in (socket_path(self._layout), self.file, self.file.with_suffix(".new")):
            path.unlink(missing_ok=True)
        os.close(self._folder)


def ask(layout: Layout, **request: object) -> Fields:
    """Ask the supervisor of a cluster. Raises ConnectionFailedError, TimedOutError, TailraceError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(ANSWER_WITHIN_S)
        try:
            peer.connect(str(socket_path(layout)))
            peer.sendall(json.dumps(request).encode() + b"\n")
            answer = _parse(_read_line(peer))
        except TimeoutError:
            raise TimedOutError(
                f"the `tailrace up` of {layout.root} does not answer within {ANSWER_WITHIN_S:g} s"
            ) from None
        except OSError:
            raise ConnectionFailedError(
                f"no `tailrace up` runs a cluster in {layout.root}. If it was started with --data-dir, give "
                "the same one here; if the data_dir of a running one was changed: that cannot be applied, "
                "take it back"
            ) from None
    if "error" in answer:
        raise TailraceError(answer["error"])
    return answer


def _lock(layout: Layout) -> int:
    """The run folder, made if it was not there, and locked until it is closed."""
    try:
        make_folder(layout.root, PARENT_MODE)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataFolderError(f"cannot make the data folder {layout.root}: {reason}") from None
    try:
        make_private(layout.run)
        folder = os.open(layout.run, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise DataFolderError(f"cannot use {layout.run}: {(error.strerror or str(error)).lower()}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise DataFolderError(f"{layout.root} is in use: another `tailrace up` runs its cluster") from None
    return folder


def _read_line(peer: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:
        chunk = peer.recv(1 << 16)
        if not chunk:
            break
        line += chunk
    return line


def _parse(line: bytes) -> Fields:
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise TailraceError("expected a line of JSON")
    return fields
