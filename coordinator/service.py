"""Bursts of requests: decided one by one, stored in one transaction, then published, then answered."""

import logging
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from tailrace.protocol.errors import LimitExceededError, MalformedRequestError, TailraceError
from tailrace.protocol.group_messages import CommitOffsets
from tailrace.protocol.limits import HEADER_BYTES_MAX
from tailrace.protocol.messages import Beat, Reply
from tailrace.protocol.wire import decode_coordinator_request, encode, failure, request_id_of
from tailrace.transport.complaints import Complaints
from tailrace.transport.server import Incoming

from .machine import Machine, Outcome
from .store.interface import GroupStore, Store

logger: Final = logging.getLogger(__name__)


class Service:
    """Runs a Machine on its stores. `publish` and `reply` send; `reply` returns False if the peer is gone.

    Times are `now`, seconds of a monotonic clock, and `wall_ms`, milliseconds since 1970.
    """

    def __init__(
        self,
        machine: Machine,
        store: Store,
        group_store: GroupStore,
        publish: Callable[[bytes], None],
        reply: Callable[[bytes, bytes], bool],
        *,
        new_id: Callable[[], bytes] = lambda: uuid.uuid4().bytes,
    ) -> None:
        self._machine = machine
        self._store = store
        self._group_store = group_store
        self._publish = publish
        self._reply = reply
        self._new_id = new_id
        self._complaints = Complaints()

    def serve(
        self, burst: Sequence[Incoming], now: float, wall_ms: int, gone: Collection[bytes] = ()
    ) -> None:
        """Handle requests that came in together. Raises StorageFaultError: then stop.

        The connections of `gone` have ended. What they ask is done, but for commits of offsets: who sent one
        takes it for lost, and may have committed more over the next connection, which was read first.
        """
        outcomes = [self._handle(incoming, now, wall_ms, gone) for incoming in burst]
        self._finish([*outcomes, self._machine.settle(now, wall_ms)])

    def gone(self, peers: Sequence[bytes], now: float, wall_ms: int) -> None:
        """Connections have ended. Raises StorageFaultError: then stop."""
        self._machine.gone(peers, now)
        self._finish([self._machine.settle(now, wall_ms)])

    def tick(self, now: float, wall_ms: int) -> None:
        """Handle what time brings. Raises StorageFaultError: then stop."""
        self._finish([self._machine.tick(now, wall_ms), self._machine.settle(now, wall_ms)])

    def beat(self) -> None:
        """Publish that the coordinator lives, and at which version."""
        cluster = self._machine.state.cluster
        self._publish(encode(Beat(cluster.controller_epoch, cluster.version)))

    def stop(self) -> None:
        """Tell those who wait that nobody will answer them any more."""
        self._finish([self._machine.stop()])

    def _handle(self, incoming: Incoming, now: float, wall_ms: int, gone: Collection[bytes]) -> Outcome:
        peer, header, frames, _ = incoming
        try:
            if frames:
                raise MalformedRequestError("a coordinator's request has no payload")
            request = decode_coordinator_request(header)
        except TailraceError as error:
            self._complain(peer, error)
            return Outcome(answers=((peer, failure(request_id_of(header), error)),))
        if isinstance(request, CommitOffsets) and peer in gone:
            return Outcome()
        return self._machine.ask(peer, request, self._new_id(), now, wall_ms)

    def _finish(self, outcomes: Iterable[Outcome]) -> None:
        """The order here is what the protocol promises: durable, then published, then answered."""
        outcomes = list(outcomes)
        updates = [outcome.update for outcome in outcomes if outcome.update is not None]
        private = [change for outcome in outcomes for change in outcome.private]
        if updates or private:
            self._store.commit(updates, private)
        if groups := [change for outcome in outcomes for change in outcome.groups]:
            self._group_store.commit(groups)
        for update in updates:
            self._publish(encode(update))
        for outcome in outcomes:
            for peer, reply in outcome.answers:
                if not self._reply(peer, _readable(reply)) and self._complaints.is_new(peer):
                    logger.info("peer %s is gone; its answers are dropped", peer.hex())
            for warning in outcome.warnings:
                logger.warning("%s", warning)
            for note in outcome.notes:
                logger.info("%s", note)

    def _complain(self, peer: bytes, error: TailraceError) -> None:
        if self._complaints.is_new(peer, error.code):
            logger.warning("peer %s sent a bad request: %s", peer.hex(), error)


def _readable(reply: Reply) -> bytes:
    """The header of a reply; of one that nobody may read, since it is too large, one that says so."""
    header = encode(reply)
    if len(header) <= HEADER_BYTES_MAX:
        return header
    error = LimitExceededError(f"the answer would have {len(header)} bytes, at most {HEADER_BYTES_MAX} fit")
    return encode(failure(reply.request_id, error))
