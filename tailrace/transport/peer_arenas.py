"""The arenas that a node's clients have handed over.

A client is not trusted (see `peer_files.py`). It names a file descriptor of its own and a token.
"""

import fcntl
import os
import stat
from collections.abc import Iterable
from functools import cache
from mmap import MAP_SHARED, PROT_READ, PROT_WRITE, mmap
from typing import Final, NamedTuple

from tailrace.protocol.descriptor import decode_descriptor
from tailrace.protocol.errors import LocalPathError, MalformedRequestError
from tailrace.protocol.limits import ARENA_BYTES_MAX, ARENAS_MAX

from .arena import SLOTS_AT
from .peer_files import Credentials, open_peer_file

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW if hasattr(fcntl, "F_SEAL_SHRINK") else 0


class Payload(NamedTuple):
    """The payload of a request. `shared`: the client can still write to it, or, in a request that asks for
    batches, they may be put into it. `start` is where it begins in the client's arena."""

    frames: list[memoryview]
    shared: bool = False
    start: int = 0


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
        if peer not in self._arenas and len(self._arenas) >= ARENAS_MAX:
            raise LocalPathError(f"{ARENAS_MAX} clients share memory with this node already")
        self._arenas[peer] = _map(credentials, fd, token)

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


def _map(credentials: Credentials | None, fd: int, token: bytes) -> memoryview:
    fd = open_peer_file(credentials, fd, os.O_RDWR, what="the client's memory", fits=_is_memory)
    try:
        memory = memoryview(mmap(fd, _checked_size(fd), MAP_SHARED, PROT_READ | PROT_WRITE))
    except OSError as error:
        raise LocalPathError(f"the client's memory cannot be mapped: {error.strerror}") from None
    finally:
        os.close(fd)
    if bytes(memory[: len(token)]) != token:
        raise LocalPathError("the client's memory does not hold the token")
    return memory


def _is_memory(status: os.stat_result) -> bool:
    """What `memfd_create` makes, but of no huge pages, where a hole that cannot be filled is a SIGBUS."""
    return stat.S_ISREG(status.st_mode) and status.st_dev == _memory_device()


@cache
def _memory_device() -> int:
    """Where the kernel keeps all of it, and no file that has a name."""
    fd = os.memfd_create("tailrace-device", os.MFD_CLOEXEC)
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


def _checked_size(fd: int) -> int:
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise LocalPathError("the client's memory is not sealed against shrinking and growing")
    size = os.fstat(fd).st_size
    if not SLOTS_AT < size <= ARENA_BYTES_MAX:
        raise LocalPathError(f"an arena of {size} bytes, at most {ARENA_BYTES_MAX}")
    return size
