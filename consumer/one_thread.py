"""A consumer belongs to one thread at a time: what tells when two are in it at once."""

from collections.abc import Callable
from functools import wraps
from threading import get_ident
from typing import Concatenate, Final, ParamSpec, Protocol, TypeAlias, TypeVar

from tailrace.protocol.errors import ConcurrentUseError

P = ParamSpec("P")
T = TypeVar("T")

NOBODY: Final = 0


class OneThread:
    """Who is in a call, and who asked for records last. `check` raises what is to be said first.

    A marker and no lock: nobody ever waits for it, and it costs little. A thread that is in a call may
    enter again, as signal handlers and deserializers do.
    """

    __slots__ = ("_check", "_name", "asked_by", "inside")

    def __init__(self, name: str, check: Callable[[], None]) -> None:
        self._name = name
        self._check = check
        self.inside = NOBODY
        self.asked_by = NOBODY
        """The thread that got the records which are in hand."""

    def enter(self) -> int:
        """Begin a call; the caller puts `inside` back to what this returns. Raises ConcurrentUseError."""
        thread = get_ident()
        outer = self.inside
        # CPython switches threads at calls and backward jumps: at neither from here to the assignment.
        if outer != thread and outer != NOBODY:
            raise self.refusal(f"thread {outer} is in a call")
        self.inside = thread
        return outer

    def touch(self, action: Callable[[], T]) -> T:
        """Do it as a call of its own. Raises ConcurrentUseError."""
        outer = self.enter()
        try:
            return action()
        finally:
            self.inside = outer

    def asked(self) -> None:
        """Within a call: what a loop has in hand is taken from it."""
        self.asked_by = self.inside

    def refusal(self, what: str) -> ConcurrentUseError:
        """The error, unless there is one that counts more, which is raised."""
        self._check()
        return ConcurrentUseError(
            f"{self._name} is not safe for multi-threaded access: {what}. Give each thread a consumer of "
            "its own (share partitions out with assign()), or hand records on in a queue; only wakeup() may "
            "be called from other threads, and close() when the call has returned"
        )


class _Guarded(Protocol):
    @property
    def _one_thread(self) -> OneThread: ...


G = TypeVar("G", bound=_Guarded)
Method: TypeAlias = Callable[Concatenate[G, P], T]


def in_one_thread(method: Method[G, P, T]) -> Method[G, P, T]:
    """A method that must not run while another thread is in one of these: ConcurrentUseError."""

    @wraps(method)
    def guarded(self: G, /, *arguments: P.args, **options: P.kwargs) -> T:
        one_thread = self._one_thread
        outer = one_thread.enter()
        try:
            return method(self, *arguments, **options)
        finally:
            one_thread.inside = outer

    return guarded
