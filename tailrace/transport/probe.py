"""Does a process listen at an endpoint? Found out by a plain connect, which nobody has to answer."""

import errno
import socket
import threading
import time
from contextlib import suppress
from typing import Final

from tailrace.protocol.errors import InvalidArgumentError

from .endpoint import split_tcp

NAME_KEPT_S: Final = 10.0
"""How long the address of a host's name is taken for its address."""


class Names:
    """Addresses of hosts by name: IPv4, as ZeroMQ looks them up. It may take seconds: in a thread each."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, str]] = {}
        self._sought: set[str] = set()

    def address(self, host: str) -> str | None:
        """The address of a host, at once; None: it is being looked up, ask again. Any thread."""
        for family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):
                socket.inet_pton(family, host)
                return host
        found_at, address = self._found.get(host, (-NAME_KEPT_S, ""))
        if time.monotonic() - found_at < NAME_KEPT_S:
            return address
        if host not in self._sought:
            self._sought.add(host)
            threading.Thread(target=self._look_up, args=(host,), name=f"look up {host}", daemon=True).start()
        return None

    def _look_up(self, host: str) -> None:
        try:
            with suppress(OSError):  # then nobody can say that it refuses; the next probe looks again
                self._found[host] = time.monotonic(), socket.gethostbyname(host)
        finally:
            self._sought.discard(host)


class Probe:
    """One attempt to connect, which waits for nothing. While a name is looked up there is none."""

    def __init__(self, endpoint: str, names: Names) -> None:
        self._socket: socket.socket | None = None
        self._refused = False
        with suppress(OSError, InvalidArgumentError):
            self._connect(endpoint, names)

    def _connect(self, endpoint: str, names: Names) -> None:
        place: str | tuple[str, int]
        if endpoint.startswith("ipc://"):
            family, place = socket.AF_UNIX, endpoint.removeprefix("ipc://")
        else:
            host, port = split_tcp(endpoint)
            address = names.address(host)
            if address is None:
                return
            family, place = socket.AF_INET6 if ":" in address else socket.AF_INET, (address, port)
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._refused = self._socket.connect_ex(place) == errno.ECONNREFUSED

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
