"""The sockets of the membership: does what it says, tells it what happens."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from tailrace.protocol.errors import TailraceError
from tailrace.protocol.messages import CoordinatorRequest
from tailrace.protocol.wire import decode_published, decode_reply, encode
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.endpoint import choose
from tailrace.transport.poller import Poller, Source
from tailrace.transport.publisher import Subscriber

from .actions import Action, Ask, Connect, Disconnect, Follow, GiveUp, Report, Subscribe
from .membership import Membership

logger: Final = logging.getLogger(__name__)


class CoordinatorLink:
    """Belongs to the network thread. `follow` is called with each move of the cluster state."""

    def __init__(
        self,
        *,
        connect: Callable[[str], Connection],
        subscribe: Callable[[str], Subscriber],
        poller: Poller,
        membership: Membership,
        follow: Callable[[Follow], None],
    ) -> None:
        self._connect = connect
        self._subscribe = subscribe
        self._poller = poller
        self._membership = membership
        self._follow = follow
        self._connection: Connection | None = None
        self._subscriber: Subscriber | None = None

    def step(self, ready: Sequence[Source], now: float) -> None:
        """Take in what the poller reported, and do what is due. Raises what the membership gives up with."""
        if self._connection is not None and self._connection in ready:
            self._take_replies(self._connection, now)
        if self._subscriber is not None and self._subscriber in ready:
            self._take_published(self._subscriber, now)
        if now >= self._membership.next_tick():
            self._perform(self._membership.tick(now), now)

    def applied(self, version: int, now: float) -> None:
        """The node is ready for this version of the state."""
        self._perform(self._membership.applied(version, now), now)

    def leave(self, now: float) -> None:
        """The node stops: say so."""
        self._perform(self._membership.leave(now), now)

    def close(self) -> None:
        """Close the sockets."""
        self._disconnect()
        self._unsubscribe()

    def _take_replies(self, connection: Connection, now: float) -> None:
        was = connection.state
        state = connection.update()
        if state is ConnectionState.READY and was is ConnectionState.CONNECTING:
            self._perform(self._membership.connected(now), now)
        while connection is self._connection and (received := connection.receive()) is not None:
            try:
                reply = decode_reply(received[0])
            except TailraceError as error:
                self._perform(self._membership.lost(str(error), now), now)
                return
            self._perform(self._membership.reply(reply, now), now)
        self._notice_loss(now)

    def _take_published(self, subscriber: Subscriber, now: float) -> None:
        while subscriber is self._subscriber and (data := subscriber.receive()) is not None:
            try:
                message = decode_published(data)
            except TailraceError as error:
                logger.warning("%s published what is no update: %s", subscriber.endpoint, error)
                continue
            self._perform(self._membership.published(message, now), now)

    def _perform(self, actions: Iterable[Action], now: float) -> None:
        for action in actions:
            match action:
                case Connect(endpoint):
                    self._connection = self._connect(endpoint)
                    self._poller.add(self._connection)
                case Disconnect():
                    self._disconnect()
                case Subscribe(publisher):
                    self._unsubscribe()
                    self._subscriber = self._subscribe(choose(publisher))
                    self._poller.add(self._subscriber)
                case Ask(request):
                    self._send(request)
                case Follow():
                    self._follow(action)
                case Report(text, good):
                    logger.log(logging.INFO if good else logging.WARNING, "%s", text)
                case GiveUp(error):
                    raise error
        self._notice_loss(now)

    def _send(self, request: CoordinatorRequest) -> None:
        # One that cannot go out is like one without an answer: the membership's timer sees it.
        if self._connection is not None and not self._connection.send(encode(request)):
            logger.debug("%s did not go out to the coordinator", type(request).__name__)

    def _notice_loss(self, now: float) -> None:
        if self._connection is not None and self._connection.state is ConnectionState.LOST:
            self._perform(self._membership.lost("the connection broke", now), now)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._poller.remove(connection)
            connection.close()

    def _unsubscribe(self) -> None:
        subscriber, self._subscriber = self._subscriber, None
        if subscriber is not None:
            self._poller.remove(subscriber)
            subscriber.close()
