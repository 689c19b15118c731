"""Listen addresses: where a process may be reached, and from how far."""

import ipaddress
import socket
from typing import Final

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.transport.endpoint import split_tcp

from .yaml_values import Value

_NOT_SAFE_YET: Final = (
    "other machines can reach it, and connections are neither encrypted nor authenticated yet; "
    "listen on 127.0.0.1, or set 'insecure: true' if everybody who reaches the port may read and write"
)


def listen_endpoint(value: Value, *, insecure: bool) -> str:
    """The endpoint of `host:port`, port 0 for any free one.

    Raises InvalidConfigError for what is no address, and, unless `insecure`, for one that is not
    on the loopback interface.
    """
    if not isinstance(value.data, str):
        raise value.error(f"expected host:port such as 127.0.0.1:7070, not {value.data!r}")
    try:
        host, port = split_tcp(value.data)
    except InvalidArgumentError as error:
        raise value.error(str(error)) from None
    if not insecure and not _is_loopback(host, value):
        raise value.error(f"{value.data}: {_NOT_SAFE_YET}")
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _is_loopback(host: str, value: Value) -> bool:
    literal = _literal_is_loopback(host)
    if literal is not None:
        return literal
    if host == "*":
        return False
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except OSError:
        raise value.error(f"{host!r} is no address and no host name that is known here") from None
    return all(_literal_is_loopback(str(address[4][0])) for address in found)


def _literal_is_loopback(host: str) -> bool | None:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return None
