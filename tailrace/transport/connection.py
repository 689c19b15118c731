"""One DEALER connection to a server, with its life watched by a monitor.

A connection is ready once and lost once. What was sent before the loss and not answered is the
caller's to send again, on a new connection: nothing crosses from one to the next.
"""

import struct
from collections.abc import Sequence
from enum import Enum
from typing import Final

import zmq
from zmq.backend import zmq_poll

from tailrace.protocol.limits import KIB

from .context import HANDSHAKE_TIMEOUT_MS, Context, Socket, new_socket
from .server import Buffer

RECONNECT_MS_MIN: Final = 10
RECONNECT_MS_MAX: Final = 500
"""While connecting, the next try comes after 10 ms, doubled up to this."""
COPY_BYTES_MAX: Final = 128 * KIB
"""Frames up to this are copied into the message. Measured: for one frame a message to copy is cheaper
up to here, for the many frames of a fetched reply (`server.COPY_BYTES_MAX`) only up to half of it."""

_EVENT: Final = struct.Struct("=HI")
_EVENTS: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
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
    it closed, was killed (noticed within milliseconds), or was silent for HEARTBEAT_INTERVAL_MS +
    HEARTBEAT_TIMEOUT_MS. ZeroMQ's own thread answers heartbeats: whether the peer's work goes on, only a
    request tells.
    """

    def __init__(self, context: Context, endpoint: str) -> None:
        self.endpoint = endpoint
        self.state = ConnectionState.CONNECTING
        self._socket: Socket = new_socket(context, zmq.DEALER, endpoint)
        # Without IMMEDIATE messages would wait for a later connection.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS_MIN)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
        self._socket.setsockopt(zmq.CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT_MS)
        self._socket.copy_threshold = COPY_BYTES_MAX + 1
        self._monitor: Socket = self._socket.get_monitor_socket(_EVENTS)
        self._monitor_item = [(self._monitor, int(zmq.POLLIN))]
        try:
            self._socket.connect(endpoint)
        except BaseException:
            self.close()
            raise

    def pollables(self) -> Sequence[Socket]:
        """What a `Poller` watches."""
        return (self._socket, self._monitor)

    def update(self) -> ConnectionState:
        """Take in what happened to the connection; call when the poller reports it."""
        while self.state is not ConnectionState.LOST and zmq_poll(self._monitor_item, 0):
            event, _ = _EVENT.unpack(self._monitor.recv(_NOBLOCK))
            self._monitor.recv(_NOBLOCK)  # the endpoint
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED and self.state is ConnectionState.CONNECTING:
                self.state = ConnectionState.READY
                # Makes the socket see its new pipe now; a send alone looks for one only now and then.
                self._socket.getsockopt(zmq.EVENTS)
            elif event == zmq.EVENT_DISCONNECTED and self.state is ConnectionState.READY:
                self.state = ConnectionState.LOST
        return self.state

    def send(self, header: bytes, frames: Sequence[Buffer] = ()) -> bool:
        """Send a request; False when not READY or when the peer does not take its messages.

        Frames over COPY_BYTES_MAX are not copied: their memory must not change until they are out,
        which nobody reports. `bytes` never do.
        """
        # Looked up now, since 10 ms after a loss the socket may have a new peer, unknown to the caller.
        if self.update() is not ConnectionState.READY:
            return False
        send = self._socket.send
        last = len(frames)
        try:
            send(header, _NOBLOCK_MORE if last else _NOBLOCK)
        except zmq.Again:
            return False
        for number, frame in enumerate(frames, 1):
            send(frame, _NOBLOCK if number == last else _NOBLOCK_MORE, copy=False)
        return True

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """The next reply as (header, payload frames), or None when there is none now."""
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

    def close(self) -> None:
        """Close at once; what is not out yet is dropped."""
        self.state = ConnectionState.LOST
        if self._socket.closed:
            return
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
