"""Those who wait, with the accumulator's lock, until memory is given back or batches are resolved."""

import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from tailrace.client.notice import TOLD_AFTER_S, Notice
from tailrace.client.waiting import wait_in_steps

from .reentrance import check_can_let_go, check_can_wait

FOR_MEMORY: Final = "room in buffer_memory"


class Waiters:
    """All but `notice_of_delivery` is called with the lock; `begin` too, when somebody counts as waiting."""

    def __init__(self, lock: threading.RLock, begin: Callable[[], None]) -> None:
        self.notice: Callable[[str, float], Notice] = lambda what, s: Notice(what, s, lambda: "")
        """Makes what those are told by who wait for something for so many seconds, and too long."""
        self.watcher: Callable[[], None] | None = None
        """Waits for memory without a thread: called when there may be some."""
        self._lock = lock
        self._begin = begin
        self._changed = threading.Condition(lock)
        self._count = 0
        self._changes = 0
        """How often they were told."""
        self._standstill: Notice | None = None
        """For all who wait for memory, since some was last given back."""

    def __bool__(self) -> bool:
        return self._count > 0 or self.watcher is not None

    def tell(self) -> None:
        """There may be what they wait for."""
        self._changes += 1
        self._standstill = None
        if self._count:
            self._changed.notify_all()
        if self.watcher is not None:
            self.watcher()

    def wait(self, timeout_s: float) -> bool:
        """Let go of the lock until something changes; False if `timeout_s` was over first."""
        self._count += 1
        try:
            self._begin()
            return wait_in_steps(self._changed.wait, timeout_s)
        except BaseException:
            with suppress(RuntimeError):  # it may have come when the lock was let go
                self._lock.release()
            self._lock.acquire()
            raise
        finally:
            self._count -= 1

    def wait_for_none(self, left: Callable[[], int], until: float) -> int:
        """Wait until there are none left, or until then (monotonic seconds): how many there were last."""
        while (count := left()) and self.wait(until - monotonic()):
            pass
        return count

    def notice_of_delivery(self, what: str, timeout_s: float) -> Notice:
        """`notice`, for who waits for a record to be stored: without the lock, or ConcurrentUseError."""
        check_can_wait(self._lock)
        return self.notice(what, timeout_s)

    def wait_for_memory(self, timeout_s: float, block_s: float) -> None:
        """`wait`, but not long, and say so if nothing came. It may be one of many, for `block_s` in all.

        Raises ConcurrentUseError within a call that has the lock, too, and has done half of something.
        """
        seen = self._changes
        check_can_let_go(self._lock)
        if self._changes != seen:
            return  # it let go for a moment, in which something came
        notice = self._standstill = self._standstill or self.notice(FOR_MEMORY, block_s)
        if not self.wait(min(timeout_s, TOLD_AFTER_S)):
            try:
                self._lock.release()
                notice.look()
            finally:
                self._lock.acquire()
