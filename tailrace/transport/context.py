"""ZeroMQ contexts and sockets with every bound set.

All sockets of the system are made by `new_socket`, so that none is without a limit on message
size and queue length, without ZMTP heartbeats, or with a `close` that waits.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

import zmq
import zmq.backend

from tailrace.protocol.limits import (
    FRAME_BYTES_MAX,
    RECEIVE_HIGH_WATER_MESSAGES,
    SEND_HIGH_WATER_MESSAGES,
    SOCKETS_PER_PROCESS_MAX,
)

from .descriptors import descriptors_for

Context: TypeAlias = zmq.Context[zmq.Socket[bytes]]
Socket: TypeAlias = zmq.Socket[bytes]

HEARTBEAT_INTERVAL_MS: Final = 2_000
HEARTBEAT_TIMEOUT_MS: Final = 4_000
"""A peer that does not answer a heartbeat for so long is disconnected: a stopped process or machine."""
HEARTBEAT_TTL_MS: Final = 6_000
"""What we ask the peer to allow us; at least the two above together."""
HANDSHAKE_TIMEOUT_MS: Final = 3_000
"""Connections that say nothing hold a file descriptor no longer than this."""
CONTEXT_DESCRIPTORS: Final = 16
"""The threads of a context and the first sockets of a client take nine; the others are some to spare."""

_READABLE: Final = int(zmq.POLLIN)

assert HEARTBEAT_INTERVAL_MS + HEARTBEAT_TIMEOUT_MS <= HEARTBEAT_TTL_MS


def new_context() -> Context:
    """A context with one I/O thread. Not for use across a fork. Raises LimitExceededError as `new_socket`."""
    with descriptors_for("sockets"):
        _try_descriptors()
        context: Context = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, SOCKETS_PER_PROCESS_MAX)
    return context


def _try_descriptors() -> None:
    """Are there as many as are needed soon? libzmq ends the process where there are not."""
    tried: list[int] = []
    try:
        while len(tried) < CONTEXT_DESCRIPTORS:
            tried.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for descriptor in tried:
            os.close(descriptor)


def new_socket(context: Context, kind: zmq.SocketType, endpoint: str) -> Socket:
    """An unconnected socket of `kind` for `endpoint`, with limits, heartbeats and no linger.

    Raises LimitExceededError if the process may open no more files.
    """
    with descriptors_for(endpoint):
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
