"""A process that hangs keeps its connections: it is lost when it answers nothing."""

import socket
import sys
from functools import partial
from math import inf
from random import Random

import pytest

from tailrace.client import link as link_module
from tailrace.client.connections import Connections
from tailrace.client.link import LOOK_INTERVAL_S, SILENT_LOOKS_MAX, Link, Location
from tailrace.protocol.cluster import NodeChanged
from tailrace.protocol.errors import ConnectionFailedError
from tailrace.protocol.messages import Ping, Pong
from tailrace.protocol.wire import encode
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import new_context
from tailrace.transport.poller import Poller

from ..patience import PATIENCE_S, wait_until
from .piped_node import LARGE, piped


@pytest.fixture
def often(monkeypatch):
    """Connections are looked at more often than a busy machine delays what it does."""
    monkeypatch.setattr(link_module, "LOOK_INTERVAL_S", 0.2)


@pytest.fixture
def ask(coordinator, engine, node, eventually):
    """`ask(standin)`: send it a Ping as node 1; the list that the reply will be in."""

    def ask(standin):
        if not engine.cluster.nodes:
            coordinator.change(NodeChanged(node(1, standin.listener)))
            eventually(lambda: engine.cluster.version == coordinator.state.version)
        seen = []
        engine.submit(lambda: engine.request(1, Ping, on_reply=lambda reply, _: seen.append(reply)))
        return seen

    return ask


def test_a_node_that_answers_nothing_is_lost(often, start_node, ask, eventually) -> None:
    answers = [lambda request: Pong(request.request_id)]
    node = start_node(lambda request: answers[0](request))
    first = ask(node)
    eventually(lambda: first)
    assert isinstance(first[0], Pong)
    answers[0] = lambda request: None
    second = ask(node)
    eventually(lambda: second)
    assert isinstance(second[0], ConnectionFailedError)
    assert "answered nothing" in str(second[0])
    answers[0] = lambda request: Pong(request.request_id)
    third = ask(node)
    eventually(lambda: third)
    assert isinstance(third[0], Pong), "over a connection of its own"


def test_a_node_of_which_nothing_is_wanted_is_kept(often, start_node, ask, engine, eventually) -> None:
    node = start_node(lambda request: Pong(request.request_id))
    first = ask(node)
    eventually(lambda: first)
    connection = engine._loop.connections.links[1].connection
    eventually(lambda: len(node.requests) > 2 * SILENT_LOOKS_MAX)
    assert engine._loop.connections.links[1].connection is connection
    assert connection.state is ConnectionState.READY


@pytest.mark.slow
def test_a_ping_does_not_wait_behind_what_nobody_answers(start_piped, engine) -> None:
    """There may be much of that: a node may be busy with it for longer than it may be silent."""
    node = start_piped()
    asked = piped(engine, node)
    link = engine._loop.connections.links[1]
    connection = link.connection
    node._round = lambda ready: node._intake.take([each for each in ready if each is not node._server], 0.0)
    asked.tell(LARGE)
    wait_until(lambda: node.requests, "a ping")
    assert isinstance(node.requests[0][0], Ping)
    assert node.through_pipe[0]
    assert link.connection is connection


def looks(link: Link, *heard: bool) -> list[int]:
    """How many were silent, after each; something has come, or not, before it."""
    counts = []
    for something in heard:
        if something:
            link.answered()
        link.look(0, link.look_at)
        counts.append(link.silent_looks)
    return counts


def test_silence_is_counted_in_looks_that_follow_each_other() -> None:
    link = Link(1, Random(0))
    assert link.look_at == inf
    link.connected(5.0)
    assert link.look_at == 5.0 + LOOK_INTERVAL_S
    assert looks(link, False, False, False, True, False) == [0, 1, 2, 0, 1], "the handshake was heard"
    link.look(0, 1_000.0)
    assert (link.silent_looks, link.look_at) == (2, 1_000.0 + LOOK_INTERVAL_S), "it was suspended itself"
    link.connected(2_000.0)
    assert looks(link, False) == [0]


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\x00") + bytes(32)
READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"
"""ZMTP 3.0 (rfc.zeromq.org/spec/23)."""
LARGE_MESSAGE = b"\x02" + (2**20).to_bytes(8, "big")
"""How one begins."""


@pytest.fixture
def ask_slow():
    """`ask_slow(seen)`: a request to a node of one connection; the links, and the node's end of that."""
    context, poller = new_context(), Poller()
    listener = socket.create_server(("127.0.0.1", 0))
    endpoint = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    connections = Connections(
        poller=poller,
        connect=partial(Connection, context),
        locate=lambda _node: Location(endpoint),
        defer=lambda action: action(),
        on_ready=lambda _node: None,
        on_impatient=lambda _node: None,
        random=Random(0),
    )

    def ask_slow(seen):
        ping = encode(Ping(connections.next_id()))
        told = lambda reply, _frames: seen.append(reply)  # noqa: E731
        connections.request(1, 1, ping, (), on_reply=told, timeout_s=1_000.0, now=0.0)
        end, _ = listener.accept()
        end.sendall(GREETING + READY)
        while not connections.links[1].ready:
            for source in poller.poll(PATIENCE_S):
                connections.receive(source, 0.0)
        return connections, end

    yield ask_slow
    connections.close(ConnectionFailedError("the test is over"))
    listener.close()
    poller.close()
    context.destroy(linger=0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells what a connection has received")
def test_a_reply_may_take_longer_than_a_node_may_be_silent(ask_slow) -> None:
    seen = []
    connections, end = ask_slow(seen)
    link = connections.links[1]
    with end:
        end.sendall(LARGE_MESSAGE)
        for _ in range(3 * SILENT_LOOKS_MAX):
            before = link.connection.passed()
            end.sendall(bytes(1_000))
            wait_until(lambda before=before: link.connection.passed() != before, "a part has come")
            connections.advance(link.look_at)
            assert link.ready
            assert link.silent_looks == 0
        while link.ready:
            connections.advance(link.look_at)
    assert link.silent_looks == SILENT_LOOKS_MAX
    assert isinstance(seen[0], ConnectionFailedError)
