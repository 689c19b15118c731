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
from typing import Final, NamedTuple, TypeAlias

from tailrace.protocol.limits import PIPED_BYTES_MAX
from tailrace.protocol.piped import pack, unpack

from .server import Buffer

PIPE_READ_BYTES: Final = 16 * PAGESIZE
"""What a pipe holds at most, unless it was asked to hold more: one read empties it."""

Message: TypeAlias = tuple[bytes, list[bytes]]
"""(header, payload frames)."""

assert sys.platform != "linux" or PIPED_BYTES_MAX <= select.PIPE_BUF


class PipeEnd(NamedTuple):
    """A pipe that a process knows by the number `fd`, until it closes it: then that may be another file."""

    fd: int
    inode: int


class Pipes:
    """The client's side. Replies are read by one thread at a time.

    Raises OSError where there are no pipes, or no more files. `requests_end` and `replies_end` are the ends
    that the node is to open.
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
        self.inbox: list[Message] = []
        """What was read, and not taken out yet."""
        self._packed: list[bytes] = []

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

    def fileno(self) -> int:
        """Where replies come from."""
        return self._replies

    def receive(self) -> list[Message]:
        """The replies that are there. Raises MalformedRequestError."""
        self.read()
        inbox, self.inbox = self.inbox, []
        return inbox

    def read(self) -> None:
        """Put the replies that are there into the inbox. Raises MalformedRequestError.

        Nothing is lost if a signal handler raises meanwhile: between a read and its note there is no point
        where one could run.
        """
        try:  # noqa: SIM105 - suppress() is three calls more
            self._packed.extend(map(os.read, (self._replies,), (PIPE_READ_BYTES,)))
        except BlockingIOError:
            pass
        while self._packed:
            messages = unpack(self._packed[0])
            self.inbox += messages  # not a call from here on
            del self._packed[0]

    def close(self) -> None:
        """Give the descriptors back. Take it out of its poller first."""
        for fd in (self.requests_end.fd, self._requests, self._replies, self.replies_end.fd):
            os.close(fd)
