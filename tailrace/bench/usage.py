"""CPU time and memory of processes, from /proc; who listens where on this machine."""

import os
from collections.abc import Iterator
from pathlib import Path
from socket import gethostname
from typing import Final, NamedTuple

from tailrace.transport.endpoint import split_tcp

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_ENDED: Final = "Z"
"""Its parent has not asked for its exit code yet."""
_LISTENING: Final = "0A"
_HERE: Final = ("127.0.0.1", "localhost", "::1")


class Usage(NamedTuple):
    """Of one process: CPU seconds since its start, bytes of anonymous memory."""

    cpu_s: float
    rss_anon: int


def usage_of(pid: int) -> Usage | None:
    """What a process has used; None when it is gone, or not to be looked at."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] == _ENDED:
        return None
    rss = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:")]
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS_PER_S, rss[0] if rss else 0)


def listening_at(endpoint: str) -> int | None:
    """The process that listens at a tcp endpoint of this machine; None when it is elsewhere, or not found."""
    host, port = split_tcp(endpoint)
    if host not in _HERE and host != gethostname():
        return None
    return _owner({inode for inode, number in _tcp_listeners() if number == port})


def _tcp_listeners() -> Iterator[tuple[str, int]]:
    """Inode and port of each."""
    for name in ("tcp", "tcp6"):
        for line in _rows(f"/proc/net/{name}"):
            fields = line.split()
            if fields[3] == _LISTENING:
                yield fields[9], int(fields[1].rpartition(":")[2], 16)


def _rows(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()[1:]
    except OSError:
        return []


def _owner(inodes: set[str]) -> int | None:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(each.readlink()) in wanted for each in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:  # it is gone, or another user's
            continue
    return None
