"""The line that moves while a load test runs."""

import os
import sys
import termios

import pytest

from tailrace.bench.runner import Progress
from tailrace.cli.bench_output import progress_line, reporting

PROGRESS = Progress("measuring", 123.4, 1_234_567_890, 1_234_567_890, 1_234_567.0, 1_234_567.0, 12.34)


@pytest.mark.parametrize("columns", [40, 80, 200, 0])
def test_it_is_one_line_of_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its width; that of one that has none is not known."""
    terminal, stderr = os.openpty()
    try:
        termios.tcsetwinsize(stderr, (24, columns))
        with os.fdopen(stderr, "w") as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            with reporting() as report:
                report(PROGRESS)
            monkeypatch.undo()
            shown = os.read(terminal, 4_096).decode()
    finally:
        os.close(terminal)
    line = progress_line(PROGRESS)
    assert len(line) == 99
    assert shown.startswith(f"\033[K{line[: columns - 1 if columns else None]}\r")
