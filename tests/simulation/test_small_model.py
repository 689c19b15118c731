"""Every interleaving of a small cluster, as far as the time allows."""

import pytest

from .guards import without
from .small_model import search


def test_nothing_goes_wrong_within_some_steps() -> None:
    found = search(depth_max=30, states_max=6_000)
    assert not found.violation, found
    assert found.depth >= 5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_goes_wrong_within_more_steps() -> None:
    found = search(depth_max=60, states_max=150_000)
    assert not found.violation, found


@pytest.mark.parametrize("name", ["all_in_sync", "caught_up_to_enter", "elect_in_sync"])
def test_without_a_guard_something_does(name: str) -> None:
    with without(name):
        found = search(depth_max=30, states_max=20_000)
    assert found.violation, found
