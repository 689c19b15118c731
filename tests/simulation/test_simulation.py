"""What must always hold does, whatever befalls a simulated cluster; and without any one guard it does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .guards import GUARDS, without
from .schedule import Violation
from .world import run

SEEDS = 8
SEEDS_WITHOUT_GUARD = 60
SEEDS_LONG = 1_000

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A simulated cluster has a lot to complain about."""
    caplog.set_level("CRITICAL")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_invariants_hold(seed: int) -> None:
    world = run(seed)
    assert world.checker.acks > 20
    assert world.checker.reads > 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, SEEDS_LONG, 50))
def test_the_invariants_hold_for_long(first: int) -> None:
    for seed in range(first, first + 50):
        run(seed)


FOUND_AT_ONCE = {
    "durable_fetch_offset": 0,
}
"""Guards whose removal the default suite looks for, with a seed that finds it."""


@pytest.mark.parametrize("name", FOUND_AT_ONCE)
def test_a_guard_is_needed(name: str) -> None:
    with without(name), pytest.raises(Violation):
        run(FOUND_AT_ONCE[name], GUARDS[name].focus)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", GUARDS)
def test_every_guard_is_needed(name: str) -> None:
    assert any(_violated(name, seed) for seed in range(SEEDS_WITHOUT_GUARD)), GUARDS[name].says


def test_every_rule_has_a_guard_that_can_be_removed() -> None:
    assert {guard.rule for guard in GUARDS.values()} == {f"R{number}" for number in range(1, 10)}


def test_a_seed_replays_exactly() -> None:
    """Also in another process, where strings hash otherwise."""
    command = [sys.executable, "-m", "tests.simulation", "3"]
    traces = [
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout.splitlines()[:-1]
        for seed in ("1", "2")
    ]
    assert traces[0] == traces[1]
    assert len(traces[0]) > 20


def _violated(name: str, seed: int) -> bool:
    with without(name):
        try:
            run(seed, GUARDS[name].focus)
        except Violation:
            return True
    return False
