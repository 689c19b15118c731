"""ZeroMQ contexts and sockets with every bound set.

All sockets of the system are made by `new_socket`, so that none is without a limit on message
size and queue length, without ZMTP heartbeats, or with a `close` that waits.
"""

import errno
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeAlias

import zmq
import zmq.backend

from tailrace.protocol.errors import LimitExceededError
from tailrace.protocol.limits import (
    FRAME_BYTES_MAX,
    RECEIVE_HIGH_WATER_MESSAGES,
    SEND_HIGH_WATER_MESSAGES,
    SOCKETS_PER_PROCESS_MAX,
)

Context: TypeAlias = zmq.Context[zmq.Socket[bytes]]
Socket: TypeAlias = zmq.Socket[bytes]

HEARTBEAT_INTERVAL_MS: Final = 2_000
HEARTBEAT_TIMEOUT_MS: Final = 4_000
"""A peer that does not answer a heartbeat for so long is disconnected: a stopped process or machine."""
HEARTBEAT_TTL_MS: Final = 6_000
"""What we ask the peer to allow us; at least the two above together."""
HANDSHAKE_TIMEOUT_MS: Final = 3_000
"""Connections that say nothing hold a file descriptor no longer than this."""

_READABLE: Final = int(zmq.POLLIN)

assert HEARTBEAT_INTERVAL_MS + HEARTBEAT_TIMEOUT_MS <= HEARTBEAT_TTL_MS


@contextmanager
def _descriptors_for(what: str) -> Iterator[None]:
    try:
        yield
    except zmq.ZMQError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise LimitExceededError(
            f"no file descriptor is left for {what}: this process may open {most} files (ulimit -n). "
            "Close clients that nobody needs, or raise that limit"
        ) from error


def new_context() -> Context:
    """A context with one I/O thread. Not for use across a fork. Raises LimitExceededError as `new_socket`."""
    with _descriptors_for("sockets"):
        context: Context = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, SOCKETS_PER_PROCESS_MAX)
    return context


def new_socket(context: Context, kind: zmq.SocketType, endpoint: str) -> Socket:
    """An unconnected socket of `kind` for `endpoint`, with limits, heartbeats and no linger.

    Raises LimitExceededError if the process may open no more files.
    """
    with _descriptors_for(endpoint):
        socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.setsockopt(zmq.SNDHWM, SEND_HIGH_WATER_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, RECEIVE_HIGH_WATER_MESSAGES)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_INTERVAL_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TTL_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_TIMEOUT_MS)
    if endpoint.startswith("tcp://["):
        socket.setsockopt(zmq.IPV6, 1)
    return socket


def sender(socket: Socket) -> Callable[..., zmq.MessageTracker | None]:
    """`socket.send`, less a call in Python on the way, which serves sockets that are still drafts."""
    backend: Any = zmq.backend.Socket
    return partial(backend.send, socket)


def readable(socket: Socket) -> bool:
    """Is there a message?

    To ask is cheaper than the exception that there is none. And it keeps the interpreter, as neither a poll
    nor an attempt to receive does: the thread that gets it meanwhile may take its time to give it back.
    """
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _READABLE)
