"""Whose connection ends and does not come back is dead."""

from tailrace.coordinator.node_connections import RECONNECT_GRACE_S, NodeConnections

MOMENT_S = RECONNECT_GRACE_S / 2


def test_a_node_that_does_not_come_back_is_missed_after_the_grace() -> None:
    nodes = NodeConnections()
    nodes.hear(b"a", 1)
    nodes.hear(b"b", 2)
    assert nodes.next_look() is None
    nodes.gone([b"a"], 10.0)
    assert nodes.next_look() == 10.0 + MOMENT_S
    assert nodes.expired(10.0 + MOMENT_S) == []
    assert nodes.expired(10.0 + RECONNECT_GRACE_S) == [1]
    nodes.forget(1)
    assert nodes.expired(11.0) == []
    assert nodes.next_look() is None


def test_a_node_that_beats_over_another_connection_lives() -> None:
    nodes = NodeConnections()
    nodes.hear(b"a", 1)
    nodes.gone([b"a"], 10.0)
    nodes.hear(b"b", 1)
    nodes.gone([b"a"], 10.1)
    assert nodes.next_look() is None
    assert nodes.expired(20.0) == []


def test_a_second_connection_before_the_end_of_the_first() -> None:
    nodes = NodeConnections()
    nodes.hear(b"a", 1)
    nodes.hear(b"b", 1)
    nodes.gone([b"a"], 10.0)
    assert nodes.next_look() is None


def test_nodes_that_share_a_connection_are_lost_together() -> None:
    nodes = NodeConnections()
    for node_id in (3, 1, 2):
        nodes.hear(b"a", node_id)
    nodes.gone([b"a", b"other"], 10.0)
    nodes.hear(b"b", 2)
    assert nodes.expired(10.0 + MOMENT_S) == []
    assert nodes.expired(10.0 + RECONNECT_GRACE_S) == [1, 3]


def test_a_coordinator_that_was_stopped_gives_the_grace_anew() -> None:
    nodes = NodeConnections()
    nodes.hear(b"a", 1)
    nodes.gone([b"a"], 10.0)
    assert nodes.expired(20.0) == []
    assert nodes.expired(20.0 + MOMENT_S) == []
    assert nodes.expired(20.0 + RECONNECT_GRACE_S) == [1]
