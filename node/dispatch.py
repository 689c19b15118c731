"""From a message off the wire to its handler; what fails on the way is answered, and hurts nobody else."""

import logging
from collections.abc import Callable
from typing import Any, Final

from tailrace.protocol.descriptor import descriptor_frame
from tailrace.protocol.errors import LocalPathError, TailraceError
from tailrace.protocol.local_messages import OpenArena, OpenPipes
from tailrace.protocol.messages import ACKS_NONE, DescribeLogs, Fetch, ListOffsets, NodeRequest, Ping, Produce
from tailrace.protocol.replica_messages import ReplicaAck, ReplicaFetch
from tailrace.protocol.wire import decode_node_request, failure, request_id_of
from tailrace.transport.complaints import Complaints
from tailrace.transport.peer_arenas import Payload
from tailrace.transport.server import Incoming

from .broker import Broker
from .handlers import (
    describe_logs,
    fetch,
    list_offsets,
    open_arena,
    open_pipes,
    ping,
    produce,
    replica_ack,
    replica_fetch,
)

logger: Final = logging.getLogger(__name__)

Handler = Callable[[Broker, bytes, Any, Payload, float], None]
HANDLERS: Final[dict[type, Handler]] = {
    Produce: produce.handle,
    Fetch: fetch.handle,
    ListOffsets: list_offsets.handle,
    DescribeLogs: describe_logs.handle,
    Ping: ping.handle,
    ReplicaFetch: replica_fetch.handle,
    ReplicaAck: replica_ack.handle,
}

HAND_OVERS: Final[dict[type, Callable[[Broker, Incoming, Any], None]]] = {
    OpenArena: open_arena.handle,
    OpenPipes: open_pipes.handle,
}
"""Their handlers have to know who has sent the message."""


class Dispatch:
    """Belongs to the network thread. `refusal`: with what everything is refused from now on."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._complaints = Complaints()
        self.refusal: TailraceError | None = None

    def receive(self, incoming: Incoming, now: float) -> None:
        """Decode and handle one request."""
        peer, header, _, _ = incoming
        try:
            request = decode_node_request(header)
        except TailraceError as error:
            self._complain(peer, error)
            self._broker.reply(peer, failure(request_id_of(header), error))
            return
        try:
            if self.refusal is not None:
                raise type(self.refusal)(*self.refusal.args)
            self._handle(incoming, request, now)
        except TailraceError as error:
            if not error.retriable:
                self._complain(peer, error)
            self._refuse(peer, request, error)
        except Exception as error:  # the edge: this request fails, the node lives on
            logger.exception("%s of peer %s failed", type(request).__name__, peer.hex())
            self._refuse(peer, request, TailraceError(f"internal error: {error!r}"))

    def _handle(self, incoming: Incoming, request: NodeRequest, now: float) -> None:
        hand_over = HAND_OVERS.get(type(request))
        if hand_over is not None:
            hand_over(self._broker, incoming, request)
            return
        peer, _, frames, _ = incoming
        descriptor = descriptor_frame(frames)
        payload = Payload(frames) if descriptor is None else self._broker.arenas.payload(peer, descriptor)
        HANDLERS[type(request)](self._broker, peer, request, payload, now)

    def _refuse(self, peer: bytes, request: NodeRequest, error: TailraceError) -> None:
        unanswered = isinstance(request, ReplicaAck) or (
            isinstance(request, Produce) and request.acks == ACKS_NONE
        )
        if not unanswered:
            self._broker.reply(peer, failure(request.request_id, error))

    def _complain(self, peer: bytes, error: TailraceError) -> None:
        if self._complaints.is_new(peer, error.code):
            # Without shared memory a client sends frames. Often it has just gone, with its memory.
            level = logging.INFO if isinstance(error, LocalPathError) else logging.WARNING
            logger.log(level, "peer %s: %s", peer.hex(), error)
