"""A process that hangs keeps its connections: it is lost when it answers nothing."""

from math import inf
from random import Random

import pytest

from tailrace.client import link as link_module
from tailrace.client.link import LOOK_INTERVAL_S, SILENT_LOOKS_MAX, Link
from tailrace.protocol.cluster import NodeChanged
from tailrace.protocol.errors import ConnectionFailedError
from tailrace.protocol.messages import Ping, Pong
from tailrace.transport.connection import ConnectionState


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


def looks(link: Link, *heard: bool) -> list[int]:
    """How many were silent, after each; something has come, or not, before it."""
    counts = []
    for something in heard:
        if something:
            link.answered()
        link.look(link.look_at)
        counts.append(link.silent_looks)
    return counts


def test_silence_is_counted_in_looks_that_follow_each_other() -> None:
    link = Link(1, Random(0))
    assert link.look_at == inf
    link.connected(5.0)
    assert link.look_at == 5.0 + LOOK_INTERVAL_S
    assert looks(link, False, False, False, True, False) == [0, 1, 2, 0, 1], "the handshake was heard"
    link.look(1_000.0)
    assert (link.silent_looks, link.look_at) == (2, 1_000.0 + LOOK_INTERVAL_S), "it was suspended itself"
    link.connected(2_000.0)
    assert looks(link, False) == [0]
