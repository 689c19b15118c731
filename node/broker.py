"""What the request handlers work with. Everything here belongs to the network thread; while that sleeps, to
the writer, which may answer for it (`Mailbox.deliver`)."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tailrace.protocol.limits import (
    FETCHES_PER_CLIENT_MAX,
    IN_FLIGHT_BYTES_MAX,
    IN_FLIGHT_BYTES_PER_CLIENT_MAX,
    PARKED_FETCHES_MAX,
    UNSENT_BYTES_MAX,
    UNSENT_BYTES_PER_CLIENT_MAX,
    UNSENT_REPLY_BYTES_MIN,
)
from tailrace.protocol.messages import Reply
from tailrace.protocol.wire import encode
from tailrace.transport.peer_arenas import PeerArenas
from tailrace.transport.peer_pipes import PeerPipes
from tailrace.transport.server import Buffer, Server

from .fetch_sessions import FetchSession, FetchSessions
from .leaders import Leaders
from .parked import ParkedFetches
from .quota import Quota
from .reader import Reader
from .replication.replication import Replication
from .storage.environment import Storage
from .unsent import Unsent
from .work import ToSend
from .writer import Writer

logger: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class Broker:
    """The node's parts, and its wall clock in milliseconds since 1970.

    `fetches` wait for the high watermark, `parked_replicas` for the end of the log; `reading` are those of
    `fetches` whose batches the reader thread reads, by connection and request.
    `produce_bytes` counts what waits for the writer, `fetch_slots` the fetches that wait for
    records or for the reader, `unsent` the fetched bytes that nobody has read yet. `arenas` is the memory
    that clients share with the node, `pipes` what their small messages go through.
    """

    server: Server
    storage: Storage
    writer: Writer
    reader: Reader
    fetches: FetchSessions
    parked_replicas: ParkedFetches
    replication: Replication
    wall_ms: Callable[[], int]
    pipes: PeerPipes
    leaders: Leaders = field(default_factory=Leaders)
    produce_bytes: Quota = field(
        default_factory=lambda: Quota(total_max=IN_FLIGHT_BYTES_MAX, peer_max=IN_FLIGHT_BYTES_PER_CLIENT_MAX)
    )
    fetch_slots: Quota = field(
        default_factory=lambda: Quota(total_max=PARKED_FETCHES_MAX, peer_max=FETCHES_PER_CLIENT_MAX)
    )
    unsent: Unsent = field(
        default_factory=lambda: Unsent(total_max=UNSENT_BYTES_MAX, peer_max=UNSENT_BYTES_PER_CLIENT_MAX)
    )
    arenas: PeerArenas = field(default_factory=PeerArenas)
    reading: dict[tuple[bytes, int], FetchSession] = field(default_factory=dict)
    send_later: Callable[[ToSend], None] | None = None
    """Set while another thread answers for the network thread, whose sockets it may not touch."""
    turn: int = 0
    """Goes up with each fetch that is read: one without a session starts with another partition each time."""

    def reply(self, peer: bytes, message: Reply, frames: Sequence[Buffer] = ()) -> None:
        """Send a reply. One to a peer that is gone is dropped: it can ask again."""
        header = encode(message)
        if self.pipes.send(peer, header, frames):
            return
        if self.send_later is not None:
            self.send_later(ToSend(peer, message, frames))
            return
        size = sum(map(len, frames))
        if size < UNSENT_REPLY_BYTES_MIN:
            sent = self.server.send(peer, header, frames)
        else:
            delivery = self.server.send_tracked(peer, header, frames)
            sent = delivery is not None
            if delivery is not None:
                self.unsent.add(peer, delivery, size)
        if not sent:
            logger.debug("peer %s is gone, dropped its %s", peer.hex(), type(message).__name__)
