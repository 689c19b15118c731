"""The budget of copies that move to a node."""

import pytest

from tailrace.node.replication.throttle import Throttle

TOPIC = bytes(16)
OTHER = b"o" * 16
KEY = (TOPIC, 0)


def test_nothing_is_held_back_without_a_bound() -> None:
    throttle = Throttle()
    throttle.bound(TOPIC, {}, 0.0)
    assert KEY not in throttle


def test_what_was_copied_too_much_is_waited_for() -> None:
    throttle = Throttle()
    throttle.bound(TOPIC, {0: 100, 1: 100}, 10.0)
    assert throttle.free_at(10.0) == 10.0
    throttle.spend(250, 10.0)
    assert throttle.free_at(10.0) == 12.5
    assert (TOPIC, 1) in throttle
    assert (TOPIC, 2) not in throttle, "this one follows in sync"
    assert throttle.free_at(12.5) == 12.5


def test_a_pause_is_not_made_up_for_by_a_flood() -> None:
    throttle = Throttle()
    throttle.bound(TOPIC, {0: 100}, 0.0)
    assert throttle.free_at(1_000.0) == 1_000.0
    throttle.spend(300, 1_000.0)
    assert throttle.free_at(1_000.0) == 1_002.0


def test_the_lowest_bound_counts_and_a_bound_may_go() -> None:
    throttle = Throttle()
    throttle.bound(TOPIC, {0: 100}, 0.0)
    throttle.bound(OTHER, {0: 10}, 0.0)
    throttle.spend(100, 0.0)
    assert throttle.free_at(0.0) == 10.0
    throttle.bound(OTHER, {}, 5.0)
    assert throttle.free_at(5.0) == pytest.approx(5.5)
    throttle.bound(TOPIC, {}, 5.0)
    assert KEY not in throttle
