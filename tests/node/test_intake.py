"""Requests that come two ways, taken in one order. What was noticed first must not matter."""

import os
import select
from collections.abc import Iterator
from itertools import count
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.client import link
from tailrace.node.intake import LOOK_INTERVAL_S, LOOKS_INTO_TRANSIT, SILENT_LOOKS_MAX, Intake
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import new_context
from tailrace.transport.peer_pipes import PeerPipes
from tailrace.transport.pipes import Pipes
from tailrace.transport.poller import Poller
from tailrace.transport.server import Incoming, Server

from ..patience import PATIENCE_S

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="pipes to a node are Linux's")


class Ignored:
    """What else ends with a connection."""

    def __init__(self) -> None:
        self.told: list[bytes] = []

    def close(self, peers: list[bytes]) -> None:
        self.told += peers

    gone = close


class Here:
    """A node's intake and a client of it, in one thread: what is ready is what the test says."""

    def __init__(self, folder: Path) -> None:
        self._context = new_context()
        ipc = f"ipc://{folder}/n"
        self.server = Server(self._context, tcp="tcp://127.0.0.1:0", ipc=ipc)
        self.poller = Poller()
        self.peers, self.arenas = PeerPipes(self.poller), Ignored()
        broker: Any = SimpleNamespace(
            server=self.server, pipes=self.peers, arenas=self.arenas, fetches=Ignored()
        )
        self.intake = Intake(broker)
        self.intake.dispatch = SimpleNamespace(receive=self._dispatch)  # type: ignore[assignment]
        self.taken: list[bytes] = []
        self.first: Incoming | None = None
        self.connection = Connection(self._context, ipc)
        self.pipes = Pipes()
        self._wait_for(self.connection)
        while self.connection.update() is not ConnectionState.READY:
            self._wait_for(self.connection)
        self.connection.send(b"hello")
        while self.first is None:
            self._wait_for(self.server)
            self.intake.take([self.server], 0.0)
        self.peers.open(self.first.peer, self.first.part, self.pipes.requests_end, self.pipes.replies_end)
        self.taken.clear()

    def _dispatch(self, incoming: Incoming, _now: float) -> None:
        self.first = self.first or incoming
        self.taken.append(bytes(incoming.header))

    def _wait_for(self, source: Any) -> None:
        poller = Poller()
        poller.add(source)
        assert poller.poll(PATIENCE_S), "nothing came"

    def take_connection(self) -> None:
        """The server alone is ready."""
        self._wait_for(self.server)
        assert self.intake.take([self.server], 0.0) == 1

    def close(self) -> None:
        self.connection.close()
        self.pipes.close()
        self.peers.close_all()
        self.poller.close()
        self.server.close()
        self._context.term()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    here = Here(tmp_path)
    yield here
    here.close()


def test_what_is_in_the_pipe_is_older(here: Here) -> None:
    here.pipes.send(b"1", [])
    here.pipes.send(b"2", [])
    here.connection.send(b"3")
    here.connection.send(b"4")
    while len(here.taken) < 4:
        here.take_connection()
    assert here.taken == [b"1", b"2", b"3", b"4"]


def test_both_at_once(here: Here) -> None:
    here.pipes.send(b"1", [])
    here.connection.send(b"2")
    here._wait_for(here.server)
    (pipe,) = here.poller.poll(0)
    assert here.intake.take([here.server, pipe, -7], 0.0) == 2
    assert here.taken == [b"1", b"2"]
    assert here.intake.take([-7], 0.0) == 0


def test_last_words(here: Here) -> None:
    """The end of the connection is noticed first."""
    here.pipes.send(b"last words", [])
    here.connection.close()
    while not here.arenas.told:
        here.take_connection()
    assert here.taken == [b"last words"]
    assert len(here.peers) == 0
    with pytest.raises(ValueError, match="no source"):
        here.poller.poll(0)


def test_garbage_before_a_message(here: Here) -> None:
    os.write(here.pipes._requests, b"\xff")
    here.connection.send(b"a message")
    while not here.taken:
        here.take_connection()
    assert here.taken == [b"a message"]
    assert len(here.peers) == 0


def test_a_peer_that_is_silent_is_disconnected(here: Here) -> None:
    looks = count()

    def look() -> None:
        here.intake.tick(next(looks) * LOOK_INTERVAL_S)

    for way in (here.connection, here.pipes):
        for _ in range(SILENT_LOOKS_MAX - 1):
            look()
        way.send(b"not silent", [])
        while not here.taken:
            here.intake.take([here.server, *here.poller.poll(0)], 0.0)
        here.taken.clear()
    for number in range(SILENT_LOOKS_MAX):
        assert here.connection.update() is ConnectionState.READY, number
        assert here.intake.next_tick() < inf
        look()
    while here.connection.update() is not ConnectionState.LOST:
        here._wait_for(here.connection)
    while not here.arenas.told:
        here.take_connection()
    assert here.intake.next_tick() == inf, "nobody is there"
    look()


def test_a_peer_of_which_a_message_is_on_its_way_is_kept(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as parts of it pass, and then for at least what is looked into transit."""
    passed, looks, left = [0], count(), []
    monkeypatch.setattr(here.server, "passed", lambda _peer: passed[0])
    monkeypatch.setattr(here.server, "disconnect", left.append)
    for _ in range(5 * SILENT_LOOKS_MAX):
        passed[0] += 1_000
        here.intake.tick(next(looks) * LOOK_INTERVAL_S)
    assert not left
    after = 0
    while not left:
        here.intake.tick(next(looks) * LOOK_INTERVAL_S)
        after += 1
    assert LOOKS_INTO_TRANSIT <= after <= SILENT_LOOKS_MAX + LOOKS_INTO_TRANSIT


def test_a_client_pings_long_before_it_is_disconnected() -> None:
    silence_s = LOOK_INTERVAL_S * (SILENT_LOOKS_MAX - 1)
    assert silence_s > 2 * 2 * link.LOOK_INTERVAL_S


def test_looks_are_not_made_up_for(here: Here) -> None:
    """The node was suspended."""
    for now in (0.0, 1_000.0, 1_000.1, 1_001.0, 1_001.9, 1_001.99):
        here.intake.tick(now)
    assert here.intake.next_tick() == 1_002.0
    here.connection.send(b"still there")
    while not here.taken:
        here.take_connection()
    assert here.connection.update() is ConnectionState.READY
