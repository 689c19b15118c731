"""CPU time and memory of processes, from /proc; who listens where on this machine."""

import os
import socket
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from tailrace.transport.endpoint import split_tcp

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_ENDED: Final = "Z"
"""Its parent has not asked for its exit code yet."""
_LISTENING: Final = "0A"
_HERE: Final = ("127.0.0.1", "localhost", "::1")
_PROC: Final = Path("/proc")

Address: TypeAlias = IPv4Address | IPv6Address


class Usage(NamedTuple):
    """Of one process: CPU seconds since its start, bytes of anonymous memory, None where it is not known."""

    cpu_s: float
    rss_anon: int | None


def own_usage() -> Usage | None:
    """What this process has used."""
    return _usage_at(_PROC / "self")


def usage_of(pid: int) -> Usage | None:
    """What a process has used; None when it is gone, or not to be looked at."""
    return _usage_at(_PROC / str(pid)) if _numbers_are_ours() else None


def _numbers_are_ours() -> bool:
    """Not in a pid namespace that has no /proc of its own: the same numbers there are other processes."""
    try:
        return str((_PROC / "self").readlink()) == str(os.getpid())
    except OSError:
        return False


def _usage_at(process: Path) -> Usage | None:
    try:
        stat = (process / "stat").read_text()
        status = (process / "status").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] == _ENDED:
        return None
    rss = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:")]
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS_PER_S, rss[0] if rss else None)


def listening_at(endpoint: str) -> int | None:
    """The process that listens at a tcp endpoint of this machine; None when it is elsewhere, or not found.

    Who listens at that very address comes before who listens at all of them.
    """
    host, port = split_tcp(endpoint)
    if host not in _HERE and host != socket.gethostname():
        return None
    at_port = [(inode, address) for inode, address, number in _tcp_listeners() if number == port]
    for wanted in _addresses_of(host):
        inodes = {inode for inode, address in at_port if address == wanted}
        if inodes:
            return _owner(inodes)
    return _owner({inode for inode, address in at_port if address.is_unspecified})


def _addresses_of(host: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [_plain(ip_address(str(place[0]).partition("%")[0])) for *_, place in found]


def _tcp_listeners() -> Iterator[tuple[str, Address, int]]:
    """Inode, address and port of each."""
    for name in ("tcp", "tcp6"):
        for line in _rows(f"/proc/net/{name}"):
            fields = line.split()
            if fields[3] == _LISTENING:
                address, _, port = fields[1].rpartition(":")
                yield fields[9], _address_of(address), int(port, 16)


def _address_of(text: str) -> Address:
    """Of hexadecimal words of 4 bytes, each as this machine keeps numbers."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    return _plain(ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words)))


def _plain(address: Address) -> Address:
    """That of IPv4 if it stands for one."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _rows(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()[1:]
    except OSError:
        return []


def _owner(inodes: set[str]) -> int | None:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in _PROC.glob("[0-9]*") if _numbers_are_ours() else ():
        try:
            if any(str(each.readlink()) in wanted for each in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:  # it is gone, or another user's
            continue
    return None
