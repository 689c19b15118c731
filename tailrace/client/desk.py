"""Where the application's thread waits for what the I/O thread tells, or for a reply that it reads itself."""

import select
from collections.abc import Callable
from functools import partial
from math import ceil

from tailrace.transport.pipes import Pipes
from tailrace.transport.wakeup import Wakeup

from .piped_replies import PipedReplies
from .signals import may_call_back
from .waiting import wait_in_steps


class Desk:
    """One thread waits, any other rings. `wake` has the I/O thread go round once more.

    What comes while nobody waits is the I/O thread's to read.
    """

    def __init__(self, piped: PipedReplies, wake: Callable[[], None]) -> None:
        self._piped = piped
        self._wake = wake
        self._bell = Wakeup()
        self._bell_only = self._poll_of(())
        self._with_pipes = self._bell_only
        self._polled: tuple[Pipes, ...] = ()
        """Those that are polled, too."""
        self._pipes: dict[int, Pipes] = {}
        """The same by descriptor."""
        self._found: list[tuple[int, int]] = []
        self._inside = False
        self._over = False
        self.taken = False
        """Is a thread about to wait, or waiting, for whom nobody has rung? It says so before it looks for the
        last time for what it would wait for."""

    @property
    def unfinished(self) -> bool:
        """Is there something that the I/O thread has to go on with, and may not know of? Then wake it."""
        return self._piped.unfinished

    def ring(self) -> None:
        """Wake the thread that waits, or is about to. One thread at a time may ring."""
        if self.taken:
            self.taken = False
            self._bell.set()

    def wait(self, timeout_s: float | None, *, reads: bool) -> None:
        """Until it rings or so many seconds are over; with `reads`, also until a small reply was read.

        It may return for nothing. Signal handlers run, and may raise; where one may call back, none is read.
        """
        outer, self._inside = self._inside, True  # then it looks: who ends it does so the other way round
        try:
            if self._over:
                return
            if reads and self._piped.pipes and not (outer or may_call_back()):
                self._wait_and_read(timeout_s)
                return
            bell = self._poll_of(()) if outer else self._bell_only  # one that is polled cannot be, once more
            if wait_in_steps(partial(_poll, bell), timeout_s):
                self._bell.clear()
        finally:
            self.taken, self._inside = False, outer
            if self._over and not outer:
                self._bell.close()

    def end(self) -> None:
        """Nobody rings any more: who waits has been told why."""
        self._over = True
        if not self._inside:
            self._bell.close()

    def _wait_and_read(self, timeout_s: float | None) -> None:
        piped = self._piped
        pipes = piped.pipes
        if self._polled is not pipes:
            by_descriptor = {each.fileno(): each for each in pipes}
            poll = self._poll_of(pipes)  # not a call from here on
            self._polled, self._pipes, self._with_pipes = pipes, by_descriptor, poll
        try:
            piped.borrow()
            wait_in_steps(self._poll_all, timeout_s)
            self.taken = False  # what is told by this thread is not rung for
            for descriptor, _ in self._found:
                readable = self._pipes.get(descriptor)
                if readable is None:
                    self._bell.clear()
                else:
                    piped.take_in(readable)
            piped.give_back()
        except BaseException:
            piped.occupied, piped.unfinished = False, True  # first of all, and no call
            self._wake()
            raise
        if piped.unfinished:
            self._wake()

    def _poll_of(self, pipes: tuple[Pipes, ...]) -> select.poll:
        poll = select.poll()
        for descriptor in (self._bell.fileno(), *(each.fileno() for each in pipes)):
            poll.register(descriptor, select.POLLIN)
        return poll

    def _poll_all(self, seconds: float) -> bool:
        self._found = self._with_pipes.poll(ceil(seconds * 1000))
        return bool(self._found)


def _poll(poll: select.poll, seconds: float) -> bool:
    return bool(poll.poll(ceil(seconds * 1000)))
