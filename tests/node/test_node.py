"""A node and its clients: produce, fetch, offsets, restarts."""

from typing import Any

from tailrace.protocol.decode import decode
from tailrace.protocol.messages import (
    Ping,
    Pong,
)


def test_produce_and_fetch(house: Any) -> None:
    house.start()
    topic, peer = house.create(), house.peer()
    result = topic.produce(peer, b"a", b"b")
    assert (result.error.code, result.base_offset, result.log_start_offset) == (0, 0, 0)
    assert topic.produce(peer, b"c").base_offset == 2

    reply, frames = topic.fetch(peer, 0)
    assert [(r.error.code, r.high_watermark, r.batches) for r in reply.results] == [(0, 3, 2)]
    assert [value for frame in frames for value in decode(frame).values] == [b"a", b"b", b"c"]
    assert [decode(frame).base_offset for frame in frames] == [0, 2]


def test_ping(house: Any) -> None:
    house.start()
    assert isinstance(house.peer().ask(Ping)[0], Pong)
