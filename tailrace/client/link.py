"""One destination of requests: where it is, its connection, and what waits for that."""

from collections import deque
from collections.abc import Sequence
from math import inf
from random import Random
from typing import Final, NamedTuple

from tailrace.protocol.cluster import Listener
from tailrace.protocol.limits import CONNECT_PATIENCE_MS_FIRST, CONNECT_PATIENCE_MS_MAX
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.endpoint import choose, why_apart
from tailrace.transport.server import Buffer

from .bootstrap import address
from .local_path import LocalPath
from .retry import Backoff

FULL_QUEUE_PAUSE_S: Final = 0.005
"""When a connection took no more, it is tried again after this, and after each of its replies."""
LOOK_INTERVAL_S: Final = 1.5
SILENT_LOOKS_MAX: Final = 3
"""At this many looks in a row at which nothing had come a connection is lost: after 4.5 to 6 s of silence, of
which the peer was given 3 to answer a ping. A part of a message that comes, or of one that waits to go, is
no silence. Counted in looks, since who was suspended itself has not waited for anybody."""
COORDINATOR: Final = -1
"""The destination that is no node."""
UNANSWERED: Final = "frames: with acks=0 nothing tells when shared memory is free again"


class Location(NamedTuple):
    """A fixed endpoint, or a node's listener in one of its epochs."""

    where: Listener | str
    epoch: int = 0

    def endpoint(self) -> str:
        """The endpoint to use now."""
        return self.where if isinstance(self.where, str) else choose(self.where)


class Link:
    """`connection` is there when one is needed or was; `ready` when it may be used.

    `path` is a node's over ipc; `told`: something went over this connection that nobody answers; `owed`:
    requests that were sent since it is there, and have no answer so far; `piped`: the last of them went
    through the path's pipe. `heard`: something has come since the last look, `passed` as of
    that (`transit.passed`); the next one is due at `look_at`.
    `unsent` are the ids of the requests that wait for it. While there is none, the next one is not
    made before `reopen_at`; one that is not ready is looked at again at `patient_until`.
    """

    def __init__(self, destination: int, random: Random) -> None:
        self.destination = destination
        self.connection: Connection | None = None
        self.ready = False
        self.path: LocalPath | None = None
        self.told = False
        self.owed = 0
        self.piped = False
        self.heard = False
        self.passed = 0
        self.silent_looks = 0
        self.look_at = inf
        self.location = Location("")
        self.endpoint = ""
        self.missing_since = inf
        """When it was first tried to connect, since it was there or nobody wanted it (monotonic s)."""
        self.unsent: deque[int] = deque()
        self.backoff = Backoff(random)
        self.reopen_at = 0.0
        self.patient_until = 0.0
        self._patience_s = CONNECT_PATIENCE_MS_FIRST / 1000

    def __str__(self) -> str:
        who = "the coordinator" if self.destination == COORDINATOR else f"node {self.destination}"
        return f"{who} at {address(self.endpoint)}" if self.endpoint else who

    def connected(self, now: float) -> None:
        """The handshake is done."""
        self.ready = self.heard = True
        self.missing_since = inf
        self.look_at = now + LOOK_INTERVAL_S
        self._patience_s = CONNECT_PATIENCE_MS_FIRST / 1000

    def answered(self) -> None:
        """One less is owed. The application's thread counts, too: no call between the look and the note."""
        self.heard = True
        if self.owed:
            self.owed -= 1

    def look(self, passed: int, now: float) -> None:
        """Count the looks at which nothing had come since the one before, nor had a part of it (`passed`)."""
        self.silent_looks = 0 if self.heard or passed != self.passed else self.silent_looks + 1
        self.heard, self.passed = False, passed
        self.look_at = now + LOOK_INTERVAL_S

    @property
    def local(self) -> bool:
        """Is it a node on this machine?"""
        return self.destination != COORDINATOR and self.endpoint.startswith("ipc://")

    @property
    def in_use(self) -> str:
        """How payloads travel, for people. Any thread."""
        path = self.path
        if path is None:
            where = self.location.where
            why = "" if isinstance(where, str) else why_apart(where)
            return f"frames over tcp: {why}" if why else "frames over tcp"
        return UNANSWERED if self.told else path.in_use

    def pipe(self, header: bytes, payload: Sequence[Buffer], *, first: bool) -> bool:
        """Send a message through the pipe, if there is one and it may go there. `first`: nothing is owed yet.

        It overtakes nobody there: one behind a message that has gone around the pipe follows that, until all
        are answered. Nothing tells when what has no answer has arrived: behind that, nothing is piped.
        """
        pipes = None if self.path is None else self.path.pipes
        self.piped = self.pipe_is_free(first=first) and pipes is not None and pipes.send(header, payload)
        return self.piped

    def overtake(self, header: bytes) -> bool:
        """Send what may come before all else, if there is a pipe and `pipe` would not. Nothing follows it."""
        pipes = None if self.path is None else self.path.pipes
        return pipes is not None and not self.pipe_is_free(first=not self.owed) and pipes.send(header, ())

    def pipe_is_free(self, *, first: bool) -> bool:
        """Would `pipe` take a small message, but for a full pipe?"""
        path = self.path
        return path is not None and path.pipes is not None and not self.told and (self.piped or first)

    def due(self, now: float) -> float:
        """When it is to be looked at (monotonic s); infinity: when something happens."""
        if self.connection is None:
            return self.reopen_at if self.unsent else inf
        if self.connection.state is ConnectionState.LOST:
            return now  # noticed while sending: the poller will not report it
        if not self.ready:
            return self.patient_until
        return min(now + FULL_QUEUE_PAUSE_S, self.look_at) if self.unsent else self.look_at

    def be_patient(self, now: float) -> None:
        """Begin to wait for the handshake."""
        self.missing_since = min(self.missing_since, now)
        self.patient_until = now + self._patience_s

    def be_more_patient(self, now: float) -> None:
        """It did not come in time: wait twice as long."""
        self._patience_s = min(self._patience_s * 2, CONNECT_PATIENCE_MS_MAX / 1000)
        self.be_patient(now)


class Links(dict[int, Link]):
    """By destination; each is made when it is first asked for."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    def paths(self) -> dict[int, str]:
        """How payloads travel to and from each connected node. Any thread."""
        return {
            link.destination: link.in_use
            for link in tuple(self.values())
            if link.ready and link.destination != COORDINATOR
        }

    def missing(self, since: float = inf) -> list[Link]:
        """Those that are wanted and not there, since then at the latest. Any thread: as of a moment."""
        return [
            link
            for link in tuple(self.values())
            if not link.ready and (link.unsent or link.connection is not None) and link.missing_since <= since
        ]

    def __missing__(self, destination: int) -> Link:
        link = self[destination] = Link(destination, self._random)
        return link
