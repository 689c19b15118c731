"""The examples run as they are shown, and say what they should."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def said(example: str) -> Any:
    """What an example prints as JSON; it checks itself, and ends with 0 if all is right."""
    command = [sys.executable, str(ROOT / "examples" / example), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_flights() -> None:
    """Each row comes exactly once and in order."""
    runs = said("flights.py")
    assert list(runs) == ["plain", "everything killed"]
    for figures in runs.values():
        assert (figures["rows"], figures["carriers"]) == (2_000, 16)
        assert figures["rows_per_s"] > 0
    assert runs["everything killed"]["unacked_at_the_kill"] >= 1_000


@pytest.mark.parametrize("example", ["flights.py", "flights_delays.py"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"a,b\n1,2\n", "no CSV file with"), (b"\xff", "no CSV file")],
)
def test_a_file_that_is_none_of_flights(
    example: str, content: bytes | None, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "flights.csv"
    if content is not None:
        file.write_bytes(content)
    command = [sys.executable, str(ROOT / "examples" / example), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert f"{file}: {reason}" in done.stderr


def test_flights_delays() -> None:
    """The answer is that of the file, though a worker is killed."""
    figures = said("flights_delays.py")
    assert (figures["rows"], figures["carriers"], figures["right"]) == (2_000, 16, True)
