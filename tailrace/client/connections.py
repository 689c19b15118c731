"""The connections of one client: one a destination, made when it is needed.

A lost connection is never used again: what was sent over it fails with ConnectionFailedError,
since nobody knows what became of it, and the one who asked decides about asking again. What was
not sent yet waits for the next connection, or for its deadline.
"""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeAlias

from tailrace.protocol.cluster import Listener
from tailrace.protocol.errors import (
    BusyError,
    ConnectionFailedError,
    TailraceError,
    TimedOutError,
    error_from,
)
from tailrace.protocol.limits import (
    CONNECT_PATIENCE_MS_FIRST,
    CONNECT_PATIENCE_MS_MAX,
    RECEIVE_BURST_MESSAGES,
    RECEIVE_HIGH_WATER_MESSAGES,
    UNSENT_REQUESTS_MAX,
)
from tailrace.protocol.messages import Failed, Reply
from tailrace.protocol.wire import decode_reply, request_id_of
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.endpoint import choose
from tailrace.transport.poller import Poller

from .bootstrap import address
from .pending import Frame, Pending, PendingRequests, ReplyHandler
from .retry import Backoff

COORDINATOR: Final = -1
"""The destination that is no node."""
FULL_QUEUE_PAUSE_S: Final = 0.005
"""When a connection took no more, it is tried again after this, and after each of its replies."""

Location: TypeAlias = Listener | str
"""Where a destination is: a node's listener, or a fixed endpoint."""

_log = logging.getLogger(__name__)


class Link:
    """One destination: its connection, if there is one, and the ids of the requests that wait for it."""

    def __init__(self, destination: int, random: Random) -> None:
        self.destination = destination
        self.connection: Connection | None = None
        self.location: Location = ""
        self.endpoint = ""
        self.ready = False
        self.unsent: deque[int] = deque()
        self.backoff = Backoff(random)
        self.reopen_at = 0.0
        self.patience_s = CONNECT_PATIENCE_MS_FIRST / 1000
        self.patient_until = 0.0

    def __str__(self) -> str:
        who = "the coordinator" if self.destination == COORDINATOR else f"node {self.destination}"
        return f"{who} at {address(self.endpoint)}" if self.endpoint else who


class Connections:
    """Sends requests, hands out replies. Belongs to the I/O thread.

    `locate` tells where a destination is, or why it is nowhere. `defer` runs an action soon in the
    I/O thread: errors are handed out that way, never inside `request`. `on_ready` is told which
    destination can be talked to now, `on_impatient` which could not be connected to for long.
    """

    def __init__(
        self,
        *,
        poller: Poller,
        connect: Callable[[str], Connection],
        locate: Callable[[int], Location | TailraceError],
        defer: Callable[[Callable[[], None]], None],
        on_ready: Callable[[int], None],
        on_impatient: Callable[[int], None],
        random: Random,
    ) -> None:
        self._poller = poller
        self._connect = connect
        self._locate = locate
        self._defer = defer
        self._on_ready = on_ready
        self._on_impatient = on_impatient
        self._random = random
        self._links: dict[int, Link] = {}
        self._by_connection: dict[Connection, Link] = {}
        self._pending = PendingRequests()
        self._ids = itertools.count(1)
        self._closed: TailraceError | None = None

    # ---------------------------------------------------------------- sending

    def next_id(self) -> int:
        """A request id that was not used before; from any thread."""
        return next(self._ids)

    def request(
        self,
        destination: int,
        request_id: int,
        header: bytes,
        frames: Sequence[Frame],
        *,
        on_reply: ReplyHandler,
        timeout_s: float,
        now: float,
    ) -> None:
        """Send, or keep until it can be sent. `on_reply` is called exactly once, later."""
        pending = Pending(
            request_id, destination, header, frames, on_reply=on_reply, since=now, deadline=now + timeout_s
        )
        self._pending.add(pending)
        if self._closed is not None:
            self._fail(pending, self._closed)
            return
        link = self._link(destination)
        connection = link.connection
        free = link.ready and not link.unsent
        if free and connection is not None and connection.send(header, frames):
            pending.mark_sent()
            return
        self._enqueue(link, pending, now)

    def tell(self, destination: int, header: bytes, frames: Sequence[Frame], now: float) -> bool:
        """Send what gets no reply, if that can be done at once. If not, a connection is made: try again."""
        link = self._link(destination)
        if link.ready and not link.unsent and link.connection is not None:
            return link.connection.send(header, frames)
        if link.connection is None and now >= link.reopen_at and self._closed is None:
            self._open(link, now)
        return False

    def _link(self, destination: int) -> Link:
        link = self._links.get(destination)
        if link is None:
            link = self._links[destination] = Link(destination, self._random)
        return link

    def _enqueue(self, link: Link, pending: Pending, now: float) -> None:
        if len(link.unsent) >= UNSENT_REQUESTS_MAX:
            self._fail(pending, BusyError(f"{link}: {UNSENT_REQUESTS_MAX} requests wait to be sent already"))
            return
        link.unsent.append(pending.request_id)
        if link.connection is None and now >= link.reopen_at:
            self._open(link, now)

    def _flush(self, link: Link) -> None:
        """Send what waits, in its order, until the connection takes no more."""
        connection = link.connection
        while connection is not None and link.ready and link.unsent:
            pending = self._pending.get(link.unsent[0])
            if pending is not None and pending.header is not None:
                if not connection.send(pending.header, pending.frames):
                    return
                pending.mark_sent()
            link.unsent.popleft()

    # -------------------------------------------------------------- receiving

    def receive(self, connection: Connection, now: float) -> None:
        """The poller says that something happened on a connection."""
        link = self._by_connection.get(connection)
        if link is None:
            return
        state = connection.update()
        if state is ConnectionState.READY and not link.ready:
            link.ready = True
            link.patience_s = CONNECT_PATIENCE_MS_FIRST / 1000
            self._on_ready(link.destination)
        if state is ConnectionState.LOST:
            self._lose(link, connection, "the connection was lost", now)
            return
        self._receive_replies(link, connection, RECEIVE_BURST_MESSAGES)
        if link.unsent:
            self._flush(link)

    def _receive_replies(self, link: Link, connection: Connection, at_most: int) -> None:
        received = 0
        while received < at_most:
            message = connection.receive()
            if message is None:
                break
            received += 1
            header, frames = message
            request_id, reply = _read(header)
            pending = self._pending.get(request_id)
            if pending is not None and pending.destination == link.destination:
                self._pending.take(request_id)
                pending.on_reply(reply, frames)
            elif isinstance(reply, TailraceError):
                _log.warning("%s sent a reply that cannot be read: %s", link, reply)
        if received:
            link.backoff.reset()

    # -------------------------------------------------- opening, losing, moving

    def tick(self, now: float) -> float | None:
        """Do what is due; when there will be something again, in monotonic seconds."""
        for pending in self._pending.take_expired(now):
            self._expire(pending, now)
        due = self._pending.next_deadline()
        for link in self._links.values():
            link_due = self._tick_link(link, now)
            if link_due is not None and (due is None or link_due < due):
                due = link_due
        return due

    def relocate(self, now: float) -> None:
        """Nodes may have moved, come or gone."""
        for link in self._links.values():
            location = self._locate(link.destination)
            if isinstance(location, TailraceError):
                if not link.ready:
                    self._drop(link)
                    self._fail_unsent(link, location)
            elif link.connection is not None and link.location != location:
                self._lose(link, link.connection, "it has another address now", now)
                link.reopen_at = now

    def close(self, error: TailraceError) -> None:
        """Close every connection. What was not answered gets `error`, and so does every later request."""
        self._closed = error
        for link in self._links.values():
            self._drop(link)
        for pending in self._pending.take_all():
            self._fail(pending, error)

    def _tick_link(self, link: Link, now: float) -> float | None:
        while link.unsent and self._pending.get(link.unsent[0]) is None:
            link.unsent.popleft()
        if link.connection is not None and link.connection.state is ConnectionState.LOST:
            self._lose(link, link.connection, "the connection was lost", now)
        if link.connection is None:
            if not link.unsent:
                return None
            if now < link.reopen_at:
                return link.reopen_at
            self._open(link, now)
            return link.patient_until
        if not link.ready:
            if now >= link.patient_until:
                self._lose_patience(link, now)
            return link.patient_until
        if not link.unsent:
            return None
        self._flush(link)
        return now + FULL_QUEUE_PAUSE_S if link.unsent else None

    def _open(self, link: Link, now: float) -> None:
        location = self._locate(link.destination)
        if isinstance(location, TailraceError):
            self._fail_unsent(link, location)
            return
        link.location = location
        link.endpoint = location if isinstance(location, str) else choose(location)
        link.connection = self._connect(link.endpoint)
        link.ready = False
        link.patient_until = now + link.patience_s
        self._by_connection[link.connection] = link
        self._poller.add(link.connection)

    def _lose_patience(self, link: Link, now: float) -> None:
        """Not connected for long: go on, unless the same endpoint is still the one to use."""
        link.patience_s = min(link.patience_s * 2, CONNECT_PATIENCE_MS_MAX / 1000)
        link.patient_until = now + link.patience_s
        self._on_impatient(link.destination)
        location = self._locate(link.destination)
        if isinstance(location, TailraceError):
            self._drop(link)
            self._fail_unsent(link, location)
        elif link.endpoint != (location if isinstance(location, str) else choose(location)):
            self._drop(link)
            self._open(link, now)

    def _lose(self, link: Link, connection: Connection, cause: str, now: float) -> None:
        # Replies that came before the end are still there to be read.
        self._receive_replies(link, connection, RECEIVE_HIGH_WATER_MESSAGES)
        error = ConnectionFailedError(f"{link}: {cause}")
        self._drop(link)
        link.reopen_at = now + link.backoff.pause()
        for pending in self._pending.take_sent(link.destination):
            self._fail(pending, error)

    def _drop(self, link: Link) -> None:
        connection, link.connection, link.ready = link.connection, None, False
        if connection is not None:
            del self._by_connection[connection]
            self._poller.remove(connection)
            connection.close()

    # ----------------------------------------------------------------- failing

    def _fail_unsent(self, link: Link, error: TailraceError) -> None:
        while link.unsent:
            pending = self._pending.take(link.unsent.popleft())
            if pending is not None:
                self._fail(pending, error)

    def _expire(self, pending: Pending, now: float) -> None:
        link, waited_s = self._links[pending.destination], now - pending.since
        if pending.sent:
            self._fail(pending, TimedOutError(f"{link} did not answer within {waited_s:.1f} s"))
        else:
            self._fail(pending, ConnectionFailedError(f"{link} could not be reached for {waited_s:.1f} s"))

    def _fail(self, pending: Pending, error: TailraceError) -> None:
        self._pending.take(pending.request_id)
        self._defer(lambda: pending.on_reply(error, []))


def _read(header: bytes) -> tuple[int, Reply | TailraceError]:
    """The request id of a reply, and the reply; a failure, or one that cannot be read, as an error."""
    try:
        reply = decode_reply(header)
    except TailraceError as error:
        return request_id_of(header), error
    if isinstance(reply, Failed):
        return reply.request_id, error_from(reply.error.code, reply.error.message)
    return reply.request_id, reply
