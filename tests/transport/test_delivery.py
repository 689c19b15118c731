"""Replies whose memory counts: told when the connection has taken them, or ended."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import Context
from tailrace.transport.poller import Poller
from tailrace.transport.server import Delivery, Incoming, Server

from ..patience import PATIENCE_S

Wait = Callable[..., None]
MIB = 1024 * 1024


@pytest.fixture
def server(context: Context, own: Callable[..., Any]) -> Server:
    return own(Server(context, tcp="tcp://127.0.0.1:0"))


@pytest.fixture
def asked(context: Context, own: Callable[..., Any], server: Server, wait: Wait) -> tuple[Connection, bytes]:
    """A connection, and the name under which the server knows it."""
    connection = own(Connection(context, server.listener.tcp))
    wait(lambda: connection.update() is ConnectionState.READY, connection)
    assert connection.send(b"a request")
    got: list[Incoming] = []
    wait(lambda: got.extend(filter(None, [server.receive()])) or bool(got), server)
    return connection, got[0].peer


def wait_done(delivery: Delivery, server: Server) -> None:
    """Nothing reports it, so ask again and again; the server's socket does its part when it is looked at."""
    poller = Poller()
    poller.add(server)
    deadline = time.monotonic() + PATIENCE_S
    while not delivery.done:
        assert time.monotonic() < deadline
        poller.poll(0.01)


@pytest.mark.parametrize("sizes", [[10], [MIB], [10, MIB, 10], [MIB] * 20])
def test_done_once_the_peer_has_taken_it(
    server: Server, asked: tuple[Connection, bytes], wait: Wait, sizes: list[int]
) -> None:
    connection, peer = asked
    frames = [bytes([number]) * size for number, size in enumerate(sizes)]
    delivery = server.send_tracked(peer, b"header", frames)
    assert delivery is not None
    got: list[Any] = []
    wait(lambda: got.extend(filter(None, [connection.receive()])) or bool(got), connection)
    assert got == [(b"header", frames)]
    wait_done(delivery, server)


def test_not_done_while_the_peer_does_not_read_and_done_when_it_is_gone(
    server: Server, asked: tuple[Connection, bytes]
) -> None:
    connection, peer = asked
    for _ in range(1_100):  # more than both sides queue
        delivery = server.send_tracked(peer, b"header", [bytes(100_000)])
        assert delivery is not None
    assert not delivery.done
    connection.close()
    wait_done(delivery, server)


def test_nothing_is_sent_to_a_peer_that_is_gone(server: Server) -> None:
    assert server.send_tracked(b"\0\0\0\0\1", b"header", [b"frame"]) is None
