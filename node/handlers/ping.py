"""Ping: the network thread runs."""

from tailrace.protocol.messages import Ping, Pong

from ..broker import Broker


def handle(broker: Broker, peer: bytes, request: Ping, frames: list[memoryview], now: float) -> None:
    """Answer."""
    broker.reply(peer, Pong(request.request_id))
