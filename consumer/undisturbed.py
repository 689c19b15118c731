"""Changes of several steps that no signal handler can end half-way: they are made in the I/O thread.

Handlers run in the main thread, and what they raise (Ctrl-C, a time-out) may end whatever that is in.
Other threads make their changes themselves.
"""

from collections.abc import Callable
from threading import get_ident, main_thread

from tailrace.client.waiting import Sign, wait_in_steps
from tailrace.protocol.errors import TailraceError


class _Change:
    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self.failure: Exception | None = None
        self.done = Sign()

    def make(self) -> None:
        """Once, however often it is called."""
        if not self.done.is_set():
            try:
                self._action()
            except Exception as error:  # noqa: BLE001 - it is the caller's, who waits
                self.failure = error
            self.done.set()


class Undisturbed:
    """One change after the other. `submit` has the I/O thread call something soon."""

    def __init__(self, submit: Callable[[Callable[[], None]], None]) -> None:
        self._submit = submit
        self._change: _Change | None = None

    def make(self, action: Callable[[], None]) -> None:
        """Return when it is done, or raise what it raises.

        Interrupted, it may be done by then, or later: `finish` before all else.
        """
        if get_ident() != main_thread().ident:
            action()
            return
        self._change = _Change(action)
        self.finish()

    def finish(self) -> None:
        """Wait for what an interrupted `make` has begun; it is begun once more, in case that it was not."""
        change = self._change
        if change is None:
            return
        try:
            self._submit(change.make)
        except TailraceError:  # the I/O thread has ended, with all that it did
            change.make()
        wait_in_steps(change.done.wait, None)
        self._change = None
        if change.failure is not None:
            raise change.failure
