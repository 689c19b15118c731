"""Does a process listen at an endpoint? Found out by a plain connect, which nobody has to answer."""

import errno
import socket
from contextlib import suppress

from tailrace.protocol.errors import InvalidArgumentError

from .endpoint import split_tcp


class Probe:
    """One attempt to connect. Waits for nothing: a host's name is not looked up, and so is not tried."""

    def __init__(self, endpoint: str) -> None:
        self._socket: socket.socket | None = None
        self._refused = False
        with suppress(OSError, InvalidArgumentError):
            self._connect(endpoint)

    def _connect(self, endpoint: str) -> None:
        family, address = _address(endpoint)
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._refused = self._socket.connect_ex(address) == errno.ECONNREFUSED

    @property
    def refused(self) -> bool:
        """The machine is there and answers that no process listens. Not when nothing answers, or not yet."""
        if not self._refused and self._socket is not None:
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._refused = error == errno.ECONNREFUSED
        return self._refused

    def close(self) -> None:
        """End the attempt."""
        if self._socket is not None:
            self._socket.close()


def _address(endpoint: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    """Raises OSError for a host that is no number, InvalidArgumentError."""
    if endpoint.startswith("ipc://"):
        return socket.AF_UNIX, endpoint.removeprefix("ipc://")
    host, port = split_tcp(endpoint)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.inet_pton(family, host)
    return family, (host, port)
