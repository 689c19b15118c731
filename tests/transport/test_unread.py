"""Messages that wait to be read while their sender goes: libzmq 4.3.5 ends the process in several such cases.

So what receives them is a process of its own.
"""

import fcntl
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from functools import partial
from typing import Any

from tailrace.protocol.limits import RECEIVE_HIGH_WATER_MESSAGES
from tailrace.transport.context import Context
from tailrace.transport.endpoint import split_tcp
from tailrace.transport.server import Incoming, Server

from ..patience import PATIENCE_S, wait_until
from .conftest import Wait

Own = Callable[..., Any]

SERVER = """
import sys, time
from tailrace.transport.context import new_context
from tailrace.transport.server import Server

server = Server(new_context(), tcp="tcp://127.0.0.1:0")
print(server.listener.tcp, flush=True)
sys.stdin.readline()
time.sleep(2.5)
print(len(list(iter(server.receive, None))), flush=True)
"""


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\x00") + bytes(32)
READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
REQUEST = b"\x00\x03ask"
"""ZMTP 3.0 (rfc.zeromq.org/spec/23)."""


def test_a_server_whose_queue_is_full_when_its_client_is_reset() -> None:
    """A timer of ZMTP's heartbeats would go off after 2 s at most."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with socket.create_connection(split_tcp(process.stdout.readline().strip())) as client:
            client.sendall(GREETING + READY)
            answer = b""
            while b"READY" not in answer:
                answer += client.recv(4_096)
            client.sendall(REQUEST * RECEIVE_HIGH_WATER_MESSAGES * 2)
            wait_until(partial(all_is_taken, client), "everything has arrived")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        received, _ = process.communicate("\n", timeout=PATIENCE_S)
    assert process.returncode == 0
    assert int(received) >= RECEIVE_HIGH_WATER_MESSAGES, "its queue was not full"


def all_is_taken(client: socket.socket) -> bool:
    """Has the peer's kernel got all that was sent?"""
    left = fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4))
    return struct.unpack("i", left) == (0,)


CLIENT = """
import sys
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import new_context
from tailrace.transport.poller import Poller

connection = Connection(new_context(), sys.argv[1])
poller = Poller()
poller.add(connection)
while connection.update() is ConnectionState.CONNECTING:
    poller.poll(None)
connection.send(b"ask")
while connection.update() is ConnectionState.READY:
    poller.poll(0.1)
print(len(list(iter(connection.receive, None))), flush=True)
"""


def test_a_client_that_has_not_read_when_its_server_goes(context: Context, own: Own, wait: Wait) -> None:
    """It hears of the end, and has all that was sent before."""
    server = own(Server(context, tcp="tcp://127.0.0.1:0"))
    command = [sys.executable, "-c", CLIENT, server.listener.tcp]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        requests: list[Incoming] = []
        wait(lambda: requests.extend(iter(server.receive, None)) or requests, server)
        for _ in range(RECEIVE_HIGH_WATER_MESSAGES * 5):
            assert server.send(requests[0].peer, b"answer")
        server.close(linger_ms=1_000)
        received, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, int(received)) == (0, RECEIVE_HIGH_WATER_MESSAGES * 5)
