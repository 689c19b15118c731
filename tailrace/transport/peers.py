"""Which peers of a ROUTER socket have closed their connection, by a monitor on the socket.

A monitor names a connection by its file descriptor, a message by the peer's routing id; the first message
of a peer ties them together. A descriptor is closed, and that is told, before the next connection can
have the same one: so whoever reads the monitor first never takes a connection for the one before it.
"""

import socket
import struct
from contextlib import suppress
from itertools import count
from typing import Final

import zmq

from .context import Context, Socket, readable
from .transit import passed

_EVENT: Final = struct.Struct("=HI")
_EVENTS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
_NOBLOCK: Final = int(zmq.NOBLOCK)
_ROUTING_IDS: Final = 2**32
_numbers: Final = count(1)


class Peers:
    """The peers of one ROUTER socket that have sent something. Belongs to the socket's thread.

    Made before the socket is bound. Holds one entry a connection; those that never sent are not reported.
    """

    def __init__(self, context: Context, router: Socket) -> None:
        self._router = router
        self._descriptors: dict[bytes, int] = {}
        self._peers: dict[int, bytes] = {}
        self._open: set[int] = set()
        self._gone: list[bytes] = []
        endpoint = f"inproc://peers-{next(_numbers)}"
        router.monitor(endpoint, _EVENTS)
        self.monitor: Socket = context.socket(zmq.PAIR)
        # ZeroMQ's thread would wait for room in a monitor's queue, and everybody for it.
        self.monitor.setsockopt(zmq.RCVHWM, 0)
        self.monitor.setsockopt(zmq.LINGER, 0)
        self.monitor.connect(endpoint)

    def __len__(self) -> int:
        return len(self._descriptors)

    @property
    def connections(self) -> int:
        """Of those that sent nothing, too."""
        return len(self._open)

    def note(self, peer: bytes, frame: zmq.Frame) -> bool:
        """A message came from `peer`. Costs a look-up, except for the first one. False: it is none of ours.

        Whatever does not begin as ZMTP 3 does, libzmq takes for ZMTP 1, which shakes no hands: a request of
        HTTP, for one. Of such a message it knows no descriptor.
        """
        if peer in self._descriptors:
            return True
        self._drain()
        try:
            descriptor = frame.get(zmq.SRCFD)
        except zmq.ZMQError:
            return False
        assert isinstance(descriptor, int)
        before = self._peers.get(descriptor)
        if descriptor not in self._open or (before is not None and _older(peer, before)):
            self._gone.append(peer)  # what it sent was still in the queue
            return True
        if before is not None:
            self._forget(descriptor)
        self._descriptors[peer] = descriptor
        self._peers[descriptor] = peer
        return True

    def take_gone(self) -> list[bytes]:
        """Peers whose connection has ended since the last call; one whose messages came late, again."""
        self._drain()
        gone, self._gone = self._gone, []
        return list(dict.fromkeys(gone))

    def passed(self, peer: bytes) -> int:
        """As `transit.passed`, for the peer's connection. Any number when that has just ended."""
        return passed(self._descriptors.get(peer, -1))

    def disconnect(self, peer: bytes) -> None:
        """Have the peer's connection end, which is then told as any other's end.

        ROUTER has no such call. Its thread hears of the shut-down as if the peer had closed. If that has
        happened just now, another connection may have got the number, and has to be made anew.
        """
        self._drain()
        descriptor = self._descriptors.get(peer)
        if descriptor is not None:
            with suppress(OSError), socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM) as end:
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop watching; before the socket is closed."""
        if not self.monitor.closed:
            self._router.disable_monitor()
            self.monitor.close(linger=0)

    def _drain(self) -> None:
        while readable(self.monitor):
            event, descriptor = _EVENT.unpack(self.monitor.recv(_NOBLOCK))
            self.monitor.recv(_NOBLOCK)  # the endpoint
            if descriptor in self._peers:
                self._forget(descriptor)
            if event == zmq.EVENT_ACCEPTED:
                self._open.add(descriptor)
            else:
                self._open.discard(descriptor)

    def _forget(self, descriptor: int) -> None:
        peer = self._peers.pop(descriptor)
        del self._descriptors[peer]
        self._gone.append(peer)


def _older(peer: bytes, other: bytes) -> bool:
    """Of two peers with one descriptor: ROUTER numbers its connections upwards, in bytes 1 to 4."""
    distance = int.from_bytes(other[1:5], "big") - int.from_bytes(peer[1:5], "big")
    return 0 < distance % _ROUTING_IDS < _ROUTING_IDS // 2
