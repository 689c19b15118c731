"""The examples run as they are shown, and say what they should."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_flights() -> None:
    """It checks by itself that each row comes exactly once and in order."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "flights.py"), "--json"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)
    assert list(runs) == ["plain", "everything killed"]
    for figures in runs.values():
        assert (figures["rows"], figures["carriers"]) == (2_000, 16)
        assert figures["rows_per_s"] > 0
    assert runs["everything killed"]["unacked_at_the_kill"] >= 1_000


def test_flights_delays() -> None:
    """The answer is that of the file, though a worker is killed."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "flights_delays.py"), "--json"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["rows"], figures["carriers"], figures["right"]) == (2_000, 16, True)
