"""The ROUTER socket that a node or coordinator serves its requests on."""

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

import zmq

from tailrace.protocol.limits import FRAMES_PER_MESSAGE_MAX, KIB

from .binding import Binding
from .complaints import Complaints
from .context import Context, Socket, new_socket, readable, sender
from .peers import Peers

Buffer: TypeAlias = bytes | bytearray | memoryview

COPY_BYTES_MAX: Final = 64 * KIB
"""Frames up to this are copied into the message: cheaper than to keep track of their buffer."""
BACKLOG: Final = 1_024
"""Connections that wait to be accepted."""

_NOBLOCK: Final = int(zmq.NOBLOCK)
_NOBLOCK_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)

logger = logging.getLogger(__name__)


class Incoming(NamedTuple):
    """A request. `frames` are writable and own their memory; `peer` names the connection.

    `part` is a part of the message, which knows the connection's credentials.
    """

    peer: bytes
    header: memoryview
    frames: list[memoryview]
    part: zmq.Frame | None = None


class Delivery(Protocol):
    """A reply on its way."""

    @property
    def done(self) -> bool:
        """Has the connection taken all of it, or ended? Then its memory is free."""


class Server:
    """One ROUTER socket on a tcp and an ipc endpoint. Belongs to one thread.

    It tells whose connection has ended. Raises ConnectionFailedError when it cannot bind.
    """

    def __init__(self, context: Context, *, tcp: str, ipc: str = "") -> None:
        self._socket: Socket = new_socket(context, zmq.ROUTER, tcp)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.BACKLOG, BACKLOG)
        self._socket.copy_threshold = COPY_BYTES_MAX + 1
        self._send = sender(self._socket)
        self._complaints = Complaints()
        self.used = True
        try:
            self._peers = Peers(context, self._socket)
        except BaseException:
            self._socket.close()  # one that is left open keeps its context from ending
            raise
        try:
            self._binding = Binding(self._socket, tcp=tcp, ipc=ipc)
        except BaseException:
            self._close_socket()
            raise
        self.listener = self._binding.listener

    @property
    def connections(self) -> int:
        """As of the last `take_gone`, of those that sent nothing, too."""
        return self._peers.connections

    def pollables(self) -> Sequence[Socket]:
        """What a `Poller` watches."""
        return (self._socket, self._peers.monitor)

    def take_gone(self) -> list[bytes]:
        """The peers whose connections have ended since the last call, of those that sent a message.

        One whose last messages are received after that is told again.
        """
        self.used = True
        gone = self._peers.take_gone()
        self._binding.admit(self.connections)
        return gone

    def passed(self, peer: bytes) -> int:
        """As `transit.passed`, for the connection of a peer."""
        return self._peers.passed(peer)

    def disconnect(self, peer: bytes) -> None:
        """End the connection of a peer that has sent a message; then it is gone."""
        self.used = True
        self._peers.disconnect(peer)

    def receive(self) -> Incoming | None:
        """The next request, or None when there is none now.

        What is none of ours (no handshake, no header, too many frames) is dropped, and logged once a peer.
        """
        self.used = True
        receive = self._socket.recv
        while readable(self._socket):
            peer = receive(_NOBLOCK)
            part = frame = receive(_NOBLOCK, copy=False)
            ours = self._peers.note(peer, frame)
            header = frame.buffer
            frames: list[memoryview] = []
            count = 0
            while frame.more:
                frame = receive(_NOBLOCK, copy=False)
                count += 1
                if count < FRAMES_PER_MESSAGE_MAX:
                    frames.append(frame.buffer)
            if ours and header and count < FRAMES_PER_MESSAGE_MAX:
                return Incoming(peer, header, frames, part)
            what = f"a message of {count + 1} frames with a header of {len(header)} bytes"
            self._log_drop(peer, what if ours else "something that does not speak ZMTP 3, as a browser")
        return None

    def send(self, peer: bytes, header: bytes, frames: Sequence[Buffer] = ()) -> bool:
        """Send a reply; False when the peer is gone or does not take its messages: nothing was sent.

        Frames over COPY_BYTES_MAX are not copied: their memory must not change until they are out,
        which nobody reports. `bytes` never do.
        """
        if not self._address(peer):
            return False
        send, last = self._send, len(frames)
        send(header, _NOBLOCK_MORE if last else _NOBLOCK)
        for number, frame in enumerate(frames, 1):
            send(frame, _NOBLOCK if number == last else _NOBLOCK_MORE, copy=False)
        return True

    def send_tracked(self, peer: bytes, header: bytes, frames: Sequence[Buffer]) -> Delivery | None:
        """As `send`, with at least one frame; tells when the connection has taken it, or is gone.

        Costs 10 us more: for replies whose memory counts, since a peer may not read what it asks for.
        """
        if not self._address(peer):
            return None
        send = self._send
        send(header, _NOBLOCK_MORE)
        for frame in frames[:-1]:
            send(frame, _NOBLOCK_MORE, copy=False)
        last = zmq.Frame(frames[-1], track=True, copy=False, copy_threshold=0)
        delivery = send(last, _NOBLOCK, copy=False, track=True)
        assert delivery is not None
        return delivery

    def _address(self, peer: bytes) -> bool:
        self.used = True
        try:
            self._send(peer, _NOBLOCK_MORE)
        except zmq.Again:
            self._log_drop(peer, "a reply to it, since it does not take its messages")
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True

    def close(self, linger_ms: int = 0) -> None:
        """Close, after at most `linger_ms` for replies that are not out yet."""
        self._close_socket(linger_ms)
        self._binding.remove_file()

    def _close_socket(self, linger_ms: int = 0) -> None:
        self._peers.close()
        self._socket.close(linger=linger_ms)

    def _log_drop(self, peer: bytes, what: str) -> None:
        if self._complaints.is_new(peer):
            logger.warning("peer %s: dropped %s", peer.hex(), what)
