"""Two pipes from a client to a node of its machine and back, for small messages.

A message on its way through ZeroMQ is handed to a thread and from a thread at each end, and one through a
pipe is not: it is there in a third of the time.

The node's ends stay open in the client, too. So a write never meets a pipe that nobody can read any more, for
which the kernel would send a SIGPIPE to the application; that a node is gone, its connection tells.
"""

import os
import select
import sys
from collections.abc import Sequence
from mmap import PAGESIZE
from typing import Final, NamedTuple

from tailrace.protocol.limits import PIPED_BYTES_MAX
from tailrace.protocol.piped import pack, unpack

from .server import Buffer

PIPE_READ_BYTES: Final = 16 * PAGESIZE
"""What a pipe holds at most, unless it was asked to hold more: one read empties it."""

assert sys.platform != "linux" or PIPED_BYTES_MAX <= select.PIPE_BUF


class PipeEnd(NamedTuple):
    """A pipe that a process knows by the number `fd`, until it closes it: then that may be another file."""

    fd: int
    inode: int


class Pipes:
    """The client's side. Belongs to one thread. Raises OSError where there are no pipes, or no more files.

    `requests_end` and `replies_end` are the ends that the node is to open.
    """

    def __init__(self) -> None:
        if not hasattr(os, "pipe2"):
            raise OSError("pipes to a node are Linux's")
        requests_fd, self._requests = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._replies, replies_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            os.close(requests_fd)
            os.close(self._requests)
            raise
        self.requests_end = PipeEnd(requests_fd, os.fstat(requests_fd).st_ino)
        self.replies_end = PipeEnd(replies_fd, os.fstat(replies_fd).st_ino)

    def pollables(self) -> Sequence[int]:
        """What a `Poller` watches."""
        return (self._replies,)

    def send(self, header: bytes, frames: Sequence[Buffer]) -> bool:
        """Send a request; False if it is too large for a pipe, or the pipe is full."""
        message = pack(header, frames)
        if message is None:
            return False
        try:
            os.write(self._requests, message)
        except BlockingIOError:
            return False
        return True

    def receive(self) -> list[tuple[bytes, list[bytes]]]:
        """The replies that are there, as (header, payload frames). Raises MalformedRequestError."""
        try:
            return unpack(os.read(self._replies, PIPE_READ_BYTES))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Give the descriptors back. Take it out of its poller first."""
        for fd in (self.requests_end.fd, self._requests, self._replies, self.replies_end.fd):
            os.close(fd)
