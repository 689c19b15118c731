"""The server notices whose connection has ended, and never takes one peer for another."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailrace.transport.connection import Connection
from tailrace.transport.context import Context
from tailrace.transport.peers import _older
from tailrace.transport.server import Server

Wait = Callable[..., None]
Connect = Callable[[str], Connection]
Own = Callable[..., Any]

CLIENT = """
import sys, time
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import new_context
connection = Connection(new_context(), sys.argv[1])
while connection.update() is not ConnectionState.READY:
    time.sleep(0.001)
connection.send(b"hello")
sys.stdin.read()
"""


@pytest.fixture(params=["tcp", "ipc"])
def server(context: Context, own: Own, tmp_path: Path, request: pytest.FixtureRequest) -> Server:
    ipc = f"ipc://{tmp_path}/s/s" if request.param == "ipc" else ""
    return own(Server(context, tcp="tcp://127.0.0.1:0", ipc=ipc))


@pytest.fixture
def endpoint(server: Server) -> str:
    return server.listener.ipc or server.listener.tcp


class Seen:
    """What a server has received and reported."""

    def __init__(self, server: Server, wait: Wait) -> None:
        self.server = server
        self.wait = wait
        self.peers: list[bytes] = []
        self.gone: list[bytes] = []

    def look(self) -> None:
        while (incoming := self.server.receive()) is not None:
            self.peers.append(incoming.peer)
        self.gone += self.server.take_gone()

    def until(self, *, peers: int = 0, gone: int = 0) -> None:
        def enough() -> bool:
            self.look()
            return len(self.peers) >= peers and len(self.gone) >= gone

        self.wait(enough, self.server)


def test_a_killed_client_is_reported_once(server: Server, endpoint: str, wait: Wait) -> None:
    seen = Seen(server, wait)
    with subprocess.Popen([sys.executable, "-c", CLIENT, endpoint], stdin=subprocess.PIPE) as process:
        try:
            seen.until(peers=1)
            assert seen.gone == []
        finally:
            process.kill()
    seen.until(gone=1)
    seen.look()
    assert sorted(seen.gone) == sorted(seen.peers)


def test_reconnects_reuse_descriptors_and_each_is_reported(
    server: Server, endpoint: str, connect: Connect, wait: Wait
) -> None:
    seen = Seen(server, wait)
    staying = connect(endpoint)
    staying.send(b"stays")
    seen.until(peers=1)
    for number in range(100):
        connection = connect(endpoint)
        connection.send(b"hello")
        seen.until(peers=number + 2)
        connection.close()
    seen.until(gone=100)
    assert sorted(seen.gone) == sorted(seen.peers[1:])  # which of them ended first, nobody promises
    assert server._peers is not None
    assert len(server._peers) == 1


def test_who_never_sent_is_not_reported_and_leaves_nothing(
    server: Server, endpoint: str, connect: Connect, wait: Wait
) -> None:
    seen = Seen(server, wait)
    for number in range(20):
        connect(endpoint).close()
        after = connect(endpoint)
        after.send(b"hello")
        seen.until(peers=number + 1)
        after.close()
        seen.until(gone=number + 1)
    assert sorted(seen.gone) == sorted(seen.peers)
    assert server._peers is not None
    assert len(server._peers) == 0


def test_messages_of_a_peer_that_is_gone_are_received_and_it_is_reported(
    server: Server, endpoint: str, connect: Connect, wait: Wait
) -> None:
    seen = Seen(server, wait)
    connection = connect(endpoint)
    for _ in range(10):
        connection.send(b"hello")
    wait(lambda: (got := server.receive()) is not None and not seen.peers.append(got.peer), server)
    connection.close()
    seen.until(gone=1)
    seen.look()
    assert set(seen.gone) == set(seen.peers)
    assert server._peers is not None
    assert len(server._peers) == 0


def test_a_server_that_does_not_watch_reports_nobody(context: Context, own: Own) -> None:
    assert own(Server(context, tcp="tcp://127.0.0.1:0")).take_gone() == []


def test_of_two_peers_the_lower_number_is_older_also_when_numbers_wrap() -> None:
    def peer(number: int) -> bytes:
        return b"\0" + (number % 2**32).to_bytes(4, "big")

    assert _older(peer(1), peer(2))
    assert not _older(peer(2), peer(1))
    assert _older(peer(-1), peer(3))
    assert not _older(peer(3), peer(-1))
