"""Every public method of a closed client raises ClosedError, but for those that end or look back."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tailrace import Admin, Consumer, Producer, TopicPartition
from tailrace.protocol.errors import ClosedError
from tailrace.testing import Cluster

from ..conftest import MakeTopic
from ..patience import PATIENCE_S

PLACE = TopicPartition("t", 0)
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "alter_topic": ("t", 2),
    "assign": ([PLACE],),
    "beginning_offsets": ([PLACE],),
    "committed": (PLACE,),
    "committed_metadata": (PLACE,),
    "create_topic": ("other",),
    "delete_group": ("g",),
    "delete_topic": ("t",),
    "describe_group": ("g",),
    "describe_topic": ("t",),
    "drain_node": (1,),
    "end_offsets": ([PLACE],),
    "list_group_offsets": ("g",),
    "list_offsets": ({PLACE: 0},),
    "move_partitions": ({PLACE: (1,)},),
    "offsets_for_times": ({PLACE: 0},),
    "partitions_for": ("t",),
    "partitions_for_topic": ("t",),
    "pause": (PLACE,),
    "position": (PLACE,),
    "remove_node": (1,),
    "reset_group_offsets": ("g", {PLACE: 0}),
    "resume": (PLACE,),
    "seek": (PLACE, 0),
    "send": ("t", b"x"),
    "send_many": ("t", [b"x"]),
    "subscribe": ("t",),
    "throttle_moves": (1_000_000,),
}
"""What a method is called with, if it cannot do without."""
ALLOWED = {
    Producer: {"close", "metrics", "disown"},
    Consumer: {"close", "wakeup"},
    Admin: {"close"},
}
"""May be called: again, for the last figures, in a fork, from another thread that does not know yet."""
CLIENTS: tuple[type[Any], ...] = (Producer, Consumer, Admin)


def methods(client: type) -> list[str]:
    return [name for name in dir(client) if not name.startswith("_") and callable(getattr(client, name))]


CALLS = [(client, name) for client in CLIENTS for name in methods(client) if name not in ALLOWED[client]]


@pytest.fixture
def closed(cluster: Cluster, topic: MakeTopic, tmp_path: Path) -> Callable[[type], Any]:
    """Makes a client that was used and closed."""

    def make(client: type) -> Any:
        if client is Consumer:
            options: dict[str, Any] = {"offset_store": tmp_path}
            made = Consumer(topic(2), bootstrap_servers=cluster.bootstrap_servers, **options)
        else:
            made = client(cluster.bootstrap_servers)
        made.close()
        return made

    return make


@pytest.mark.parametrize(("client", "name"), CALLS, ids=[f"{c.__name__}.{name}" for c, name in CALLS])
def test_it_says_so(closed: Callable[[type], Any], client: type, name: str) -> None:
    instance = closed(client)
    with pytest.raises(ClosedError, match=rf"{client.__name__.lower()}-[\d-]+ is closed"):
        exhaust(getattr(instance, name)(*ARGUMENTS.get(name, ())))


def exhaust(result: object) -> None:
    """What gives an iterator may raise with its first step."""
    if isinstance(result, Iterator):
        next(result)


@pytest.mark.parametrize("client", CLIENTS)
def test_closing_again_does_nothing(closed: Callable[[type], Any], client: type) -> None:
    instance = closed(client)
    for name in ALLOWED[client]:
        getattr(instance, name)()
    with instance:
        pass


def test_a_closed_consumer_cannot_be_iterated(closed: Callable[[type], Any]) -> None:
    with pytest.raises(ClosedError):
        next(iter(closed(Consumer)))


def test_closing_is_quiet(cluster: Cluster, topic: MakeTopic, caplog: pytest.LogCaptureFixture) -> None:
    """Also while fetches and long polls are on their way."""
    name = topic(2)
    with caplog.at_level(logging.INFO, logger="tailrace"):
        consumer = Consumer(name, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest")
        with consumer, Producer(cluster.bootstrap_servers) as producer:
            producer.send(name, b"x").result(PATIENCE_S)
            assert consumer.poll(PATIENCE_S * 1_000)
            assert consumer.poll(10) == {}
            producer.send(name, b"y")
        with Admin(cluster.bootstrap_servers) as admin:
            admin.list_topics()
    assert caplog.messages == []
