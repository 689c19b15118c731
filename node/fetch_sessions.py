"""Fetch sessions: what clients wait for, of which each fetch names only what has changed. Pure. (KIP-227)

A session's `entries` are the partitions that its client wants to have read. One leaves the session with
its answer, batches or an error, and is back when a later fetch names it again, from where it goes on. So
both sides know what is in it, and a fetch costs in proportion to what it names and to what there is to read,
a commit to the sessions that wait for the partitions it moved; neither to all that wait.

A fetch without a session (number 0) has one of its own, which ends with the reply. Time is an argument, in
seconds of any monotonic clock.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from math import inf

from tailrace.protocol.errors import BusyError, RequestTooLargeError, UnknownFetchSessionError
from tailrace.protocol.limits import PARTITIONS_PER_REQUEST_MAX
from tailrace.protocol.messages import Fetch, FetchEntry
from tailrace.transport.deadlines import Deadlines

from .fetch_reply import Slot
from .storage.partition_log import PartitionKey


class FetchSession:
    """`request` is the fetch that has no reply yet: one at a time; its batches may go into `slot`. While
    it is parked, it is due at `deadline`, or once `missing_bytes` were appended.

    `ready` are the entries that may have batches or an error to tell, the one whose turn it is first.
    """

    __slots__ = (
        "deadline", "entries", "epoch", "missing_bytes", "number", "parked", "peer", "ready", "request",
        "slot", "ticket",
    )  # fmt: skip

    def __init__(self, peer: bytes, number: int, ticket: int) -> None:
        self.peer = peer
        self.number = number
        self.ticket = ticket
        self.epoch = 0
        self.entries: dict[PartitionKey, FetchEntry] = {}
        self.ready: dict[PartitionKey, None] = {}
        self.request: Fetch | None = None
        self.deadline = 0.0
        self.slot: Slot | None = None
        self.parked = False
        self.missing_bytes = 0


class FetchSessions:
    """At most `sessions_max` sessions that wait for at most `entries_max` partitions, all taken together.

    Where one finds no room, those that have rested longest are forgotten: their clients will begin anew.
    """

    def __init__(self, *, sessions_max: int, entries_max: int) -> None:
        self._sessions_max = sessions_max
        self._entries_max = entries_max
        self._numbered: dict[bytes, dict[int, FetchSession]] = {}
        self._resting: OrderedDict[int, FetchSession] = OrderedDict()
        """Those without a request, by ticket."""
        self._parked: dict[int, FetchSession] = {}
        self._watching: dict[PartitionKey, dict[int, FetchSession]] = {}
        self._deadlines = Deadlines(self._parked)
        self._replaced: list[FetchSession] = []
        self._tickets = 0
        self._count = 0
        self._entries = 0

    def __len__(self) -> int:
        return self._count

    # ------------------------------------------------------------------ a fetch

    def ask(
        self,
        peer: bytes,
        request: Fetch,
        *,
        deadline: float,
        slot: Slot | None,
        has_news: Callable[[FetchEntry], bool],
    ) -> FetchSession:
        """A fetch has come; what it names is in its session now. `has_news`: is there something to tell?

        `take_replaced` must follow, whatever comes of this. Raises UnknownFetchSessionError, which leaves all
        as it is; BusyError, RequestTooLargeError: the session is over then.
        """
        session = self._continued(peer, request) if request.epoch else self._begun(peer, request.session)
        session.request, session.epoch = request, request.epoch
        session.deadline, session.slot = deadline, slot
        named = {(entry.topic_id, entry.partition): entry for entry in request.entries}
        try:
            self._make_room(session, len(named.keys() - session.entries.keys()))
        except (BusyError, RequestTooLargeError):
            self.end(session)
            raise
        for key, entry in named.items():
            if key not in session.entries:
                self._watching.setdefault(key, {})[session.ticket] = session
                self._entries += 1
            session.entries[key] = entry
            session.ready.pop(key, None)
            if has_news(entry):
                session.ready[key] = None
        return session

    def take_replaced(self) -> list[FetchSession]:
        """The sessions whose fetches were parked, and are due now: others have begun in their place."""
        replaced, self._replaced = self._replaced, []
        return replaced

    def park(self, session: FetchSession, missing_bytes: int) -> None:
        """The fetch waits: for so many bytes, a change, or its deadline."""
        session.missing_bytes = missing_bytes
        session.parked = True
        self._parked[session.ticket] = session
        self._deadlines.add(session.ticket, session.deadline)

    def answered(self, session: FetchSession, keys: Iterable[PartitionKey]) -> None:
        """The fetch gets its reply, which speaks of these partitions."""
        session.request = session.slot = None
        if session.number:
            for key in keys:
                if session.entries.pop(key, None) is not None:
                    session.ready.pop(key, None)
                    self._unwatch(session, key)
            if session.entries:
                self._resting[session.ticket] = session
                return
        self.end(session)

    def end(self, session: FetchSession) -> None:
        """Nothing is left of it. Once more does nothing."""
        numbered = self._numbered.get(session.peer, {})
        if numbered.get(session.number) is session:
            del numbered[session.number]
            if not numbered:
                del self._numbered[session.peer]
        for key in session.entries:
            self._unwatch(session, key)
        session.entries.clear()
        session.ready.clear()
        self._resting.pop(session.ticket, None)
        if session.parked:
            self._unpark(session)
        if session.ticket >= 0:
            self._count -= 1
            session.ticket = -1

    # ----------------------------------------------------------------- what happens

    def appended(self, sizes: Mapping[PartitionKey, int]) -> list[FetchSession]:
        """So many bytes were appended to these partitions: the sessions whose fetches have enough now."""
        woken: list[FetchSession] = []
        for key, size in sizes.items():
            for session in self._watching.get(key, {}).values():
                session.ready[key] = None
                if session.parked:
                    session.missing_bytes -= size
                    if session.missing_bytes <= 0:
                        woken.append(self._unpark(session))
        return woken

    def changed(self, keys: Iterable[PartitionKey]) -> list[FetchSession]:
        """These partitions are led anew, or no longer, or were deleted: whose fetches wait for them."""
        woken: list[FetchSession] = []
        for key in keys:
            for session in self._watching.get(key, {}).values():
                session.ready[key] = None
                if session.parked:
                    woken.append(self._unpark(session))
        return woken

    def expired(self, now: float) -> list[FetchSession]:
        """The sessions whose fetches have waited enough."""
        return [self._unpark(self._parked[ticket]) for ticket in self._deadlines.due(now)]

    def next_deadline(self) -> float:
        """When `expired` has something to say; infinity: never."""
        return self._deadlines.next()

    def gone(self, peers: Iterable[bytes]) -> None:
        """These connections have ended: their sessions end, with the reply of a fetch that has none yet."""
        for peer in peers:
            for session in self._numbered.pop(peer, {}).values():
                session.number = 0
                if session.request is None:
                    self.end(session)

    def remove_all(self) -> list[FetchSession]:
        """The node stops: the sessions whose fetches are parked."""
        return [self._unpark(session) for session in tuple(self._parked.values())]

    # ------------------------------------------------------------------ inside

    def _begun(self, peer: bytes, number: int) -> FetchSession:
        before = self._numbered.get(peer, {}).get(number)
        if before is not None:
            self._replace(before)
        self._tickets += 1
        session = FetchSession(peer, number, self._tickets)
        self._count += 1
        if number:
            self._numbered.setdefault(peer, {})[number] = session
        return session

    def _replace(self, session: FetchSession) -> None:
        """It is over, with the reply of a fetch that has none yet."""
        if session.request is None:
            self.end(session)
            return
        session.number = 0
        if session.parked:
            session.deadline = -inf
            self._replaced.append(self._unpark(session))

    def _continued(self, peer: bytes, request: Fetch) -> FetchSession:
        number = request.session
        session = self._numbered.get(peer, {}).get(number)
        if session is None:
            raise UnknownFetchSessionError(f"no fetch session {number} of this connection; begin anew")
        if session.request is not None or request.epoch != session.epoch + 1:
            raise UnknownFetchSessionError(
                f"fetch session {number} is at {session.epoch}, not before {request.epoch}; begin anew"
            )
        del self._resting[session.ticket]
        return session

    def _make_room(self, session: FetchSession, more: int) -> None:
        size = len(session.entries) + more
        if size > PARTITIONS_PER_REQUEST_MAX:
            raise RequestTooLargeError(
                f"a fetch session of {size} partitions, at most {PARTITIONS_PER_REQUEST_MAX}"
            )
        while self._count > self._sessions_max or self._entries + more > self._entries_max:
            if not self._resting:
                raise BusyError(
                    f"{self._count} fetches wait for {self._entries} partitions already; retry later"
                )
            self.end(next(iter(self._resting.values())))

    def _unwatch(self, session: FetchSession, key: PartitionKey) -> None:
        self._entries -= 1
        watching = self._watching[key]
        del watching[session.ticket]
        if not watching:
            del self._watching[key]

    def _unpark(self, session: FetchSession) -> FetchSession:
        session.parked = False
        self._parked.pop(session.ticket, None)
        return session
