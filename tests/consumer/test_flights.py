"""The numbers of fetch sessions: the node answers what waits under one as soon as that is used anew."""

from random import Random
from types import SimpleNamespace
from typing import Any

from tailrace.consumer.assigned import NO_FETCH
from tailrace.consumer.flights import Flights


def partition(number: int) -> Any:
    return SimpleNamespace(key=(b"t", number), fetch=NO_FETCH, retry_at=0.0)


def test_a_flight_that_nobody_waits_for_gives_its_number_to_the_next_one() -> None:
    flights = Flights(Random(0))
    node = flights.node(1)
    zero, one = partition(0), partition(1)
    first = flights.depart(node, {zero.key: zero})
    other = flights.depart(node, {one.key: one})
    assert (first.number, other.number) == (1, 2)
    flights.recall(zero)
    second = flights.depart(node, {zero.key: zero})
    assert (second.number, second.epoch) == (1, 0)
    flights.rest(flights.land(first.fetch_id))
    assert node.numbers == {1, 2}, "its answer does not free the number, which is another's"
    assert flights.depart(node, {}).number == 3


def test_a_flight_that_others_wait_for_keeps_its_number() -> None:
    flights = Flights(Random(0))
    node = flights.node(1)
    zero, one = partition(0), partition(1)
    first = flights.depart(node, {zero.key: zero, one.key: one})
    flights.recall(zero)
    assert flights.depart(node, {zero.key: zero}).number == 2
    flights.rest(flights.land(first.fetch_id))
    assert node.numbers == {2}
    assert one.fetch == NO_FETCH
