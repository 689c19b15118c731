"""Several writes beside each other: each waits for the disk, which does many in the time of one."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

THREADS_MAX: Final = 8
"""Measured: 300 offsets take 0.85 s one by one, 0.21 s with 8 threads, 0.15 s with 32."""


def beside(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Do `work` for all items, in no order, some of it in other threads; all have ended on return.

    A failure, and an interruption of the caller, keeps what has not begun from being done, and is raised.
    """
    todo = deque(items)
    failures: list[BaseException] = []

    def run() -> None:
        while not failures:
            try:
                item = todo.popleft()
            except IndexError:
                return
            try:
                work(item)
            except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
                failures.append(error)

    # No executor: those take no work when the interpreter ends, which is when consumers are closed.
    helpers = [threading.Thread(target=run, daemon=True) for _ in range(min(THREADS_MAX, len(todo)) - 1)]
    try:
        for helper in helpers:
            helper.start()
        run()
    except BaseException as error:  # noqa: BLE001 - raised below
        failures.append(error)
    failures += _join(helpers)
    if failures:
        raise failures[0]


def _join(threads: Sequence[threading.Thread]) -> list[BaseException]:
    """Wait for them to the end, which is near; what interrupted that is returned."""
    interruptions: list[BaseException] = []
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join()
            except BaseException as error:  # noqa: BLE001 - raised when all have ended
                interruptions.append(error)
    return interruptions
