"""Processes that are suspended: as hung ones, they answer nothing while their sockets stay."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from .patience import wait_until


@contextmanager
def suspended(*pids: int) -> Iterator[None]:
    """SIGSTOP for each. Not before every thread has stopped, which on a busy machine takes a while.

    They may be killed meanwhile.
    """
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            wait_until(partial(_is_suspended, pid), f"process {pid} is suspended")
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _is_suspended(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").iterdir()
    try:
        return all("\nState:\tT" in (thread / "status").read_text() for thread in threads)
    except (FileNotFoundError, ProcessLookupError):  # a thread has just ended
        return False
