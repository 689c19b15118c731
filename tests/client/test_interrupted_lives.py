"""A signal handler that raises while a client is made, or closed: nothing of it stays behind."""

import gc
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import pytest

from tailrace import Admin, Consumer, Producer
from tailrace.testing import Cluster

from ..descriptors import descriptors
from ..interrupting import InterruptionError, interrupted_at
from ..patience import wait_until

CLIENTS: dict[str, Callable[[str], Admin | Consumer | Producer]] = {
    "admin": Admin,
    "consumer": lambda servers: Consumer(bootstrap_servers=servers),
    "producer": Producer,
}


def threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith(tuple(CLIENTS))}


@pytest.mark.parametrize("kind", CLIENTS)
def test_nothing_stays_behind(cluster: Cluster, kind: str) -> None:
    """But what the system has given, and the interpreter has not stored yet: one descriptor."""
    places: list[str] = []

    def make(point: int) -> bool:
        """Was there such a point?"""
        client = None
        with interrupted_at(point) as interrupts:
            try:
                client = CLIENTS[kind](cluster.bootstrap_servers)
            except InterruptionError:
                client = None
        if client is not None:
            client.close()
        places.extend(interrupts.places)
        return not interrupts.over

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of contexts; as errors they would stay open
        assert make(1)
        before, alive = descriptors(), threads()
        point = 2
        while make(point):
            point += 1
        gc.collect()
        wait_until(lambda: threads() == alive, "the threads of what was interrupted end")
        left = descriptors() - before
    assert any("engine.py" in place for place in places)
    assert left <= sum(place.startswith("wakeup.py") and place.endswith("__init__") for place in places)


@pytest.mark.parametrize("kind", CLIENTS)
def test_nothing_stays_behind_of_what_was_not_quite_closed(cluster: Cluster, kind: str) -> None:
    """It is forgotten then: whoever wants to wait for the end calls `close` again."""
    alive = threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for point in count(1):
            client = CLIENTS[kind](cluster.bootstrap_servers)
            with interrupted_at(point) as interrupts, suppress(InterruptionError):
                client.close()
            del client
            if interrupts.over:
                break
        gc.collect()
        wait_until(lambda: threads() == alive, "the threads of what was interrupted end")
    assert point > 20
