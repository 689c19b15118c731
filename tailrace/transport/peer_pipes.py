"""The pipes that a node's clients have handed over, for small messages beside their connections.

A client is not trusted: see `peer_files.py`. What it writes is a message like any other; one that is none
costs it its pipes.
"""

import logging
import os
import stat
import sys
from collections.abc import Iterable, Sequence

import zmq

from tailrace.protocol.errors import LocalPathError, MalformedRequestError
from tailrace.protocol.limits import PIPED_CLIENTS_MAX
from tailrace.protocol.piped import pack, unpack

from .peer_files import Credentials, credentials_of, open_peer_file
from .pipes import PIPE_READ_BYTES, PipeEnd
from .poller import Poller, Source
from .server import Buffer, Incoming

_log = logging.getLogger(__name__)


class _Ends:
    """The node's ends of one client's pipes. `part` is a part of the message that has handed them over.

    `used`: something has come through them, so that the client knows that they are open, and listens.
    """

    __slots__ = ("part", "peer", "replies", "requests", "used")

    def __init__(self, peer: bytes, part: zmq.Frame | None, requests: int, replies: int) -> None:
        self.peer = peer
        self.part = part
        self.requests = requests
        self.replies = replies
        self.used = False


class PeerPipes:
    """At most one pair of pipes a connection, PIPED_CLIENTS_MAX in all. Belongs to one thread.

    The poller watches the node's end of each: it is reported by its descriptor.
    """

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._ends: dict[bytes, _Ends] = {}
        self._by_descriptor: dict[Source, _Ends] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def open(self, peer: bytes, part: zmq.Frame | None, requests_end: PipeEnd, replies_end: PipeEnd) -> None:
        """Open the ends that these are in the peer's process. In place of those before, if any.

        Raises LocalPathError when they cannot be used, with the reason.
        """
        if sys.platform != "linux":
            raise LocalPathError("pipes to a node are Linux's")
        if peer not in self._ends and len(self._ends) >= PIPED_CLIENTS_MAX:
            raise LocalPathError(f"{PIPED_CLIENTS_MAX} clients have pipes to this node already")
        if requests_end.inode == replies_end.inode:
            raise LocalPathError("one pipe for both ways: the node would answer its own replies")
        credentials = credentials_of(part)
        requests = _open(credentials, requests_end, os.O_RDONLY)
        try:
            replies = _open(credentials, replies_end, os.O_WRONLY)
        except LocalPathError:
            os.close(requests)
            raise
        self.close([peer])
        self._ends[peer] = self._by_descriptor[requests] = _Ends(peer, part, requests, replies)
        self._poller.add(requests)

    def receive(self, source: Source) -> list[Incoming] | None:
        """What has come through the pipe that the poller has reported; None: `source` is something else."""
        ends = self._by_descriptor.get(source)
        return None if ends is None else self._read(ends)

    def before(self, peer: bytes) -> list[Incoming]:
        """What the peer has sent through its pipe before a message of its that has come around it."""
        ends = self._ends.get(peer)
        return [] if ends is None else self._read(ends)

    def send(self, peer: bytes, header: bytes, frames: Sequence[Buffer]) -> bool:
        """Send a reply; False if it has to go another way.

        A pipe that is full is not used for replies any more: its client does not read.
        """
        ends = self._ends.get(peer)
        if ends is None or not ends.used or ends.replies < 0:
            return False
        message = pack(header, frames)
        if message is None:
            return False
        try:
            os.write(ends.replies, message)
        except (BlockingIOError, BrokenPipeError):
            os.close(ends.replies)
            ends.replies = -1
            return False
        return True

    def close(self, peers: Iterable[bytes]) -> None:
        """These connections are gone."""
        for peer in peers:
            ends = self._ends.pop(peer, None)
            if ends is not None:
                del self._by_descriptor[ends.requests]
                self._poller.remove(ends.requests)
                os.close(ends.requests)
                if ends.replies >= 0:
                    os.close(ends.replies)

    def close_all(self) -> None:
        """The node stops."""
        self.close(tuple(self._ends))

    def _read(self, ends: _Ends) -> list[Incoming]:
        try:
            data = os.read(ends.requests, PIPE_READ_BYTES)
        except BlockingIOError:
            return []
        try:
            messages = unpack(data)
        except MalformedRequestError as error:
            _log.warning("peer %s: its pipes are closed: %s", ends.peer.hex(), error)
            messages = []
        ends.used = True
        if not messages:  # that, or its last writer is gone
            self.close([ends.peer])
        incoming = []
        for header, frames in messages:
            writable = [memoryview(bytearray(frame)) for frame in frames]
            incoming.append(Incoming(ends.peer, memoryview(header), writable, ends.part))
        return incoming


def _open(credentials: Credentials | None, end: PipeEnd, access: int) -> int:
    def fits(status: os.stat_result) -> bool:
        return stat.S_ISFIFO(status.st_mode) and status.st_ino == end.inode

    return open_peer_file(credentials, end.fd, access, what="the client's pipe", fits=fits)
