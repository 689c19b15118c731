"""A reply that the application's thread takes in itself, where a signal handler may end that at any point."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import count

import pytest

from tailrace.consumer.fetch_plans import FetchPlan

from ..interrupting import InterruptionError, interrupted_at
from .test_fetcher import World

PARTITIONS = 3


def interrupted_worlds() -> Iterator[World]:
    """Each has been told of one reply about all its partitions, half of the way, and then once more."""
    for point in count(1):
        world = World(PARTITIONS)
        for log in world.cluster.logs:
            log.append(2)
        plan = world.plan()
        answer = world.cluster.fetch(plan, 10_000)
        with interrupted_at(point) as interrupts, suppress(InterruptionError):
            world.fetcher.replied(plan, *answer, 0.0)
        if interrupts.over:
            assert point > 50
            return
        yield world
        world.fetcher.replied(plan, *answer, 0.0)
        for log in world.cluster.logs:
            log.append(1)
        for _ in range(5):
            for following in world.fetcher.plan(0.0):
                assert isinstance(following, FetchPlan)
                world.answer(following)
        for partition in world.partitions:
            assert [(raw.start, raw.end) for raw in partition.buffer] == [(0, 2), (2, 3)], interrupts.places
        assert list(world.fetcher.ready.values()) == world.partitions
        assert world.fetcher.buffered_bytes == sum(one.buffered_bytes for one in world.partitions)


@pytest.mark.parametrize("plans", [0, 1, 2])
def test_nothing_is_lost_nor_comes_twice(plans: int) -> None:
    """Whatever the I/O thread has sent by the time it is told once more."""
    for world in interrupted_worlds():
        for _ in range(plans):
            for plan in world.fetcher.plan(0.0):
                assert isinstance(plan, FetchPlan)
                world.answer(plan)


def test_where_it_goes_on_after_a_seek() -> None:
    """Nothing of the reply is there where it does not belong."""
    for world in interrupted_worlds():
        for partition in world.partitions:
            world.fetcher.seek(partition, 0)
