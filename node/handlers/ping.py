"""Ping: the network thread runs."""

from tailrace.protocol.messages import Ping, Pong
from tailrace.transport.peer_arenas import Payload

from ..broker import Broker


def handle(broker: Broker, peer: bytes, request: Ping, payload: Payload, now: float) -> None:
    """Answer."""
    broker.reply(peer, Pong(request.request_id))
