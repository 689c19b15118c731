"""What forks have of a parent's pipe, and how the end of a process is told."""

import os
import signal
from pathlib import Path

import pytest

from tailrace.processes.parent_pipe import ParentPipe, describe_exit


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_of_a_fork_closes_no_other_file() -> None:
    parent = ParentPipe()
    inherited = parent._writer
    child = os.fork()
    if child == 0:
        os._exit(_in_a_fork(parent, inherited))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.set_blocking(parent.reader, False)
    with pytest.raises(BlockingIOError):  # the other end is still open, here
        os.read(parent.reader, 1)
    parent.close()


def _in_a_fork(parent: ParentPipe, inherited: int) -> int:
    """Has another file get the number that the pipe's end had; the exit code, 0 if it stays open."""
    writer = os.memfd_create("later")
    os.dup2(writer, inherited)
    child = os.fork()
    if child == 0:
        os._exit(not _is_open(inherited))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    parent.close()
    return code or not _is_open(inherited)


def _is_open(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").exists()


@pytest.mark.parametrize(
    ("code", "told"), [(1, "exit code 1"), (-signal.SIGKILL, "SIGKILL"), (-1000, "signal 1000")]
)
def test_an_exit(code: int, told: str) -> None:
    assert describe_exit(code) == told


def test_sigbus_says_what_is_wrong_and_what_to_do() -> None:
    assert describe_exit(-signal.SIGBUS).startswith("SIGBUS, as when data.mdb was cut short")
