"""How the end of a process is told."""

import signal

import pytest

from tailrace.processes.parent_pipe import describe_exit


@pytest.mark.parametrize(
    ("code", "told"), [(1, "exit code 1"), (-signal.SIGKILL, "SIGKILL"), (-1000, "signal 1000")]
)
def test_an_exit(code: int, told: str) -> None:
    assert describe_exit(code) == told


def test_sigbus_says_what_is_wrong_and_what_to_do() -> None:
    assert describe_exit(-signal.SIGBUS).startswith("SIGBUS, as when data.mdb was cut short")
