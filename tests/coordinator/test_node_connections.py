"""Whose connection has ended is missing, and dead once its address refuses another."""

from tailrace.coordinator.node_connections import NodeConnections


def test_a_missing_node_is_dead_once_its_address_refuses() -> None:
    nodes = NodeConnections()
    nodes.hear(b"a", 1)
    nodes.hear(b"b", 2)
    nodes.refused([1])
    assert (nodes.missing, nodes.dead()) == (set(), [])
    nodes.gone([b"a"])
    assert (nodes.missing, nodes.dead()) == ({1}, [])
    nodes.refused([1, 2])
    assert nodes.dead() == [1]
    nodes.forget(1)
    assert (nodes.missing, nodes.dead()) == (set(), [])


def test_a_node_that_beats_over_another_connection_lives() -> None:
    nodes = NodeConnections()
    nodes.hear(b"a", 1)
    nodes.gone([b"a"])
    nodes.refused([1])
    nodes.hear(b"b", 1)
    nodes.gone([b"a"])
    assert (nodes.missing, nodes.dead()) == (set(), [])


def test_a_second_connection_before_the_end_of_the_first() -> None:
    nodes = NodeConnections()
    nodes.hear(b"a", 1)
    nodes.hear(b"b", 1)
    nodes.gone([b"a"])
    assert nodes.missing == set()


def test_nodes_that_share_a_connection_are_missed_together() -> None:
    nodes = NodeConnections()
    for node_id in (3, 1, 2):
        nodes.hear(b"a", node_id)
    nodes.gone([b"a", b"other"])
    nodes.hear(b"b", 2)
    assert nodes.missing == {1, 3}
    nodes.refused([3, 1])
    assert nodes.dead() == [1, 3]
