"""A request that a thread of the application's writes into a pipe by itself, ahead of the I/O thread.

To wake a thread and have it find its work is a good part of the way of a record that is sent alone. While the
I/O thread sleeps, all state is as that has left it, and stays so for who has the turn. Nothing of that state
is changed here: the I/O thread makes the same request when it wakes, before all else, and does not send what
is sent already. So a signal handler may end anything in here, at any point.
"""

from collections.abc import Callable, Sequence
from threading import RLock, get_ident

import msgspec

from tailrace.protocol.messages import Request
from tailrace.protocol.parts import Payload, joined
from tailrace.protocol.wire import encode

from .link import Links
from .signals import may_call_back

_NOBODY = 0


class Written(msgspec.Struct, eq=False):
    """A request by its id. `sent`: it is in the pipe. If not, it may be there, and is sent once more."""

    request_id: int
    sent: bool = False


class Ahead:
    """One client's. `wake` wakes the I/O thread."""

    def __init__(self, links: Links, next_id: Callable[[], int], wake: Callable[[], None]) -> None:
        self._links = links
        self._wake = wake
        self.next_id = next_id
        self._inside = _NOBODY
        """The thread that attempts to write."""
        self.turn = RLock()
        """Held by the I/O thread but while it sleeps."""
        self.noted = False
        """Is there something to take note of, as the first thing when the I/O thread wakes?"""

    def attempt(self, write: Callable[[], None]) -> None:
        """Call `write` if the I/O thread sleeps and no signal handler may call back; wake it in any case."""
        thread = get_ident()
        if self._inside == thread or may_call_back():  # a finalizer, within an attempt; a signal handler
            self._wake()
            return
        turn = self.turn
        try:
            if turn.acquire(blocking=False):
                self._inside = thread
                write()
                self._inside = _NOBODY
                turn.release()
        except BaseException:
            if self._inside == thread:
                self._inside = _NOBODY
            try:  # noqa: SIM105 - suppress() is a call, which would let the next signal in
                turn.release()
            except RuntimeError:
                pass  # it was not ours, or is no more
            raise
        self._wake()

    def can_write(self, destination: int) -> bool:
        """May a small message go into a pipe to this node? Within `attempt`."""
        link = self._links.get(destination)
        return link is not None and link.ready and not link.unsent and link.pipe_is_free(first=not link.owed)

    def write(self, destination: int, written: Written, request: Request, frames: Sequence[Payload]) -> None:
        """Within `attempt`, when it is `noted`. A message that is not small is left to the I/O thread."""
        link = self._links[destination]
        header, payload = encode(request), list(map(joined, frames))
        written.sent = link.pipe(header, payload, first=not link.owed)
