"""Every interleaving of a small cluster, as far as the time allows."""

import pytest

from .guards import without
from .small_model import search

SLOW = pytest.mark.slow


def test_nothing_goes_wrong_within_some_steps() -> None:
    found = search(depth_max=30, states_max=6_000)
    assert not found.violation, found
    assert found.depth >= 6


@SLOW
@pytest.mark.timeout(1800)
def test_nothing_goes_wrong_within_more_steps() -> None:
    found = search(depth_max=60, states_max=60_000)
    assert not found.violation, found


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("all_in_sync", 1),
        ("elect_in_sync", 5),
        ("maximal_isr", 8),
        pytest.param("caught_up_to_enter", 8, marks=SLOW),
        pytest.param("truncate_by_epochs", 9, marks=SLOW),
    ],
)
def test_without_a_guard_something_does(name: str, depth: int) -> None:
    with without(name):
        found = search(depth_max=depth, states_max=20_000)
    assert found.violation, found
