"""Follows the coordinator: asks it for snapshots and listens to what it publishes."""

import logging
from collections.abc import Callable, Sequence
from math import inf
from random import Random

from tailrace.protocol.cluster import Listener
from tailrace.protocol.cluster_copy import ClusterCopy
from tailrace.protocol.errors import ClosedError, TailraceError
from tailrace.protocol.limits import BEAT_SILENCE_MS_MAX, REFRESH_INTERVAL_MS_MIN, SNAPSHOT_TIMEOUT_MS
from tailrace.protocol.messages import GetSnapshot, Published, Reply, SnapshotTaken
from tailrace.protocol.wire import decode_published, encode
from tailrace.transport.endpoint import choose
from tailrace.transport.poller import Poller
from tailrace.transport.publisher import Subscriber

from .connections import Connections
from .link import COORDINATOR
from .pending import Frame
from .retry import Backoff

_log = logging.getLogger(__name__)


class Follower:
    """Keeps `copy` current. Belongs to the I/O thread.

    While the coordinator is away the last known state stays, and the search for it goes on.
    `refusal` is set while whoever answers at its address is no coordinator that we can talk to.
    """

    def __init__(
        self,
        *,
        copy: ClusterCopy,
        connections: Connections,
        poller: Poller,
        subscribe: Callable[[str], Subscriber],
        random: Random,
        clock: Callable[[], float],
    ) -> None:
        self._copy = copy
        self._connections = connections
        self._poller = poller
        self._subscribe = subscribe
        self._clock = clock
        self._backoff = Backoff(random)
        self._publisher = Listener("")
        self._subscriber: Subscriber | None = None
        self._heard_at = 0.0
        self.wanted = True
        """A snapshot taken after now is asked for."""
        self.due_at = -inf
        """`tick` has nothing to do before this (monotonic s), unless one is `wanted`. -inf: it may."""
        self.changed = False
        """The state is another one than when this was last set back."""
        self._asked = False
        self._ask_at = 0.0
        self.refusal: TailraceError | None = None
        self.cluster_id = ""
        """Of the cluster that was heard last; empty before the first snapshot."""
        self.unclean_elections = 0
        """As of the last snapshot."""

    def want_snapshot(self) -> None:
        """Ask for a snapshot taken after now, soon: REFRESH_INTERVAL_MS_MIN bounds how often. Any thread."""
        self.wanted = True

    def tick(self, now: float) -> None:
        """Ask if it is time to."""
        self.due_at = inf
        if self._subscriber is not None:
            if now >= self._heard_at + BEAT_SILENCE_MS_MAX / 1000:
                _log.info("no beat from %s: subscribing anew", self._subscriber.endpoint)
                self._subscribe_to(self._publisher, now)
            self.due_at = self._heard_at + BEAT_SILENCE_MS_MAX / 1000
        if self._asked or not (self.wanted or self._copy.behind):
            return
        if now < self._ask_at:
            self.due_at = min(self.due_at, self._ask_at)
        else:
            self._ask(now)

    def receive(self, now: float) -> None:
        """The poller says that the subscriber has something."""
        if self._subscriber is None:
            return
        self._heard_at = now
        self.due_at = -inf
        messages: list[Published] = []
        while (data := self._subscriber.receive()) is not None:
            try:
                messages.append(decode_published(data))
            except TailraceError as error:
                _log.warning("%s published what cannot be read: %s", self._subscriber.endpoint, error)
                self.wanted = True
        if self._copy.take_published(messages).moved:
            self.changed = True

    def take_reply(self, reply: Reply | TailraceError) -> None:
        """What came of a `GetSnapshot`, whoever asked."""
        now = self._clock()
        self.due_at = -inf
        if isinstance(reply, SnapshotTaken):
            self._take_snapshot(reply, now)
            return
        if isinstance(reply, ClosedError):
            return
        if isinstance(reply, TailraceError) and reply.retriable:
            _log.debug("no snapshot: %s", reply)
        else:
            self.refusal = reply if isinstance(reply, TailraceError) else TailraceError(f"it sent {reply!r}")
            # Who has never got an answer is told by the error of every call.
            level = logging.WARNING if self._copy.known else logging.INFO
            _log.log(level, "the coordinator's address refuses to tell the cluster state: %s", self.refusal)
        self.wanted = True
        self._ask_at = now + self._backoff.pause()

    def close(self) -> None:
        """Close the subscriber."""
        subscriber, self._subscriber = self._subscriber, None
        if subscriber is not None:
            self._poller.remove(subscriber)
            subscriber.close()

    def _ask(self, now: float) -> None:
        self._asked = True
        self.wanted = False
        self._ask_at = now + REFRESH_INTERVAL_MS_MIN / 1000
        request_id = self._connections.next_id()
        self._connections.request(
            COORDINATOR,
            request_id,
            encode(GetSnapshot(request_id)),
            (),
            on_reply=self._answered,
            timeout_s=SNAPSHOT_TIMEOUT_MS / 1000,
            now=now,
        )

    def _answered(self, reply: Reply | TailraceError, _frames: Sequence[Frame]) -> None:
        self._asked = False
        self.take_reply(reply)

    def _take_snapshot(self, taken: SnapshotTaken, now: float) -> None:
        was, self.cluster_id = self.cluster_id, taken.cluster_id
        self.unclean_elections = taken.unclean_elections
        another = self._copy.known and was != taken.cluster_id
        if another:
            _log.warning("the coordinator's address is cluster %s's now, was %s's", taken.cluster_id, was)
        if self._copy.take_snapshot(taken.snapshot, afresh=another).moved:
            self.changed = True
        self.refusal = None
        if self._copy.behind:
            self._ask_at = now + self._backoff.pause()
        else:
            self._backoff.reset()
        if self._subscriber is None or taken.publisher != self._publisher:
            self._subscribe_to(taken.publisher, now)

    def _subscribe_to(self, publisher: Listener, now: float) -> None:
        """What is published before the subscription is known there is missed, so a snapshot follows."""
        self.close()
        self._publisher = publisher
        self._subscriber = self._subscribe(choose(publisher))
        self._poller.add(self._subscriber)
        self._heard_at = now
        self.wanted = True
