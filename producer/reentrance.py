"""Calls within a call that has the accumulator's lock: signal handlers make them, and finalizers.

The lock is reentrant, and what they send goes into batches of its own (`batch.ADDING`). But who waits, waits
for the I/O thread, and that for the lock.
"""

from threading import RLock

from tailrace.protocol.errors import ConcurrentUseError


def owned(lock: RLock) -> bool:
    """Has this thread the lock?"""
    return bool(lock._is_owned())  # type: ignore[attr-defined]


def check_can_wait(lock: RLock) -> None:
    """For a call that will wait for the I/O thread. Raises ConcurrentUseError if this thread has the lock."""
    if owned(lock):
        raise _refusal()


def check_can_let_go(lock: RLock) -> None:
    """For a call that has the lock and will let go of it: ConcurrentUseError if an outer one has it, too."""
    try:
        lock.release()
        nested = owned(lock)
    finally:
        lock.acquire()
    if nested:
        raise _refusal()


def _refusal() -> ConcurrentUseError:
    return ConcurrentUseError(
        "this came in the middle of a send of the same thread, from a signal handler or a finalizer, and "
        "would have to wait: set a flag, and do it when that call has returned"
    )
