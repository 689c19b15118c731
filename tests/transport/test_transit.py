"""What has passed over a connection is told while a message is still on its way."""

import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from tailrace.protocol.limits import KIB, MIB
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import Context
from tailrace.transport.server import Server
from tailrace.transport.transit import passed

from ..patience import PATIENCE_S, wait_until
from .conftest import Wait
from .test_connection import Own

Pair = tuple[socket.socket, socket.socket]

linux = pytest.mark.skipif(sys.platform != "linux", reason="tcp_info is Linux's")


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a TCP connection; the first one's kernel sends what the second one's has room for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    with here, there:
        yield here, there


def changes(descriptor: int, before: int) -> bool:
    return passed(descriptor) != before


def settled(descriptor: int) -> int:
    """As it is when it no longer changes: what was sent has arrived."""
    seen = [-1]

    def stays() -> bool:
        seen.append(passed(descriptor))
        return seen[-20:] == [seen[-1]] * 20

    wait_until(stays, "nothing passes any more")
    return seen[-1]


@linux
def test_what_comes_counts(pair: Pair) -> None:
    here, there = pair
    before = passed(there.fileno())
    here.sendall(b"a part")
    wait_until(partial(changes, there.fileno(), before), "it has come")


@linux
def test_what_goes_at_once_does_not_count(pair: Pair) -> None:
    """Somebody's kernel takes it, whether the process goes on or not."""
    here, there = pair
    before = passed(here.fileno())
    for _ in range(10):
        here.sendall(b"a ping")
        assert there.recv(100, socket.MSG_PEEK)
    assert settled(here.fileno()) == before


@linux
def test_what_waits_to_go_counts_as_it_is_taken(pair: Pair) -> None:
    here, there = pair
    here.setblocking(False)
    with suppress(BlockingIOError):
        while here.send(bytes(MIB)):
            pass
    before = settled(here.fileno())
    assert before > 0
    wait_until(lambda: there.recv(MIB) and changes(here.fileno(), before), "a part of it is taken")


def test_of_other_descriptors_nothing_is_known() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"something")
        assert passed(there.fileno()) == passed(here.fileno()) == 0
    assert passed(-1) == 0


@linux
def test_both_sides_of_a_connection(context: Context, own: Own, wait: Wait) -> None:
    server = own(Server(context, tcp="tcp://127.0.0.1:0"))
    connection = own(Connection(context, server.listener.tcp))
    wait(lambda: connection.update() is ConnectionState.READY, connection)
    connection.send(b"hello")
    peers: list[bytes] = []
    wait(lambda: peers.extend(request.peer for request in iter(server.receive, None)) or peers, server)
    at_server, at_client = server.passed(peers[0]), connection.passed()
    assert at_server > 0
    connection.send(b"a request")
    wait_until(lambda: server.passed(peers[0]) != at_server, "the request has come", PATIENCE_S)
    server.send(peers[0], b"a reply")
    wait_until(lambda: connection.passed() != at_client, "the reply has come", PATIENCE_S)
    assert server.passed(b"nobody") == 0
