"""What must always hold does, whatever befalls a simulated cluster; and without any one guard it does not.

1,000 seeds: `python -m tests.simulation --count 1000`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .guards import GUARDS, without
from .schedule import Violation
from .world import run

SEEDS = 8
SEEDS_WITHOUT_GUARD = 40
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A simulated cluster has a lot to complain about."""
    caplog.set_level("CRITICAL")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_invariants_hold(seed: int) -> None:
    world = run(seed)
    assert world.checker.acks > 0
    assert world.checker.reads > 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", GUARDS)
def test_every_guard_is_needed(name: str) -> None:
    assert any(_violated(name, seed) for seed in range(SEEDS_WITHOUT_GUARD)), GUARDS[name].says


def test_every_rule_has_a_guard_that_can_be_removed() -> None:
    assert {guard.rule for guard in GUARDS.values()} == {f"R{n}" for n in (*range(1, 10), 13, 14)}


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
    assert len(traces[0]) > 10


def _violated(name: str, seed: int) -> bool:
    with without(name):
        try:
            run(seed, GUARDS[name].focus)
        except Violation:
            return True
    return False
