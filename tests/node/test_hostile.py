"""Peers that send what is no request: an error or nothing for them, no harm for others, few log lines."""

import logging
import random
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailrace.protocol.columns import encode
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.limits import FRAMES_PER_MESSAGE_MAX, HEADER_BYTES_MAX, PRODUCE_BATCHES_MAX
from tailrace.protocol.messages import Failed, Fetch, Heartbeat, ListOffsets, Ping, Pong, Produce
from tailrace.protocol.wire import decode_reply
from tailrace.protocol.wire import encode as encode_message

NOW = time.time_ns() // 1_000_000
pack = msgspec.msgpack.encode


class RawPeer:
    """A bare DEALER socket: sends any frames."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(endpoint)

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def receive(self, timeout: float = 5) -> Any:
        if not self._socket.poll(int(timeout * 1_000)):
            return None
        return decode_reply(self._socket.recv_multipart()[0])

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def raw(house: Any) -> Iterator[RawPeer]:
    house.start()
    peer = RawPeer(house.node_config().ipc)
    yield peer
    peer.close()


def produce_header(**changes: Any) -> bytes:
    fields = {"tag": 1, "id": 9, "version": 1, "acks": -1, "entries": [[bytes(16), 0, 0]]} | changes
    return pack(list(fields.values()))


MALFORMED = {
    "no msgpack": b"\xc1\xff\x00garbage",
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "no array": pack({"a": 1}),
    "empty array": pack([]),
    "unknown kind": pack([99, 9, 1]),
    "a coordinator's request": encode_message(Heartbeat(9, node_id=1)),
    "a reply": encode_message(Pong(9)),
    "truncated": produce_header()[:-3],
    "trailing bytes": produce_header() + b"\x00",
    "wrong type": produce_header(acks="all"),
    "out of range": produce_header(acks=7),
    "short topic id": produce_header(entries=[[b"short", 0, 0]]),
    "no entries": produce_header(entries=[]),
    "too many entries": produce_header(entries=[[bytes(16), 0, 0]] * (PRODUCE_BATCHES_MAX + 1)),
    "huge integer": produce_header(id=2**64 - 1),
    "deep": b"\x91" * 5_000,
    "array that claims 4 billion entries": b"\xdd\xff\xff\xff\xff",
}


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_header_is_answered_with_an_error(house: Any, raw: RawPeer, header: bytes) -> None:
    raw.send(header)
    reply = raw.receive()
    assert isinstance(reply, Failed)
    assert reply.error.code == ErrorCode.MALFORMED_REQUEST
    assert isinstance(house.peer().ask(Ping)[0], Pong)


def test_the_error_repeats_the_request_id_where_it_can_be_read(raw: RawPeer) -> None:
    raw.send(produce_header(acks=7))
    assert raw.receive().request_id == 9
    raw.send(pack([1, 9, 2, -1, []]))
    reply = raw.receive()
    assert (reply.request_id, reply.error.code) == (9, ErrorCode.UNSUPPORTED_VERSION)


def test_an_oversize_header_is_refused_before_it_is_decoded(raw: RawPeer) -> None:
    raw.send(bytes(HEADER_BYTES_MAX + 1))
    assert raw.receive().error.code == ErrorCode.REQUEST_TOO_LARGE


def test_frames_that_do_not_belong_are_refused(raw: RawPeer) -> None:
    for header, frames in (
        (produce_header(), []),
        (produce_header(), [b"a", b"b"]),
        (encode_message(Fetch(9, entries=[])), [b"x"]),
        (encode_message(ListOffsets(9, queries=[])), [b"x"]),
    ):
        raw.send(header, *frames)
        assert raw.receive().error.code == ErrorCode.MALFORMED_REQUEST


def test_messages_without_header_or_with_too_many_frames_are_dropped(raw: RawPeer) -> None:
    raw.send(b"")
    raw.send(produce_header(), *[b"x"] * FRAMES_PER_MESSAGE_MAX)
    raw.send(encode_message(Ping(7)))
    assert raw.receive() == Pong(7)


def test_one_line_a_peer_and_error(raw: RawPeer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(50):
        raw.send(b"garbage")
    for _ in range(50):
        assert raw.receive().error.code == ErrorCode.MALFORMED_REQUEST
    assert caplog.text.count("not a message of this protocol") == 1


def test_a_handler_that_fails_answers_and_the_node_lives_on(
    house: Any, raw: RawPeer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(__import__("tailrace.node.dispatch", fromlist=["x"]).HANDLERS, Ping, broken)
    raw.send(encode_message(Ping(7)))
    reply = raw.receive()
    assert (reply.request_id, reply.error.code) == (7, ErrorCode.UNKNOWN)
    assert "a bug" in reply.error.message
    assert "Traceback" in caplog.text
    assert house.create().produce(house.peer(), b"a").error.code == 0


def test_random_bytes_and_broken_requests_harm_nobody(house: Any, raw: RawPeer) -> None:
    """A fuzz of headers and batches while another client works."""
    topic, peer = house.create(), house.peer()
    rng = random.Random(4)
    batch = encode([b"v"] * 3, timestamps=NOW)
    seeds = [
        encode_message(Produce(9, entries=[topic.entry()])),
        encode_message(Fetch(9, entries=[topic.fetch_entry(0)], max_wait_ms=0)),
        encode_message(Ping(9)),
    ]
    stored = 0
    for turn in range(300):
        header = bytearray(rng.choice(seeds))
        frame = bytearray(batch)
        for _ in range(rng.randrange(4)):
            header[rng.randrange(len(header))] = rng.randrange(256)
            frame[rng.randrange(21, len(frame))] ^= 1 << rng.randrange(8)
        if turn % 10 == 0:
            header = bytearray(rng.randbytes(rng.randrange(1, 200)))
        raw.send(bytes(header), *[bytes(frame)] * rng.randrange(3))
        if turn % 5 == 0:
            result = topic.produce(peer, b"good")
            assert result.error.code == 0
            stored += 1
    while raw.receive(timeout=0.2) is not None:
        pass
    _, frames = topic.fetch(peer, 0)
    good = [frame for frame in frames if b"good" in frame]
    assert len(good) == stored


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames=st.lists(st.binary(max_size=80), min_size=1, max_size=4))
def test_any_frames_leave_the_node_alive(house: Any, raw: RawPeer, frames: list[bytes]) -> None:
    raw.send(*frames)
    raw.send(encode_message(Ping(123_456)))
    while (reply := raw.receive()) != Pong(123_456):
        assert isinstance(reply, Failed), reply


def test_a_flood_of_connections_harms_nobody(house: Any) -> None:
    house.start()
    topic, peer = house.create(), house.peer()
    flood = [RawPeer(house.node_config().ipc) for _ in range(100)]
    for one in flood:
        one.send(b"garbage")
    assert topic.produce(peer, b"a").error.code == 0
    for one in flood:
        one.close()
    assert topic.produce(peer, b"b").error.code == 0
