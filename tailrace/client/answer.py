"""What a thread waits for while the I/O thread works for it."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from tailrace.protocol.errors import TailraceError, TimedOutError
from tailrace.protocol.messages import Reply

from .pending import Frame
from .waiting import Sign, wait_in_steps

GRACE_S = 5.0
"""The I/O thread reports a time-out itself; when even that does not come, waiting ends after this."""
Heard: TypeAlias = Callable[[Reply | TailraceError], None]


class Answer:
    """One reply, on its way from the I/O thread to the thread that waits for it.

    `heard` gets it before, in the I/O thread.
    """

    __slots__ = ("_come", "_frames", "_heard", "_reply")

    def __init__(self, heard: Heard | None = None) -> None:
        self._heard = heard
        self._come = Sign()
        self._reply: Reply | TailraceError | None = None
        self._frames: Sequence[Frame] = ()

    def resolve(self, reply: Reply | TailraceError, frames: Sequence[Frame]) -> None:
        """A `ReplyHandler`."""
        if self._heard is not None:
            self._heard(reply)
        self._reply = reply
        self._frames = frames
        self._come.set()

    def outcome(
        self, timeout_s: float, look: Callable[[], None] | None = None
    ) -> tuple[Reply, Sequence[Frame]] | TailraceError:
        """The reply and its frames, or the error that came instead.

        What it raises is a signal handler's: no error of the request, whatever its class is.
        """
        wait_in_steps(self._come.wait, timeout_s + GRACE_S, look)
        if self._reply is None:
            return TimedOutError(f"the I/O thread was busy for {timeout_s + GRACE_S:.1f} s")
        if isinstance(self._reply, TailraceError):
            return self._reply
        return self._reply, self._frames

    def attempt(self, timeout_s: float) -> tuple[Reply, Sequence[Frame]] | TailraceError:
        """As `outcome`, but an error that another attempt would not be without is raised."""
        outcome = self.outcome(timeout_s)
        if isinstance(outcome, TailraceError) and not outcome.retriable:
            raise outcome
        return outcome

    def wait(self, timeout_s: float) -> tuple[Reply, Sequence[Frame]]:
        """The reply and its frames. Raises the error that came instead; Ctrl-C interrupts it."""
        outcome = self.outcome(timeout_s)
        if isinstance(outcome, TailraceError):
            raise outcome
        return outcome
