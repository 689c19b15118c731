"""The arenas that a node's clients have handed over.

A client is not trusted. It names a file descriptor of its own and a token; who it is comes from the kernel,
by way of ZeroMQ, never from the client.
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterable
from mmap import MAP_SHARED, PAGESIZE, PROT_READ, PROT_WRITE, mmap
from typing import Final, NamedTuple

import zmq

from tailrace.protocol.descriptor import decode_descriptor
from tailrace.protocol.errors import LocalPathError, MalformedRequestError
from tailrace.protocol.limits import ARENA_BYTES_MAX, ARENAS_MAX

from .arena import SLOTS_AT

_IPC_PEER: Final = re.compile(r"localhost:(\d+):(\d+):(\d+)")
"""What libzmq 4.3 gives as the address of a peer on a unix socket (SO_PEERCRED): user, group, process. A
peer on a network has a numeric address."""
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW if hasattr(fcntl, "F_SEAL_SHRINK") else 0


class Credentials(NamedTuple):
    """Whom the kernel says a connection belongs to."""

    uid: int
    pid: int


class Payload(NamedTuple):
    """The payload of a request. `shared`: the client can still write to it, or, in a request that asks for
    batches, they may be put into it. `start` is where it begins in the client's arena."""

    frames: list[memoryview]
    shared: bool = False
    start: int = 0


def credentials_of(part: zmq.Frame | None) -> Credentials | None:
    """Who sent this part of a message; None unless it came over ipc."""
    if part is None:
        return None
    try:
        address = part.get("Peer-Address")
    except zmq.ZMQError:
        return None
    match = _IPC_PEER.fullmatch(str(address))
    return None if match is None else Credentials(int(match[1]), int(match[3]))


def path_of(credentials: Credentials | None, fd: int) -> str:
    """Where a descriptor of the peer's process can be opened. Raises LocalPathError unless that is ours."""
    if credentials is None:
        raise LocalPathError("the local path needs a connection over ipc")
    if credentials.uid != os.geteuid():
        raise LocalPathError(f"the local path is for user {os.geteuid()}, not for {credentials.uid}")
    return f"/proc/{credentials.pid}/fd/{fd}"


class PeerArenas:
    """At most one arena a connection, ARENAS_MAX in all. Belongs to one thread; what it gives does not."""

    def __init__(self) -> None:
        self._arenas: dict[bytes, memoryview] = {}

    def __len__(self) -> int:
        return len(self._arenas)

    def open(self, peer: bytes, credentials: Credentials | None, fd: int, token: bytes) -> None:
        """Map the arena that descriptor `fd` of the peer's process is. In place of the one before, if any.

        Raises LocalPathError when it cannot be used, with the reason.
        """
        path = path_of(credentials, fd)
        if peer not in self._arenas and len(self._arenas) >= ARENAS_MAX:
            raise LocalPathError(f"{ARENAS_MAX} clients share memory with this node already")
        self._arenas[peer] = _map(path, token)

    def close(self, peers: Iterable[bytes]) -> None:
        """These connections are gone. The memory goes with the last piece of work that uses it."""
        for peer in peers:
            self._arenas.pop(peer, None)

    def payload(self, peer: bytes, frame: memoryview) -> Payload:
        """The bytes that a descriptor names. Raises MalformedRequestError."""
        arena = self._arenas.get(peer)
        if arena is None:
            raise MalformedRequestError("a descriptor, but no arena was handed over on this connection")
        descriptor = decode_descriptor(frame)
        spans = descriptor.spans(SLOTS_AT, len(arena))
        return Payload([arena[start:end] for start, end in spans], shared=True, start=descriptor.start)


def _map(path: str, token: bytes) -> memoryview:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise LocalPathError(f"the client's memory cannot be opened: {error.strerror}") from None
    try:
        size = _checked_size(fd)
        memory = memoryview(mmap(fd, size, MAP_SHARED, PROT_READ | PROT_WRITE))
    except OSError as error:
        raise LocalPathError(f"the client's memory cannot be mapped: {error.strerror}") from None
    finally:
        os.close(fd)
    if bytes(memory[: len(token)]) != token:
        raise LocalPathError("the client's memory does not hold the token")
    return memory


def _checked_size(fd: int) -> int:
    status = os.fstat(fd)
    # Blocks of another size: hugetlbfs, where a hole that cannot be filled is a SIGBUS. The file system's,
    # not `st_blksize`, which is 2 MiB for every memfd where the kernel may use huge pages for shared memory.
    if not stat.S_ISREG(status.st_mode) or os.fstatvfs(fd).f_bsize != PAGESIZE:
        raise LocalPathError("the descriptor is no arena")
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise LocalPathError("the client's memory is not sealed against shrinking and growing")
    if not SLOTS_AT < status.st_size <= ARENA_BYTES_MAX:
        raise LocalPathError(f"an arena of {status.st_size} bytes, at most {ARENA_BYTES_MAX}")
    return status.st_size
