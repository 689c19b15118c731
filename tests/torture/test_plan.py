"""Plans of faults: the same for the same seed, complete, and in bounds."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.torture.plan import ALL_LASTS_S_MAX, KINDS, LASTS_S, PICKS, TARGETS, Kind, kinds_of, plan

kinds_sets = st.lists(st.sampled_from(KINDS), min_size=1, unique=True)


@given(st.integers(0, 2**32), kinds_sets, st.floats(1, 600), st.floats(0.5, 10))
def test_a_seed_gives_one_plan_within_its_bounds(
    seed: int, kinds: list[Kind], duration_s: float, every_s: float
) -> None:
    faults = plan(seed, kinds, duration_s=duration_s, every_s=every_s)
    assert faults == plan(seed, kinds, duration_s=duration_s, every_s=every_s)
    assert [fault.number for fault in faults] == list(range(len(faults)))
    assert len(faults) == max(1, int(duration_s / every_s))
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    for fault in faults:
        least, most = LASTS_S[fault.kind]
        assert fault.kind in kinds
        assert fault.target in TARGETS[fault.kind]
        assert least <= fault.lasts_s <= (ALL_LASTS_S_MAX if fault.target == "all" else most)
        assert 0 <= fault.pick < PICKS


def test_seeds_differ() -> None:
    plans = [plan(seed, KINDS, duration_s=60, every_s=5) for seed in range(10)]
    assert all(one != other for one, other in pairwise(plans))


def test_everything_comes_before_anything_comes_again() -> None:
    cards = sum(len(TARGETS[kind]) for kind in KINDS)
    faults = plan(7, KINDS, duration_s=cards, every_s=1)
    assert len({fault.name for fault in faults}) == cards


def test_kinds_by_name() -> None:
    assert kinds_of("stop, kill") == ("kill", "stop")
    with pytest.raises(InvalidArgumentError, match="'flood' is no fault; there are kill, stop"):
        kinds_of("kill,flood")
    with pytest.raises(InvalidArgumentError, match="no faults are named"):
        kinds_of(" ,")
