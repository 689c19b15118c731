"""XPUB and SUB: how the cluster state's changes reach everybody."""

from collections.abc import Sequence
from typing import Final

import zmq

from .binding import Binding
from .context import Context, Socket, new_socket, readable

_NOBLOCK: Final = int(zmq.NOBLOCK)
_SUBSCRIBED: Final = b"\x01"
"""Begins what XPUB tells of a subscription."""


class Publisher:
    """An XPUB socket on a tcp and an ipc endpoint. Belongs to one thread.

    A subscriber that is late or slow misses messages, silently: they must carry versions. What is sent once
    the poller has reported the publisher, and `joined`, reaches who was late, too.
    Raises ConnectionFailedError when it cannot bind.
    """

    def __init__(self, context: Context, *, tcp: str, ipc: str = "") -> None:
        self.used = True
        self._socket: Socket = new_socket(context, zmq.XPUB, tcp)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # tell of each subscriber, not of the first alone
        try:
            self._binding = Binding(self._socket, tcp=tcp, ipc=ipc)
        except BaseException:
            self._socket.close()
            raise
        self.listener = self._binding.listener

    def pollables(self) -> Sequence[Socket]:
        """What a `Poller` watches."""
        return (self._socket,)

    def joined(self) -> bool:
        """Has a subscription taken effect since the last call?"""
        self.used = True
        joined = False
        while readable(self._socket):
            joined |= self._socket.recv(_NOBLOCK).startswith(_SUBSCRIBED)
        return joined

    def admit(self, connections: int) -> None:
        """So many the server beside it has: see `Binding.admit`."""
        self._binding.admit(connections)

    def send(self, data: bytes) -> None:
        """Send to all that are subscribed now. Never waits."""
        self.used = True
        self._socket.send(data, _NOBLOCK)

    def close(self) -> None:
        """Close at once."""
        self._socket.close(linger=0)
        self._binding.remove_file()


class Subscriber:
    """A SUB socket that follows one publisher, across its restarts. Belongs to one thread."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self.endpoint = endpoint
        self.used = True
        self._socket: Socket = new_socket(context, zmq.SUB, endpoint)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(endpoint)

    def pollables(self) -> Sequence[Socket]:
        """What a `Poller` watches."""
        return (self._socket,)

    def receive(self) -> bytes | None:
        """The next message, or None when there is none now."""
        self.used = True
        while True:
            try:
                frame = self._socket.recv(_NOBLOCK, copy=False)
            except zmq.Again:
                return None
            if not frame.more:
                return frame.bytes
            while frame.more:  # not from our publisher
                frame = self._socket.recv(_NOBLOCK, copy=False)

    def close(self) -> None:
        """Close at once."""
        self._socket.close(linger=0)
