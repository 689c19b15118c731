"""Addresses: how users write them, which of two to take, and why one does not answer."""

import errno
import functools
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tailrace.protocol.cluster import Listener
from tailrace.protocol.errors import InvalidArgumentError

IPC_PATH_BYTES_MAX: Final = 107
"""What fits into a `sockaddr_un` on Linux, less the closing zero."""
DIAGNOSE_TIMEOUT_S: Final = 1.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def boot_id() -> str:
    """Names this run of this machine's kernel; empty where there is no such thing."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def choose(listener: Listener) -> str:
    """The ipc endpoint if it is on this machine and may be used by this user, else the tcp one."""
    return listener.tcp if why_apart(listener) else listener.ipc


def why_apart(listener: Listener) -> str:
    """Why it can only be reached over tcp, in a few words; "" if there is no reason."""
    path = listener.ipc.removeprefix("ipc://")
    if not path:
        return "it has no local socket"
    if not listener.boot_id or listener.boot_id != boot_id():
        return "it is on another machine"
    return "" if os.access(path, os.W_OK) else "its local socket is not to be seen, or another user's"


def parse_bootstrap(servers: str | Sequence[str]) -> list[str]:
    """Endpoints of `host:port`, `tcp://host:port` or `ipc://path`: a list, or separated by commas.

    Raises InvalidArgumentError with the part that is wrong.
    """
    parts = servers.split(",") if isinstance(servers, str) else servers
    if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
        raise InvalidArgumentError(
            f"bootstrap_servers is {servers!r:.100}; it is host:port, or a list of such"
        )
    endpoints = [_parse(part.strip()) for part in parts if part.strip()]
    if not endpoints:
        raise InvalidArgumentError("bootstrap_servers is empty; give host:port, such as 127.0.0.1:7070")
    return list(dict.fromkeys(endpoints))


def diagnose(endpoint: str) -> str:
    """Why nobody answers at `endpoint`, in a few words, found out by a plain connect (at most 1 s).

    It may be a thread of the application's that asks: what a signal handler raises there, OSError or not, is
    raised.
    """
    try:
        places = _places_of(endpoint)
    except socket.gaierror:
        return "no such host"
    code = 0
    for family, place in places:
        code = _plain_connect(family, place)
        if code == 0:
            return "it accepts connections but does not answer: no Tailrace process (yet), or a stopped one"
    if code in {errno.EAGAIN, errno.ETIMEDOUT}:
        return f"no answer within {DIAGNOSE_TIMEOUT_S:g} s"
    if code == errno.ECONNREFUSED:
        return "connection refused: no process listens there"
    if code == errno.ENOENT:
        return "no such socket: no process listens there"
    return os.strerror(code).lower()


def _places_of(endpoint: str) -> list[tuple[socket.AddressFamily, Any]]:
    if endpoint.startswith("ipc://"):
        return [(socket.AF_UNIX, endpoint.removeprefix("ipc://"))]
    host, port = split_tcp(endpoint)
    return [(found[0], found[4]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _plain_connect(family: socket.AddressFamily, place: Any) -> int:
    """0, or the error's code."""
    try:
        plain = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno is None:
            raise  # not the system's
        return error.errno
    with plain:
        plain.settimeout(DIAGNOSE_TIMEOUT_S)
        return plain.connect_ex(place)


def split_tcp(endpoint: str) -> tuple[str, int]:
    """Host and port of `host:port` or `tcp://host:port`; an IPv6 host loses its brackets.

    Raises InvalidArgumentError.
    """
    host, colon, port = endpoint.removeprefix("tcp://").rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare and bare == host) or "/" in host:
        raise InvalidArgumentError(f"{endpoint!r} is no address; write host:port, such as 127.0.0.1:7070")
    if not (port.isascii() and port.isdigit()) or int(port) > 0xFFFF:
        raise InvalidArgumentError(f"{endpoint!r}: the port must be a number up to 65535")
    return bare, int(port)


def _parse(server: str) -> str:
    scheme, separator, rest = server.partition("://")
    if separator and scheme == "ipc":
        if not rest:
            raise InvalidArgumentError(f"{server!r} has no path")
        return server
    if separator and scheme != "tcp":
        raise InvalidArgumentError(f"{server!r}: the scheme must be tcp:// or ipc://")
    host, port = split_tcp(server)
    if port == 0:
        raise InvalidArgumentError(f"{server!r}: port 0 is no address to connect to")
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
