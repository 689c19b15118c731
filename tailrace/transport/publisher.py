"""PUB and SUB: how the cluster state's changes reach everybody."""

from collections.abc import Sequence
from typing import Final

import zmq

from .binding import Binding
from .context import Context, Socket, new_socket

_NOBLOCK: Final = int(zmq.NOBLOCK)


class Publisher:
    """A PUB socket on a tcp and an ipc endpoint. Belongs to one thread.

    A subscriber that is late or slow misses messages, silently: they must carry versions.
    Raises ConnectionFailedError when it cannot bind.
    """

    def __init__(self, context: Context, *, tcp: str, ipc: str = "") -> None:
        self._socket: Socket = new_socket(context, zmq.PUB, tcp)
        try:
            self._binding = Binding(self._socket, tcp=tcp, ipc=ipc)
        except BaseException:
            self._socket.close()
            raise
        self.listener = self._binding.listener

    def send(self, data: bytes) -> None:
        """Send to all that are subscribed now. Never waits."""
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
