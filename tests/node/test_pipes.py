"""Pipes at a real node: the same answers as over the connection, in order, and no harm by who lies."""

import gc
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tailrace.protocol.columns import encode
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import ErrorCode
from tailrace.protocol.limits import KIB, PIPED_BYTES_MAX
from tailrace.protocol.local_messages import ArenaOpened, OpenArena, OpenPipes, PipesOpened
from tailrace.protocol.messages import (
    ACKS_NONE,
    Failed,
    Fetch,
    Fetched,
    Ping,
    Pong,
    Produce,
    Produced,
)
from tailrace.protocol.wire import decode_reply
from tailrace.protocol.wire import encode as encode_message
from tailrace.transport.arena import Arena
from tailrace.transport.pipes import Pipes
from tailrace.transport.poller import Poller

from ..patience import PATIENCE_S, wait_until

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="pipes to a node are Linux's")

NOW = time.time_ns() // 1_000_000


def asked(pipes: Pipes) -> dict[str, int]:
    """The fields of OpenPipes."""
    requests, replies = pipes.requests_end, pipes.replies_end
    return {
        "requests_fd": requests.fd,
        "requests_inode": requests.inode,
        "replies_fd": replies.fd,
        "replies_inode": replies.inode,
    }


class Piped:
    """A peer with pipes. Requests go through these; its connection is used beside them."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.pipes = Pipes()
        self._next_id = 1_000
        self._replies: list[tuple[bytes, list[bytes]]] = []
        reply, _ = peer.ask(OpenPipes, **asked(self.pipes))
        assert isinstance(reply, PipesOpened), reply

    def send(self, kind: type, frames: Any = (), **fields: Any) -> int:
        self._next_id += 1
        assert self.pipes.send(encode_message(kind(self._next_id, **fields)), frames)
        return self._next_id

    def receive(self) -> tuple[Any, list[bytes]]:
        """The next reply that comes through the pipe."""
        poller = Poller()
        poller.add(self.pipes)
        while not self._replies:
            assert poller.poll(PATIENCE_S), "nothing came through the pipe"
            self._replies = self.pipes.receive()
        header, frames = self._replies.pop(0)
        return decode_reply(header), frames

    def ask(self, kind: type, frames: Any = (), **fields: Any) -> tuple[Any, list[bytes]]:
        request_id = self.send(kind, frames, **fields)
        reply, payload = self.receive()
        assert reply.request_id == request_id
        return reply, payload


@pytest.fixture
def topic(house: Any) -> Any:
    house.start()
    return house.create()


@pytest.fixture
def piped(house: Any, topic: Any) -> Iterator[Callable[[], Piped]]:
    """`piped()`: one more client with pipes."""
    made: list[Piped] = []

    def make() -> Piped:
        made.append(Piped(house.peer()))
        return made[-1]

    yield make
    for each in made:
        each.pipes.close()


def batch_of(*values: bytes) -> bytes:
    return encode(list(values), timestamps=NOW)


def values_of(frames: list[bytes]) -> list[bytes]:
    return [value for data in frames for value in decode(data).values]


def stored(house: Any, topic: Any) -> list[bytes]:
    """What is in the topic, asked over a connection."""
    return values_of(topic.fetch(house.peer())[1])


def test_the_same_answers(house: Any, topic: Any, piped: Callable[[], Piped]) -> None:
    client, other = piped(), house.peer()
    requests: list[tuple[type, list[bytes], dict[str, Any]]] = [
        (Ping, [], {}),
        (Produce, [batch_of(b"1", b"2"), batch_of(b"3")], {"entries": [topic.entry()] * 2}),
        (Produce, [b"garbage"], {"entries": [topic.entry()]}),
        (Produce, [], {"entries": [topic.entry()]}),
        (Fetch, [], {"entries": [topic.fetch_entry(0)]}),
        (Fetch, [], {"entries": [topic.fetch_entry(100)]}),
    ]
    for kind, frames, fields in requests:
        through_pipe, payload = client.ask(kind, frames, **fields)
        around, same_payload = other.ask(kind, frames, **fields)
        assert type(through_pipe) is type(around), kind
        if kind is Produce and frames[1:]:
            assert [result.base_offset for result in through_pipe.results] == [0, 2]
            assert [result.base_offset for result in around.results] == [3, 5]
        elif kind is Fetch:
            assert through_pipe.results == around.results
            assert payload == same_payload
    assert stored(house, topic) == [b"1", b"2", b"3"] * 2


def test_a_fetch_that_waits(house: Any, topic: Any, piped: Callable[[], Piped]) -> None:
    client, writer = piped(), piped()
    client.send(Fetch, entries=[topic.fetch_entry(0)], max_wait_ms=50_000)
    assert isinstance(client.ask(Ping)[0], Pong), "the fetch waits"
    writer.ask(Produce, [batch_of(b"news")], entries=[topic.entry()])
    reply, payload = client.receive()
    assert isinstance(reply, Fetched)
    assert values_of(payload) == [b"news"]


def test_large_replies_come_over_the_connection(topic: Any, piped: Callable[[], Piped]) -> None:
    client = piped()
    value = os.urandom(3 * KIB)
    for _ in range(2):
        client.ask(Produce, [batch_of(value)], entries=[topic.entry()])
    request_id = client.send(Fetch, entries=[topic.fetch_entry(0)])
    reply, payload = client.peer.receive()
    assert reply.request_id == request_id
    assert values_of(payload) == [value, value]
    assert isinstance(client.ask(Ping)[0], Pong), "the small ones through the pipe, still"


def test_nothing_comes_through_the_pipe_unasked(topic: Any, piped: Callable[[], Piped]) -> None:
    client = piped()
    assert isinstance(client.peer.ask(Ping)[0], Pong)
    assert client.pipes.receive() == []


def test_the_order_of_requests(house: Any, topic: Any, piped: Callable[[], Piped]) -> None:
    """What is in the pipe when a message comes around it is older than that."""
    client = piped()
    client.ask(Ping)  # from now on small replies come through the pipe
    expected = []
    for number in range(50):
        for part in range(number % 4):
            expected.append(b"%d piped %d" % (number, part))
            client.send(Produce, [batch_of(expected[-1])], entries=[topic.entry()], acks=ACKS_NONE)
        expected.append(b"%d around " % number + os.urandom(5 * KIB))
        client.peer.send(Produce, [batch_of(expected[-1])], entries=[topic.entry()])
        assert isinstance(client.receive()[0], Produced)
    assert stored(house, topic) == expected


def test_an_arena_through_a_pipe(topic: Any, piped: Callable[[], Piped]) -> None:
    """Whoever has handed over the pipes is known for what comes through them, too."""
    client, arena = piped(), Arena()
    try:
        assert isinstance(client.ask(OpenArena, fd=arena.fd, token=arena.token)[0], ArenaOpened)
    finally:
        arena.close()


def test_new_pipes_through_the_pipe(topic: Any, piped: Callable[[], Piped]) -> None:
    client, pipes = piped(), Pipes()
    request_id = client.send(OpenPipes, **asked(pipes))
    reply, _ = client.peer.receive()
    assert isinstance(reply, PipesOpened)
    assert reply.request_id == request_id
    client.pipes.close()
    client.pipes = pipes
    assert isinstance(client.ask(Ping)[0], Pong)


def test_garbage_hurts_nobody_else(topic: Any, piped: Callable[[], Piped]) -> None:
    good = piped()
    for garbage in (b"\xff" * 100, b"\0", b"\1\xff\xff", b"\1\1\0h" + b"\2" * 9, os.urandom(2_000)):
        bad = piped()
        good.send(Ping)
        os.write(bad.pipes._requests, garbage)
        assert isinstance(good.receive()[0], Pong)
        assert isinstance(bad.peer.ask(Ping)[0], Pong), "its connection goes on"


def test_a_message_that_is_no_request(topic: Any, piped: Callable[[], Piped]) -> None:
    client = piped()
    assert client.pipes.send(b"\xc1 no msgpack", [])
    reply, _ = client.receive()
    assert isinstance(reply, Failed)
    assert reply.error.code == ErrorCode.MALFORMED_REQUEST
    assert isinstance(client.ask(Ping)[0], Pong)


def test_a_client_that_reads_nothing(topic: Any, piped: Callable[[], Piped]) -> None:
    """It gets its answers over the connection in the end, and others get theirs."""
    client, other = piped(), piped()
    ids: list[int] = []
    while (around := client.peer.connection.receive()) is None:
        assert len(ids) < 64 * KIB, "more than there is room for"
        ids.append(client.send(Ping))
        if len(ids) % 100 == 0:
            assert isinstance(other.ask(Ping)[0], Pong)
    got = [decode_reply(header).request_id for header, _ in client.pipes.receive()]
    assert len(got) > 1_000
    assert got == ids[: len(got)], "none is missing"
    assert decode_reply(around[0]).request_id == ids[len(got)]


def test_not_over_tcp(house: Any, topic: Any, piped: Callable[[], Piped]) -> None:
    pipes = piped().pipes
    reply, _ = house.peer(house.nodes[0].listener.tcp).ask(OpenPipes, **asked(pipes))
    assert reply.error.code == ErrorCode.LOCAL_PATH
    assert "ipc" in reply.error.message


def test_what_is_no_pipe(house: Any, topic: Any, tmp_path: Path) -> None:
    file, pipes, peer = (tmp_path / "file").open("w+b"), Pipes(), house.peer()
    try:
        file.write(b"content")
        file.flush()
        good = asked(pipes)
        before = descriptors()
        for which in ("requests", "replies"):
            for fd, inode in (
                (file.fileno(), os.fstat(file.fileno()).st_ino),
                (10_000, good[f"{which}_inode"]),
                (good[f"{which}_fd"], good[f"{which}_inode"] + 1),
                (2**31 - 1, 2**63 - 1),
            ):
                reply, _ = peer.ask(OpenPipes, **good | {f"{which}_fd": fd, f"{which}_inode": inode})
                assert isinstance(reply, Failed)
                assert reply.error.code == ErrorCode.LOCAL_PATH
        assert descriptors() == before
        assert isinstance(peer.ask(Ping)[0], Pong)
    finally:
        file.close()
        pipes.close()
    assert (tmp_path / "file").read_bytes() == b"content"


def test_one_pipe_for_both_ways(topic: Any, piped: Callable[[], Piped]) -> None:
    """The node would answer its own replies, for ever."""
    client = piped()
    end = client.pipes.requests_end
    loop = asked(client.pipes) | {"replies_fd": end.fd, "replies_inode": end.inode}
    assert client.peer.ask(OpenPipes, **loop)[0].error.code == ErrorCode.LOCAL_PATH
    assert isinstance(client.ask(Ping)[0], Pong), "those that it had are as they were"


def descriptors() -> int:
    """Of this process, and so of the node in it. Those that die with a socket's thread are not counted."""
    gc.collect()
    kinds = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            kinds.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return sum(kind.startswith("pipe:") for kind in kinds)


def test_nothing_is_left_of_a_connection(house: Any, topic: Any) -> None:
    house.peer().ask(Ping)
    before = descriptors()
    clients = [Piped(house.peer()) for _ in range(5)]
    assert descriptors() == before + 5 * (4 + 2)
    for number, client in enumerate(clients):
        assert isinstance(client.ask(Ping)[0], Pong)
        if number % 2:
            client.pipes.close()
        client.peer.close()
        if not number % 2:
            client.pipes.close()
    wait_until(lambda: descriptors() == before, "the node to close the pipes of who is gone")


def test_last_words(house: Any, topic: Any) -> None:
    """A record that needs no answer is stored, whatever became of its client right after."""
    expected = set()
    for number in range(20):
        client = Piped(house.peer())
        for part in range(3):
            value = b"%d of %d" % (part, number)
            expected.add(value)
            client.send(Produce, [batch_of(value)], entries=[topic.entry()], acks=ACKS_NONE)
        first, second = (client.pipes, client.peer)[:: 1 if number % 2 else -1]
        first.close()
        second.close()
    wait_until(lambda: len(stored(house, topic)) == len(expected), "all to be stored")
    got = stored(house, topic)
    assert set(got) == expected
    assert [value for value in got if value.endswith(b" of 7")] == [b"%d of 7" % part for part in range(3)]


def test_a_node_that_stops_answers_first(house: Any, topic: Any, piped: Callable[[], Piped]) -> None:
    """What it has accepted is answered before the connection ends; the pipe can be read after that."""
    client, quiet = piped(), house.create("quiet")
    ids = [client.send(Fetch, entries=[quiet.fetch_entry(0)], max_wait_ms=50_000)]
    ids += [client.send(Produce, [batch_of(b"%d" % number)], entries=[topic.entry()]) for number in range(20)]
    assert isinstance(client.receive()[0], Produced)
    house.nodes[0].stop()
    answers = [client.receive()[0].request_id for _ in ids[1:]]
    assert sorted([ids[1], *answers]) == ids


@pytest.mark.slow
def test_busy_pipes_starve_nobody(house: Any, topic: Any, piped: Callable[[], Piped]) -> None:
    """Nor do busy connections starve pipes: there is an answer though the others have not paused."""
    busy, quiet, around = piped(), piped(), house.peer()
    flood = encode_message(Ping(1))
    for _ in range(5):
        while busy.pipes.send(flood, []):
            pass
        assert isinstance(around.ask(Ping)[0], Pong)
        assert isinstance(quiet.ask(Ping)[0], Pong)
        busy.pipes.receive()
    for _ in range(5):
        sent = [around.send(Ping) for _ in range(300)]
        assert isinstance(quiet.ask(Ping)[0], Pong)
        assert [around.receive()[0].request_id for _ in sent] == sent


def test_a_refused_client_can_ask_again(house: Any, topic: Any) -> None:
    peer, pipes = house.peer(), Pipes()
    try:
        bad = asked(pipes) | {"replies_fd": 10_000}
        assert isinstance(peer.ask(OpenPipes, **bad)[0], Failed)
        assert pipes.send(encode_message(Ping(5)), []), "nobody reads that"
        assert isinstance(peer.ask(Ping)[0], Pong)
        assert isinstance(peer.ask(OpenPipes, **asked(pipes))[0], PipesOpened)
        poller = Poller()
        poller.add(pipes)
        assert poller.poll(PATIENCE_S)
        assert [decode_reply(header).request_id for header, _ in pipes.receive()] == [5]
    finally:
        pipes.close()


def test_the_largest_that_fits(topic: Any, piped: Callable[[], Piped]) -> None:
    client = piped()
    header = encode_message(Produce(1, entries=[topic.entry()]))
    room = PIPED_BYTES_MAX - 5 - len(header)
    overhead = len(batch_of(os.urandom(3_000))) - 3_000
    batch = batch_of(os.urandom(room - overhead))
    assert room - 3 <= len(batch) <= room
    assert client.pipes.send(header, [batch])
    reply, _ = client.receive()
    assert reply.results[0].base_offset == 0
