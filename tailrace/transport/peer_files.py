"""What a node's clients hand over by the number of a descriptor of theirs: memory, pipes.

A client is not trusted. Who it is comes from the kernel, by way of ZeroMQ, never from the client. What it
names is looked at before it is opened: to close a file takes the process's locks on it away (fcntl(2)), and
it might be one of LMDB's, whose writers would not exclude each other any more.
"""

import os
import re
from collections.abc import Callable
from typing import Final, NamedTuple

import zmq

from tailrace.protocol.errors import LocalPathError

_IPC_PEER: Final = re.compile(r"localhost:(\d+):(\d+):(\d+)")
"""What libzmq 4.3 gives as the address of a peer on a unix socket (SO_PEERCRED): user, group, process. A
peer on a network has a numeric address."""


class Credentials(NamedTuple):
    """Whom the kernel says a connection belongs to."""

    uid: int
    pid: int


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


def open_peer_file(
    credentials: Credentials | None,
    fd: int,
    access: int,
    *,
    what: str,
    fits: Callable[[os.stat_result], bool],
) -> int:
    """Open what descriptor `fd` of the peer's process is with `access`, if that `fits`; never waits.

    Raises LocalPathError, also unless the process is on this machine, and of this user.
    """
    if credentials is None:
        raise LocalPathError("the local path needs a connection over ipc")
    if credentials.uid != os.geteuid():
        raise LocalPathError(f"the local path is for user {os.geteuid()}, not for {credentials.uid}")
    try:
        place = os.open(f"/proc/{credentials.pid}/fd/{fd}", os.O_PATH | os.O_CLOEXEC)
        try:
            if not fits(os.fstat(place)):
                raise LocalPathError(f"the descriptor is not {what}")
            return os.open(f"/proc/self/fd/{place}", access | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(place)
    except OSError as error:
        raise LocalPathError(f"{what} cannot be opened: {error.strerror}") from None
