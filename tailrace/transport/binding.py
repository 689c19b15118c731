"""Bind a socket to a tcp and an ipc endpoint, with errors that say what is wrong and what to do."""

import errno
import logging
import os
import socket as plain_socket
from contextlib import suppress
from pathlib import Path
from typing import Final

import zmq

from tailrace.protocol.cluster import Listener
from tailrace.protocol.errors import ConnectionFailedError

from .context import Socket
from .descriptors import connections_max
from .endpoint import IPC_PATH_BYTES_MAX, boot_id
from .private_folder import make_private

logger: Final = logging.getLogger(__name__)

_WILDCARDS: Final = ("0.0.0.0", "*", "[::]")

_CAUSES: Final = {
    errno.EADDRINUSE: "address already in use: another process listens there; stop it or choose another port",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    errno.ENODEV: "no interface of this machine has that address",
    errno.EACCES: "permission denied; ports below 1024 need privileges",
}


class Binding:
    """Where a socket listens: the real endpoints; port 0 takes any free port.

    Raises ConnectionFailedError with the address, the cause and what to do.
    """

    def __init__(self, socket: Socket, *, tcp: str, ipc: str = "") -> None:
        _bind_one(socket, _numeric(tcp))
        bound = socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        self.listener = Listener(_reachable(bound.rstrip(b"\0").decode()))
        self._file: os.stat_result | None = None
        self._connections = 0
        self._hidden = False
        if ipc:
            _prepare(ipc)
            _bind_one(socket, ipc)
            self._file = _path(ipc).stat()
            self.listener = Listener(self.listener.tcp, ipc, boot_id())

    def admit(self, connections: int) -> None:
        """So many there are. With more than there are descriptors for, the ipc socket cannot be found.

        Who comes then takes tcp. libzmq 4.3 aborts the process if there is no descriptor for a connection
        over ipc; one over tcp waits. (To unbind would end the connections that there are.)
        """
        if self._file is None or connections == self._connections:
            return
        self._connections = connections
        path, most = _path(self.listener.ipc), connections_max()
        if not self._hidden and connections > most:
            logger.warning(
                "%d connections, for more than %d this process may open too few files (ulimit -n): "
                "until there are fewer, who comes is served at %s",
                connections, most, self.listener.tcp,
            )  # fmt: skip
            _move(path, _hidden(path))
            self._hidden = True
        elif self._hidden and connections <= most * 3 // 4:
            _move(_hidden(path), path)
            self._hidden = False

    def remove_file(self) -> None:
        """Remove the ipc socket's file, which ZeroMQ leaves, unless it is another process's by now."""
        path, file, self._file = _path(self.listener.ipc), self._file, None
        if self._hidden:
            path = _hidden(path)
        if file is not None and path.exists() and os.path.samestat(file, path.stat()):
            path.unlink()


def _move(path: Path, to: Path) -> None:
    with suppress(FileNotFoundError):  # somebody has removed it: nobody finds it either way
        path.rename(to)


def _hidden(path: Path) -> Path:
    """Where nobody looks for it."""
    return path.with_name(f"{path.name}.full")


def _bind_one(socket: Socket, endpoint: str) -> None:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        cause = _CAUSES.get(error.errno or 0) or str(error).lower()
        raise ConnectionFailedError(f"cannot listen on {endpoint}: {cause}") from None


def _numeric(endpoint: str) -> str:
    """ZeroMQ binds to numbers only: look a host name up."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if host in _WILDCARDS or host.startswith("["):
        return endpoint
    try:
        address = plain_socket.gethostbyname(host)
    except OSError as error:
        raise ConnectionFailedError(f"cannot listen on {endpoint}: {error.strerror or error}") from None
    return f"tcp://{address}:{port}"


def _reachable(endpoint: str) -> str:
    """A wildcard address means nothing to others: tell them the host's name in its place."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return f"tcp://{plain_socket.gethostname()}:{port}" if host in _WILDCARDS else endpoint


def _path(ipc: str) -> Path:
    return Path(ipc.removeprefix("ipc://"))


def _prepare(ipc: str) -> None:
    """Make the socket's folder private, and refuse a path that another process listens on.

    ZeroMQ unlinks whatever is at the path: right for the file of a killed process, wrong for that
    of a live one.
    """
    path = _path(ipc)
    length = len(os.fsencode(path))
    if length > IPC_PATH_BYTES_MAX:
        raise ConnectionFailedError(
            f"cannot listen on {ipc}: the path has {length} bytes, at most {IPC_PATH_BYTES_MAX} are possible"
        )
    try:
        make_private(path.parent)
    except OSError as error:
        raise ConnectionFailedError(f"cannot listen on {ipc}: {error.strerror}") from None
    with plain_socket.socket(plain_socket.AF_UNIX, plain_socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise ConnectionFailedError(f"cannot listen on {ipc}: {_CAUSES[errno.EADDRINUSE]}")
