"""A consumer belongs to one thread at a time, which is in one call: what tells when two are in it at once."""

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

    A marker and no lock: nobody ever waits for it, and it costs little. A thread that is in a call may enter
    again only where that call has nothing half done and holds no lock: in waits for records, and in what of
    the application's it calls (`let_in`). Elsewhere it is a signal handler, or a deserializer, that enters:
    what it wants may need what is half done, or wait for the I/O thread, which waits for this one.
    """

    __slots__ = ("_check", "_name", "afterwards", "asked_by", "inside")

    def __init__(self, name: str, check: Callable[[], None]) -> None:
        self._name = name
        self._check = check
        self.inside = NOBODY
        """The thread that is in a call; negative while it may enter again."""
        self.asked_by = NOBODY
        """The thread that got the records which are in hand."""
        self.afterwards: Callable[[], None] | None = None
        """What a signal handler leaves to the end of the call that it came into: whoever puts `inside` back
        calls `do_afterwards` if there is something."""

    def enter(self) -> int:
        """Begin a call; the caller puts `inside` back to what this returns. Raises ConcurrentUseError."""
        thread = get_ident()
        outer = self.inside
        # CPython switches threads at calls and backward jumps: at neither from here to the assignment.
        if outer != NOBODY and outer != -thread:
            raise self.refusal(outer)
        self.inside = thread
        return outer

    def touch(self, action: Callable[[], T]) -> T:
        """Do it as a call of its own. Raises ConcurrentUseError."""
        outer = self.enter()
        try:
            return action()
        finally:
            self.inside = outer
            if self.afterwards is not None:
                self.do_afterwards()

    def let_in(self, action: Callable[[], T]) -> T:
        """Within a call: do what is the application's, which may make further calls."""
        inside = self.inside
        self.inside = -inside
        try:
            return action()
        finally:
            self.inside = inside

    @property
    def interrupted(self) -> bool:
        """Is this thread in the middle of a call? Then a signal handler asks."""
        return self.inside == get_ident()

    def check_not_interrupted(self) -> None:
        """Raise ConcurrentUseError in the middle of a call of this thread's."""
        if self.interrupted:
            raise self.refusal(self.inside)

    def do_afterwards(self) -> None:
        """A call has ended."""
        action, self.afterwards = self.afterwards, None
        if action is not None:
            action()

    def asked(self) -> None:
        """Within a call: what a loop has in hand is taken from it."""
        self.asked_by = self.inside

    def refusal(self, inside: int) -> ConcurrentUseError:
        """The error for who comes while that thread is in a call; one that counts more is raised."""
        if inside == get_ident():
            self._check()
            return ConcurrentUseError(
                f"{self._name}: this came in the middle of another call of the same thread, from a signal "
                "handler or a deserializer. Only wakeup() and close() may be called there: set a flag, or "
                "call wakeup(), and do the rest when that call has returned"
            )
        return self.shared(f"thread {abs(inside)} is in a call")

    def shared(self, what: str) -> ConcurrentUseError:
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
            if one_thread.afterwards is not None:
                one_thread.do_afterwards()

    return guarded


def not_within(method: Method[G, P, T]) -> Method[G, P, T]:
    """A method that must not run in the middle of one of those, in the same thread: ConcurrentUseError."""

    @wraps(method)
    def guarded(self: G, /, *arguments: P.args, **options: P.kwargs) -> T:
        self._one_thread.check_not_interrupted()
        return method(self, *arguments, **options)

    return guarded
