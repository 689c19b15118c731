"""Pass the children's log lines on, each with its sender's name in front."""

import os
import select
from typing import Final

CHUNK_BYTES: Final = 64 * 1024
_PIECE_BYTES_MAX: Final = 4_096
"""PIPE_BUF on Linux: a pipe that polls writable takes so much without blocking."""


def prefix_of(name: str) -> str:
    """What begins each line of a process, and of the supervisor itself, `up`."""
    return f"{name:<11} | "


class Relay:
    """Writes lines to a file descriptor, and drops what it does not take.

    A reader that has stopped reading must not stop the cluster: a child whose stderr is full would
    wait in its next log call.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._rests: dict[str, bytes] = {}
        self._dropped = 0

    def pump(self, name: str, source: int) -> bool:
        """Pass on what `source` holds; False at its end."""
        chunk = os.read(source, CHUNK_BYTES)
        *lines, rest = (self._rests.pop(name, b"") + chunk).split(b"\n")
        if rest and (not chunk or len(rest) > CHUNK_BYTES):
            lines.append(rest)
            rest = b""
        if rest:
            self._rests[name] = rest
        for line in lines:
            self.say(name, line)
        return bool(chunk)

    def say(self, name: str, line: bytes) -> None:
        """One line of one sender; what is over 4 KiB is cut."""
        if self._dropped and self._write(b"[%d lines dropped: nobody took them]\n" % self._dropped):
            self._dropped = 0
        if not self._write(prefix_of(name).encode() + line[: _PIECE_BYTES_MAX - 64] + b"\n"):
            self._dropped += 1

    def _write(self, piece: bytes) -> bool:
        events = self._poll.poll(0)
        if not events or not events[0][1] & select.POLLOUT:
            return False
        try:
            os.write(self._fd, piece)
        except OSError:  # its reader is gone, the disk under it is full, ...
            return False
        return True
