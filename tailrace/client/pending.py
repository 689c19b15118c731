"""Requests that were not answered yet, when each stops waiting, and what an answer says."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from tailrace.protocol.errors import ConnectionFailedError, TailraceError, TimedOutError, error_from
from tailrace.protocol.messages import Failed, Reply
from tailrace.protocol.parts import Payload
from tailrace.protocol.text import span
from tailrace.protocol.wire import decode_reply, request_id_of
from tailrace.transport.deadlines import Deadlines

Frame: TypeAlias = bytes | bytearray | memoryview
ReplyHandler: TypeAlias = Callable[[Reply | TailraceError, Sequence[Frame]], None]
"""Gets the reply and its payload frames, or the error that came instead: never a `Failed`."""


class Pending(msgspec.Struct, eq=False):
    """One request. Its header and frames are kept only until it is sent.

    `since` is when it was made, `deadline` when it stops waiting (monotonic seconds); `reply_bytes` is how
    much payload its reply may have in shared memory. `swift`: a reply that is no error may be handled by the
    application's thread, and once more by the I/O thread if that was interrupted.
    """

    request_id: int
    destination: int
    header: bytes | None
    frames: Sequence[Payload]
    on_reply: ReplyHandler
    since: float
    deadline: float
    reply_bytes: int = 0
    swift: bool = False

    @property
    def sent(self) -> bool:
        """The request was handed to a connection."""
        return self.header is None

    def expiry(self, whom: str, now: float) -> TailraceError:
        """What it is told when nobody has answered in time."""
        waited_s = now - self.since
        if self.sent:
            return TimedOutError(f"{whom} did not answer within {span(waited_s)}")
        return ConnectionFailedError(f"{whom} could not be reached for {span(waited_s)}")

    def mark_sent(self) -> None:
        """Let go of the bytes."""
        self.header = None
        self.frames = ()


class PendingRequests:
    """Requests by id. The I/O thread's, but for what the application's `claim`s and finishes."""

    def __init__(self) -> None:
        self._requests: dict[int, Pending] = {}
        self._deadlines = Deadlines(self._requests)
        self._claimed: tuple[Pending, Reply, Sequence[Frame]] | None = None
        """What the application's thread handles, or was interrupted in."""

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, pending: Pending) -> None:
        """Wait for an answer until the request's deadline."""
        self._requests[pending.request_id] = pending
        self._deadlines.add(pending.request_id, pending.deadline)

    def get(self, request_id: int) -> Pending | None:
        """The request, which stays."""
        return self._requests.get(request_id)

    def take(self, request_id: int) -> Pending | None:
        """Remove and return the request; None if it was answered or given up before."""
        return self._requests.pop(request_id, None)

    def take_answered(self, request_id: int, destination: int) -> Pending | None:
        """As `take`, if it is this destination that was asked."""
        pending = self._requests.get(request_id)
        if pending is None or pending.destination != destination:
            return None
        return self._requests.pop(request_id, None)

    def claim(self, pending: Pending, reply: Reply, frames: Sequence[Frame]) -> bool:
        """It is answered: `finish_claimed` must follow. False if it was taken out meanwhile."""
        request_id, claimed = pending.request_id, (pending, reply, frames)
        self._claimed = claimed  # not a call from here on
        try:
            del self._requests[request_id]
        except KeyError:
            self._claimed = None
            return False
        return True

    def finish_claimed(self) -> None:
        """Tell of the answer, if there is one that its handler was not told, or not to the end."""
        claimed = self._claimed
        if claimed is not None:
            pending, reply, frames = claimed
            pending.on_reply(reply, frames)
            self._claimed = None

    def take_sent(self, destination: int) -> list[Pending]:
        """Remove the requests that a destination was given, oldest first."""
        requests = tuple(self._requests.values())  # one call: the application's thread may claim others
        found = [p for p in requests if p.destination == destination and p.sent]
        for pending in found:
            del self._requests[pending.request_id]
        return found

    def take_expired(self, now: float) -> list[Pending]:
        """Remove the requests whose deadline is not after `now`."""
        taken = (self._requests.pop(request_id, None) for request_id in self._deadlines.due(now))
        return [pending for pending in taken if pending is not None]

    def take_all(self) -> list[Pending]:
        """Remove everything, oldest first."""
        found = list(self._requests.values())
        self._requests.clear()
        return found

    def next_deadline(self) -> float:
        """When `take_expired` has something to do at the earliest (monotonic seconds; infinity: never)."""
        return self._deadlines.next()


def read_reply(header: bytes) -> tuple[int, Reply | TailraceError, bool]:
    """The request id of a reply, the reply (a failure as an error), and whether it could be read."""
    try:
        reply = decode_reply(header)
    except TailraceError as error:
        return request_id_of(header), error, False
    if isinstance(reply, Failed):
        return reply.request_id, error_from(reply.error.code, reply.error.message), True
    return reply.request_id, reply, True
