"""The connections of one client: one a destination, made when it is needed.

A lost connection is never used again: all that was given to it fails with ConnectionFailedError, in
the order in which it was given, since nobody knows what became of it. The one who asked decides
about asking again, and what is asked then goes over the next connection, in order again.
"""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from random import Random
from typing import Final

from tailrace.protocol.errors import (
    BusyError,
    ConnectionFailedError,
    MalformedRequestError,
    TailraceError,
)
from tailrace.protocol.limits import RECEIVE_BURST_MESSAGES, RECEIVE_HIGH_WATER_MESSAGES, UNSENT_REQUESTS_MAX
from tailrace.protocol.messages import Ping, Request
from tailrace.protocol.parts import Payload, joined
from tailrace.protocol.wire import encode
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.pipes import Pipes
from tailrace.transport.poller import Poller

from .link import SILENT_LOOKS_MAX, Link, Links, Location
from .local_path import OPEN_TIMEOUT_S, LocalPath, Told
from .pending import Frame, Pending, PendingRequests, ReplyHandler, read_reply
from .piped_replies import PipedReplies

LAST_WORDS_MS: Final = 2_000
"""What nobody answers (acks=0) gets so long to leave when a client is closed."""

_log = logging.getLogger(__name__)


class Connections:
    """Sends requests, hands out replies. Belongs to the I/O thread.

    `locate` tells where a destination is, or why it is nowhere. `defer` runs an action soon in the I/O
    thread: what fails inside `request` is told that way, since no handler is called in it. `on_ready` is told
    which destination can be talked to now, `on_impatient` which could not be connected to for long.
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
        self.links = Links(random)
        self._by_source: dict[Connection | Pipes, Link] = {}
        self._pending = PendingRequests()
        self.piped = PipedReplies(poller, self._pending)
        self.next_id: Callable[[], int] = itertools.count(1).__next__
        """A request id that was not used before; from any thread."""
        self._closed: TailraceError | None = None
        self.due_at = inf
        """`advance` has nothing to do before this (monotonic s). -inf: something has happened, so it may."""

    # ---------------------------------------------------------------- sending

    def request(
        self,
        destination: int,
        request_id: int,
        header: bytes,
        frames: Sequence[Payload],
        *,
        on_reply: ReplyHandler,
        timeout_s: float,
        now: float,
        reply_bytes: int = 0,
        swift: bool = False,
        sent: bool = False,
    ) -> None:
        """Send, or keep until it can be sent. `on_reply` is called once, later; for `swift` see `Pending`.

        `sent`: it is in the pipe.
        """
        pending = Pending(
            request_id, destination, header, frames, on_reply, now, now + timeout_s, reply_bytes, swift
        )
        self._pending.add(pending)  # before it is on its way: another thread may read its reply
        link = self.links[destination]
        if sent:
            pending.mark_sent()
            link.owed += 1
        else:
            sent = link.ready and not link.unsent and self._transmit(link, pending, now)
        if pending.deadline < self.due_at:
            self.due_at = pending.deadline
        if self._closed is not None:
            self._fail_later(pending, self._closed)
        elif not sent:
            self._enqueue(link, pending, now)

    def tell(self, destination: int, header: bytes, frames: Sequence[Payload], now: float) -> bool:
        """Send what gets no reply, if that can be done at once. If not, a connection is made: try again."""
        link = self.links[destination]
        if link.ready and not link.unsent and link.connection is not None:
            payload = list(map(joined, frames))
            if link.pipe(header, payload, first=not link.owed):
                return True
            link.told = True
            if link.connection.send(header, payload):
                return True
            self.due_at = -inf
        if link.connection is None and now >= link.reopen_at and self._closed is None:
            self._open(link, now)
        return False

    def _enqueue(self, link: Link, pending: Pending, now: float) -> None:
        if len(link.unsent) >= UNSENT_REQUESTS_MAX:
            many = f"{UNSENT_REQUESTS_MAX} requests wait to be sent already"
            self._fail_later(pending, BusyError(f"{link}: {many}"))
            return
        link.unsent.append(pending.request_id)
        self.due_at = -inf
        if link.connection is None and now >= link.reopen_at:
            self._open(link, now)

    def _flush(self, link: Link, now: float) -> None:
        """Send what waits, in its order, until the connection takes no more."""
        while link.connection is not None and link.ready and link.unsent:
            pending = self._pending.get(link.unsent[0])
            if pending is not None and not pending.sent and not self._transmit(link, pending, now):
                return
            link.unsent.popleft()

    def _transmit(self, link: Link, pending: Pending, now: float) -> bool:
        """Hand a request to its connection, if that takes it."""
        connection, path, frames = link.connection, link.path, pending.frames
        if connection is None or pending.header is None:
            return False
        if path is not None and (frames or pending.reply_bytes) and path.worth(pending):
            if path.untried:
                path.open_arena(now)
            frames = path.outgoing(pending)
        header, payload = pending.header, list(map(joined, frames))
        link.owed += 1  # as above
        if not (link.pipe(header, payload, first=link.owed == 1) or connection.send(header, payload)):
            link.answered()
            if path is not None:
                path.withdraw(pending.request_id)
            self.due_at = -inf
            return False
        pending.mark_sent()
        return True

    def _ask(
        self, node: int, request: Callable[[int], Request], told: Told, now: float, *, overtakes: bool = False
    ) -> None:
        """Something of our own: whatever the answer, it is heard."""
        request_id = self.next_id()
        header, on_reply = encode(request(request_id)), lambda reply, _frames: told(reply)
        sent = overtakes and self.links[node].overtake(header)
        self.request(
            node, request_id, header, (), on_reply=on_reply, timeout_s=OPEN_TIMEOUT_S, now=now, sent=sent
        )

    def _watch(self, link: Link, pipes: Pipes) -> None:
        self._by_source[pipes] = link
        self.piped.watch(pipes, link)

    # -------------------------------------------------------------- receiving

    def receive(self, source: Connection | Pipes, now: float) -> None:
        """The poller says that something happened on a connection, or came through a pipe."""
        link = self._by_source.get(source)
        if link is None:
            return
        # What has come is read first. If the connection's state has changed too, the poller says so again.
        if isinstance(source, Pipes):
            self._receive_piped(link)
        elif not (link.ready and self._receive_replies(link, source, RECEIVE_BURST_MESSAGES)):
            state = source.update()
            if state is ConnectionState.READY and not link.ready:
                link.connected(now)
                self.due_at = -inf
                if link.local:
                    link.path = LocalPath(str(link), partial(self._ask, link.destination))
                    link.path.open_pipes(partial(self._watch, link), now)
                self._on_ready(link.destination)
            elif state is ConnectionState.LOST:
                self._lose(link, source, "the connection was lost", now)
                return
        if link.unsent:
            self._flush(link, now)

    def take_over(self, now: float) -> None:
        """Go on with what the application's thread has begun to read."""
        for pipes in self.piped.take_over():
            self.receive(pipes, now)

    def _receive_replies(self, link: Link, connection: Connection, at_most: int) -> int:
        """How many there were. Not looked for where none can be: that costs more than to receive one."""
        received = 0
        while received < at_most and (link.owed or not received):
            message = connection.receive()
            if message is None:
                break
            received += 1
            self._receive_piped(link)  # it was sent before
            self._take_reply(link, *message)
        if received:
            link.backoff.reset()
        return received

    def _receive_piped(self, link: Link) -> None:
        """Take what came through the pipe, if there is one. What cannot be read ends the connection."""
        if link.path is None or link.path.pipes is None or link.connection is None:
            return
        try:
            messages = self.piped.receive(link.path.pipes)
        except MalformedRequestError as error:
            _log.warning("%s: %s", link, error)
            link.connection.give_up()
            self.due_at = -inf
            return
        for header, frames in messages:
            self._take_reply(link, header, frames)
        if messages:
            link.backoff.reset()

    def _take_reply(self, link: Link, header: bytes, payload: list[bytes]) -> None:
        link.answered()
        frames: Sequence[Frame] = payload
        request_id, reply, readable = read_reply(header)
        if link.path is not None:
            try:
                frames = link.path.incoming(request_id, payload)
            except TailraceError as error:
                reply, frames = error, []
        pending = self._pending.take_answered(request_id, link.destination)
        if pending is not None:
            pending.on_reply(reply, frames)
        elif not readable:
            _log.warning("%s sent a reply that cannot be read: %s", link, reply)

    # -------------------------------------------------- opening, losing, moving

    def advance(self, now: float) -> None:
        """Do what is due by time."""
        if now < self.due_at:
            return
        for pending in self._pending.take_expired(now):
            pending.on_reply(pending.expiry(str(self.links[pending.destination]), now), [])
        for link in tuple(self.links.values()):
            self._advance_link(link, now)
        self._settle(now)

    def due(self, now: float) -> float:
        """When `advance` will have something to do, in monotonic seconds; infinity if nothing."""
        if self.due_at == -inf:
            self._settle(now)
        return self.due_at

    def _settle(self, now: float) -> None:
        self.due_at = min([self._pending.next_deadline(), *(link.due(now) for link in self.links.values())])

    def relocate(self, now: float) -> None:
        """Nodes may have moved, come or gone."""
        for link in tuple(self.links.values()):
            location = self._locate(link.destination)
            if isinstance(location, TailraceError):
                if not link.ready:
                    self._give_up(link, location)
            elif link.connection is not None and link.location.where != location.where:
                self._lose(link, link.connection, "it has another address now", now)
                link.reopen_at = now
            elif not link.ready and link.location.epoch != location.epoch:
                # Started again: now is better than whenever the next attempt would have come.
                self._drop(link)
                link.reopen_at = now

    def close(self, error: TailraceError) -> None:
        """Close every connection. What was not answered gets `error`, and so does every later request."""
        self._closed = error
        for link in self.links.values():
            self._drop(link, LAST_WORDS_MS if link.told and link.ready else 0)
        for pending in self._pending.take_all():
            self._fail_later(pending, error)

    def _advance_link(self, link: Link, now: float) -> None:
        while link.unsent and self._pending.get(link.unsent[0]) is None:
            link.unsent.popleft()
        connection = link.connection
        if connection is None:
            if link.unsent and now >= link.reopen_at:
                self._open(link, now)
        elif connection.state is ConnectionState.LOST:
            self._lose(link, connection, "the connection was lost", now)
        elif not link.ready:
            if now >= link.patient_until:
                self._try_elsewhere(link, now)
        elif now >= link.look_at:
            self._look_at(link, connection, now)
        elif link.unsent:
            self._flush(link, now)

    def _look_at(self, link: Link, connection: Connection, now: float) -> None:
        """A process that hangs keeps its connections: only silence tells."""
        link.look(connection.passed(), now)
        if link.silent_looks == SILENT_LOOKS_MAX:
            self._lose(link, connection, "it has answered nothing for some seconds", now)
        elif link.silent_looks == 1:
            self._ask(link.destination, Ping, lambda _: None, now, overtakes=True)

    def _open(self, link: Link, now: float) -> None:
        location = self._locate(link.destination)
        if isinstance(location, TailraceError):
            self._defer(partial(self._give_up, link, location))
            return
        self.due_at = -inf
        link.location = location
        link.endpoint = location.endpoint()
        try:
            link.connection = self._connect(link.endpoint)
        except ConnectionFailedError as error:
            self._defer(partial(self._give_up, link, error))
            return
        link.be_patient(now)
        self._by_source[link.connection] = link
        self._poller.add(link.connection)

    def _try_elsewhere(self, link: Link, now: float) -> None:
        """Not connected for long. An attempt goes on while its endpoint is still the one to use."""
        link.be_more_patient(now)
        self._on_impatient(link.destination)
        location = self._locate(link.destination)
        if isinstance(location, TailraceError):
            self._give_up(link, location)
        elif link.endpoint != location.endpoint():
            self._drop(link)
            self._open(link, now)

    def _lose(self, link: Link, connection: Connection, cause: str, now: float) -> None:
        # Replies that came before the end are still there to be read.
        self._receive_piped(link)
        self._receive_replies(link, connection, RECEIVE_HIGH_WATER_MESSAGES)
        error = ConnectionFailedError(f"{link}: {cause}")
        was_ready = link.ready
        self._drop(link)
        link.reopen_at = now + link.backoff.pause()
        lost = self._pending.take_sent(link.destination)
        if was_ready:
            lost += self._take_unsent(link)
        for pending in lost:
            pending.on_reply(error, [])

    def _drop(self, link: Link, linger_ms: int = 0) -> None:
        connection, link.connection, link.ready = link.connection, None, False
        link.owed, link.told, link.piped = 0, False, False
        self.due_at = -inf
        if connection is not None:
            del self._by_source[connection]
            self._poller.remove(connection)
            connection.close(linger_ms)
        if link.path is not None:
            if link.path.pipes is not None:
                del self._by_source[link.path.pipes]
                self.piped.forget(link.path.pipes)
            link.path.close()
            link.path = None

    # ----------------------------------------------------------------- failing

    def _give_up(self, link: Link, error: TailraceError) -> None:
        """Nowhere to send to."""
        self._drop(link)
        link.missing_since = inf
        for pending in self._take_unsent(link):
            pending.on_reply(error, [])

    def _take_unsent(self, link: Link) -> list[Pending]:
        ids, link.unsent = link.unsent, deque()
        return [pending for request_id in ids if (pending := self._pending.take(request_id)) is not None]

    def _fail_later(self, pending: Pending, error: TailraceError) -> None:
        self._pending.take(pending.request_id)
        self._defer(partial(pending.on_reply, error, []))
