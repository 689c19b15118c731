"""One DEALER connection to a server, with its life watched by a monitor.

A connection is ready once and lost once. What was sent before the loss and not answered is the
caller's to send again, on a new connection. ZeroMQ connects by itself again, after RECONNECT_MS_MIN: who
does not close a lost connection before that may have what was not out yet delivered to the next peer.
"""

import struct
from collections.abc import Sequence
from enum import Enum
from typing import Final

import zmq

from tailrace.protocol.errors import ConnectionFailedError
from tailrace.protocol.limits import KIB

from .context import HANDSHAKE_TIMEOUT_MS, Context, Socket, new_socket, readable, sender
from .descriptors import descriptors_for
from .server import Buffer
from .transit import passed

RECONNECT_MS_MIN: Final = 10
RECONNECT_MS_MAX: Final = 500
"""While connecting, the next try comes after 10 ms, doubled up to this."""
COPY_BYTES_MAX: Final = 128 * KIB
"""Frames up to this are copied into the message. Measured: for one frame a message to copy is cheaper
up to here, for the many frames of a fetched reply (`server.COPY_BYTES_MAX`) only up to half of it."""

_EVENT: Final = struct.Struct("=HI")
_EVENTS: Final = zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_NOBLOCK: Final = int(zmq.NOBLOCK)
_NOBLOCK_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)


class ConnectionState(Enum):
    """CONNECTING until the handshake, READY, then LOST for good."""

    CONNECTING = "connecting"
    READY = "ready"
    LOST = "lost"


class Connection:
    """A connection to `endpoint`, tried until there is a server. Belongs to one thread.

    READY means that the peer has shaken hands (a stopped process accepts, but does not); LOST that
    it closed, was killed (noticed within milliseconds), or that its machine was silent for
    TCP_SILENCE_MS_MAX. Whether the process goes on, only a request tells.

    Raises ConnectionFailedError for an endpoint that is none, LimitExceededError as `new_socket`.
    """

    def __init__(self, context: Context, endpoint: str) -> None:
        self.endpoint = endpoint
        self.state = ConnectionState.CONNECTING
        # Without IMMEDIATE, which would drop the rest of a message that is being read when the peer dies,
        # and for that aborts the process (libzmq 4.3.5, fq.cpp: "Assertion failed: !_more").
        self._socket: Socket = new_socket(context, zmq.DEALER, endpoint)
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS_MIN)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
        self._socket.setsockopt(zmq.CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT_MS)
        self._socket.copy_threshold = COPY_BYTES_MAX + 1
        self._send = sender(self._socket)
        self._descriptor = -1
        self.used = True
        try:
            with descriptors_for(endpoint):
                self._monitor: Socket = self._socket.get_monitor_socket(_EVENTS)
        except BaseException:
            self._socket.close()  # one that is left open keeps its context from ending
            raise
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:  # others may have told it
            self.close()
            raise ConnectionFailedError(f"{endpoint!r:.100} cannot be connected to: {error}") from error
        except BaseException:
            self.close()
            raise

    def pollables(self) -> Sequence[Socket]:
        """What a `Poller` watches."""
        return (self._socket, self._monitor)

    def update(self) -> ConnectionState:
        """Take in what happened to the connection; call when the poller reports it."""
        self.used = True
        monitor = self._monitor
        while self.state is not ConnectionState.LOST and readable(monitor):
            event, value = _EVENT.unpack(monitor.recv(_NOBLOCK))
            monitor.recv(_NOBLOCK)  # the endpoint
            if event == zmq.EVENT_CONNECTED:
                self._descriptor = value
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED and self.state is ConnectionState.CONNECTING:
                self.state = ConnectionState.READY
            elif event == zmq.EVENT_DISCONNECTED and self.state is ConnectionState.READY:
                self.state = ConnectionState.LOST
        return self.state

    def passed(self) -> int:
        """As `transit.passed`. Any number when the connection has just ended."""
        return passed(self._descriptor)

    def send(self, header: bytes, frames: Sequence[Buffer] = ()) -> bool:
        """Send a request; False when not READY or when the peer does not take its messages.

        Frames over COPY_BYTES_MAX are not copied: their memory must not change until they are out,
        which nobody reports. `bytes` never do.
        """
        # Looked up now: until the handshake, and 10 ms after a loss, messages would wait for a later peer.
        if self.update() is not ConnectionState.READY:
            return False
        send = self._send
        last = len(frames)
        try:
            send(header, _NOBLOCK_MORE if last else _NOBLOCK)
        except zmq.Again:
            return False
        try:
            for number, frame in enumerate(frames, 1):
                send(frame, _NOBLOCK if number == last else _NOBLOCK_MORE, copy=False)
        except zmq.Again:
            # The peer went in the middle of the message, whose parts libzmq has dropped. The monitor
            # will say so too, but the next send must not find a new peer first.
            self.state = ConnectionState.LOST
            return False
        return True

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """The next reply as (header, payload frames), or None when there is none now."""
        self.used = True
        receive = self._socket.recv
        try:
            frame = receive(_NOBLOCK, copy=False)
        except zmq.Again:
            return None
        header = frame.bytes
        frames: list[bytes] = []
        while frame.more:
            frame = receive(_NOBLOCK, copy=False)
            frames.append(frame.bytes)
        return header, frames

    def give_up(self) -> None:
        """Take it for LOST: what came beside it makes no sense."""
        self.state = ConnectionState.LOST

    def close(self, linger_ms: int = 0) -> None:
        """Close at once; what is not out within `linger_ms`, for which the context waits, is dropped."""
        self.state = ConnectionState.LOST
        if self._socket.closed:
            return
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=linger_ms)
