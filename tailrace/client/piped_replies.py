"""Small replies that come through pipes: read by the I/O thread, or by the application's while it waits.

To have a reply read by the thread that waits for it saves the hand-over, a third of the time that a record
takes within a client. What that thread takes in itself are replies to requests that were made `swift`; what
else it finds it leaves to the I/O thread, in its order.

The application's thread may be the main one, where what a signal handler raises can end any call. So what it
does is noted first, in a few assignments with no call between, and the I/O thread finishes it.
"""

from collections.abc import Sequence
from threading import Lock

from tailrace.protocol.errors import MalformedRequestError, TailraceError
from tailrace.transport.pipes import Message, Pipes
from tailrace.transport.poller import Poller

from .link import Link
from .pending import PendingRequests, read_reply


class PipedReplies:
    """The pipes of one client, each watched by its poller unless the application's thread does that."""

    def __init__(self, poller: Poller, pending: PendingRequests) -> None:
        self._poller = poller
        self._pending = pending
        self._lock = Lock()
        """Held to read a pipe, and to change which there are or who watches them. Handlers of swift replies
        are called with it, but nothing of the application's is."""
        self._links: dict[Pipes, Link] = {}
        self.pipes: tuple[Pipes, ...] = ()
        """All there are; replaced with every change."""
        self.lent: tuple[Pipes, ...] = ()
        """Those that the poller does not watch."""
        self.occupied = False
        """Does the application's thread wait?"""
        self.unfinished = False
        """Is there something for `take_over`?"""

    # --------------------------------------------------------- in the I/O thread

    def watch(self, pipes: Pipes, link: Link) -> None:
        """The node has taken them."""
        with self._lock:
            self._links[pipes] = link
            self._poller.add(pipes)
            self.pipes = tuple(self._links)

    def forget(self, pipes: Pipes) -> None:
        """They are about to be closed: nobody reads them any more."""
        with self._lock:
            del self._links[pipes]
            self._poller.remove(pipes)
            self.pipes = tuple(self._links)

    def receive(self, pipes: Pipes) -> Sequence[Message]:
        """What has come. Raises MalformedRequestError."""
        with self._lock:
            return pipes.receive()

    def take_back(self) -> None:
        """Watch what was lent, if nobody waits."""
        if self.occupied:
            return  # without the lock: a signal handler, called while it is held, may wait for this thread
        with self._lock:
            if not self.occupied:
                self._end_loan()

    def take_over(self) -> tuple[Pipes, ...]:
        """Finish what the application's thread has not; then all pipes are to be read."""
        with self._lock:
            self.unfinished = False
            self._pending.finish_claimed()
            return self.pipes

    # --------------------------------------------- in the application's thread

    def borrow(self) -> None:
        """Only the caller watches the pipes from now on, until it calls `give_back`."""
        self.occupied = True
        if self.lent is not self.pipes:
            with self._lock:
                self.lent = self.pipes
                for pipes in self.lent:
                    self._poller.pause(pipes)

    def give_back(self) -> None:
        """Nobody waits. If nothing can come, the I/O thread watches them when it has sent a request."""
        self.occupied = False
        with self._lock:
            if any(link.owed for link in self._links.values()):
                self._end_loan()

    def take_in(self, pipes: Pipes) -> None:
        """Read what has come, and call the handlers of swift requests, up to what is not for this thread."""
        with self._lock:
            link = self._links.get(pipes)
            if link is None:
                return
            try:
                if self.unfinished:
                    self._pending.finish_claimed()
                pipes.read()
                self._take_all(link, pipes)
                self.unfinished = self.unfinished or bool(pipes.inbox)
            except MalformedRequestError:
                self.unfinished = True  # the I/O thread comes to it again

    def _end_loan(self) -> None:
        for pipes in self.lent:
            if pipes in self._links:
                self._poller.resume(pipes)
        self.lent = ()

    def _take_all(self, link: Link, pipes: Pipes) -> None:
        while pipes.inbox and self._take(link, pipes, *pipes.inbox[0]):
            pass

    def _take(self, link: Link, pipes: Pipes, header: bytes, frames: list[bytes]) -> bool:
        request_id, reply, _ = read_reply(header)
        pending = self._pending.get(request_id)
        if (
            pending is None
            or not pending.swift
            or pending.destination != link.destination
            or isinstance(reply, TailraceError)
            or link.path is None
            or link.path.has_slot(request_id)
            or not self._pending.claim(pending, reply, frames)
        ):
            return False
        if link.owed:  # not a call from here on; before it, the message would be one that nobody waits for
            link.owed -= 1
        del pipes.inbox[0]
        self._pending.finish_claimed()
        return True
