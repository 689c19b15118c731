"""ZeroMQ contexts and sockets with every bound set.

All sockets of the system are made by `new_socket`, so that none is without a limit on message
size and queue length, or with a `close` that waits.

None has ZMTP heartbeats: libzmq 4.3.5 ends the process when their timer fires on a connection that it has
stopped to read, and that has ended meanwhile (stream_engine_base.cpp: "Assertion failed: !_io_error"). It
stops to read where a queue is full, and where a socket is being closed. A machine that is gone is noticed by
TCP, a process that hangs by who waits for it (`tailrace.client.link`).
"""

import select
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

import zmq
import zmq.backend

# pyzmq imports this with the first frame that is not copied, and sends no such frame once its exit handler
# has run. Imported here, that is older than the handlers of clients, and runs after them.
import zmq.utils.garbage

from tailrace.protocol.limits import (
    FRAME_BYTES_MAX,
    RECEIVE_HIGH_WATER_MESSAGES,
    SEND_HIGH_WATER_MESSAGES,
    SOCKETS_PER_PROCESS_MAX,
)

from .descriptors import descriptors_for

Context: TypeAlias = zmq.Context[zmq.Socket[bytes]]
Socket: TypeAlias = zmq.Socket[bytes]

KEEPALIVE_IDLE_S: Final = 2
KEEPALIVE_INTERVAL_S: Final = 1
KEEPALIVE_COUNT: Final = 4
TCP_SILENCE_MS_MAX: Final = 6_000
"""A machine is asked after 2 s of silence, then every second. One that has answered nothing for 6 s, or has
taken nothing of what was sent to it for so long, is disconnected."""
HANDSHAKE_TIMEOUT_MS: Final = 3_000
"""Connections that say nothing hold a file descriptor no longer than this."""
CONTEXT_DESCRIPTORS: Final = 16
"""The threads of a context and the first sockets of a client take nine; the others are some to spare."""

_READABLE: Final = int(zmq.POLLIN)
_FOLLOWING: Final = (zmq.DEALER, zmq.SUB)
"""Kinds that connect. What they receive is bounded by what they ask for, or is published; they stop at no
count of messages: where libzmq has, and connects anew, it ends the process at the next message that is taken
out ("Assertion failed: _input_stopped")."""

assert KEEPALIVE_IDLE_S + KEEPALIVE_INTERVAL_S * KEEPALIVE_COUNT == TCP_SILENCE_MS_MAX / 1000


def new_context() -> Context:
    """A context with one I/O thread. Not for use across a fork. Raises LimitExceededError as `new_socket`."""
    with descriptors_for("sockets"):
        _try_descriptors()
        context: Context = zmq.Context(io_threads=1)
    context.set(zmq.MAX_SOCKETS, SOCKETS_PER_PROCESS_MAX)
    return context


def _try_descriptors() -> None:
    """Are there as many as are needed soon? libzmq ends the process where there are not."""
    new_queue: Callable[[], object] = getattr(select, "epoll", None) or vars(select)["kqueue"]
    tried = [new_queue() for _ in range(CONTEXT_DESCRIPTORS)]
    tried.clear()  # each closes itself, also where a signal handler raises in between


def new_socket(context: Context, kind: zmq.SocketType, endpoint: str) -> Socket:
    """An unconnected socket of `kind` for `endpoint`, with limits and no linger.

    Raises LimitExceededError if the process may open no more files.
    """
    with descriptors_for(endpoint):
        socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.setsockopt(zmq.SNDHWM, SEND_HIGH_WATER_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, 0 if kind in _FOLLOWING else RECEIVE_HIGH_WATER_MESSAGES)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT)
    socket.setsockopt(zmq.TCP_MAXRT, TCP_SILENCE_MS_MAX)
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
