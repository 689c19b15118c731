"""The server against peers that behave, leave, flood it, or talk nonsense."""

import logging
import os
import random
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from tailrace.protocol.errors import ConnectionFailedError
from tailrace.protocol.limits import FRAME_BYTES_MAX, FRAMES_PER_MESSAGE_MAX
from tailrace.transport import binding
from tailrace.transport import context as context_module
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import Context
from tailrace.transport.endpoint import boot_id, split_tcp
from tailrace.transport.server import COPY_BYTES_MAX, Incoming, Server

from ..patience import PATIENCE_S

Wait = Callable[..., None]
Connect = Callable[[str], Connection]
Own = Callable[..., Any]
LOOPBACK = "tcp://127.0.0.1:0"


@pytest.fixture
def server(context: Context, own: Own) -> Server:
    return own(Server(context, tcp=LOOPBACK))


@pytest.fixture
def request_of(server: Server, wait: Wait) -> Callable[[], Incoming]:
    """The next request that the server gets."""

    def receive() -> Incoming:
        got: list[Incoming] = []

        def arrived() -> bool:
            request = server.receive()
            got.extend([request] if request else [])
            return bool(got)

        wait(arrived, server)
        return got[0]

    return receive


def exchange(
    server: Server, connection: Connection, request_of: Callable[[], Incoming], wait: Wait
) -> tuple[bytes, list[bytes]]:
    """One request echoed, past what others have sent."""
    assert connection.send(b"header", [b"payload"])
    request = request_of()
    while bytes(request.header) != b"header":
        request = request_of()
    assert server.send(request.peer, bytes(request.header), request.frames)
    reply: list[tuple[bytes, list[bytes]]] = []

    def answered() -> bool:
        got = connection.receive()
        reply.extend([got] if got else [])
        return bool(reply)

    wait(answered, connection)
    return reply[0]


@pytest.mark.parametrize("size", [0, 1, 33, 34, COPY_BYTES_MAX, COPY_BYTES_MAX + 1, 1 << 20])
def test_frames_travel_both_ways(
    server: Server, connect: Connect, request_of: Callable[[], Incoming], wait: Wait, size: int
) -> None:
    connection = connect(server.listener.tcp)
    payload = os.urandom(size)
    assert connection.send(b"ask", [payload, memoryview(payload), b"end"])
    request = request_of()
    assert bytes(request.header) == b"ask"
    assert [bytes(frame) for frame in request.frames] == [payload, payload, b"end"]
    assert server.send(request.peer, b"answer", request.frames)
    replies: list[tuple[bytes, list[bytes]]] = []
    wait(lambda: replies.extend(filter(None, [connection.receive()])) or replies, connection)
    assert replies == [(b"answer", [payload, payload, b"end"])]


def test_frames_are_writable_and_outlive_the_message(
    server: Server, connect: Connect, request_of: Callable[[], Incoming]
) -> None:
    connection = connect(server.listener.tcp)
    connection.send(b"ask", [b"abc" * 50_000])
    (frame,) = request_of().frames
    frame[:3] = b"xyz"
    connection.send(b"ask", [b"def" * 50_000])
    request_of()
    assert bytes(frame[:6]) == b"xyzabc"


def test_receive_gives_a_burst_and_then_none(server: Server, connect: Connect, wait: Wait) -> None:
    connection = connect(server.listener.tcp)
    assert server.receive() is None
    for number in range(100):
        assert connection.send(b"%d" % number)
    got: list[Incoming] = []
    wait(lambda: got.extend(iter(server.receive, None)) or len(got) == 100, server)
    assert [int(bytes(request.header)) for request in got] == list(range(100))
    assert server.receive() is None


def test_send_to_a_peer_that_left_is_false(
    server: Server, connect: Connect, request_of: Callable[[], Incoming]
) -> None:
    connection = connect(server.listener.tcp)
    connection.send(b"ask")
    peer = request_of().peer
    connection.close()
    deadline = time.monotonic() + PATIENCE_S
    while server.send(peer, b"answer"):  # its socket hears of it in its own time
        assert time.monotonic() < deadline
    assert not server.send(b"never seen", b"answer")


def test_send_to_a_peer_that_does_not_read_is_false_once_its_queue_is_full(
    server: Server, context: Context, request_of: Callable[[], Incoming], caplog: pytest.LogCaptureFixture
) -> None:
    with context.socket(zmq.DEALER) as slow:
        slow.setsockopt(zmq.RCVHWM, 1)
        slow.setsockopt(zmq.LINGER, 0)
        slow.connect(server.listener.tcp)
        slow.send(b"ask")
        peer = request_of().peer
        sent = 0
        while server.send(peer, b"x" * 1_000):
            sent += 1
            assert sent < 100_000, "the queue has no bound"
        assert not server.send(peer, b"x")
        assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_tracked_reply_is_done_when_the_peer_takes_it_or_leaves(
    server: Server, context: Context, request_of: Callable[[], Incoming]
) -> None:
    with context.socket(zmq.DEALER) as slow:
        slow.setsockopt(zmq.RCVHWM, 1)
        slow.setsockopt(zmq.LINGER, 0)
        slow.connect(server.listener.tcp)
        slow.send(b"ask")
        peer = request_of().peer
        payload = bytes(4 << 20)
        replies = []
        while not replies or replies[-1].done:
            time.sleep(0.05)  # as long as it may take to be handed to the kernel
            reply = server.send_tracked(peer, b"answer", [payload, payload])
            assert reply is not None
            replies.append(reply)
        assert len(replies) < 100
        for _ in replies:
            assert slow.recv_multipart() == [b"answer", payload, payload]
        wait_until_done(server, replies)
        unread = [server.send_tracked(peer, b"answer", [payload]) for _ in range(20)]
    wait_until_done(server, unread)
    assert server.send_tracked(b"never seen", b"answer", [b"payload"]) is None


def wait_until_done(server: Server, replies: list[Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not all(reply.done for reply in replies):
        assert time.monotonic() < deadline
        assert server.receive() is None  # a socket hears of its peers when it is used


def test_an_oversize_frame_costs_its_sender_the_connection_and_nobody_else(
    server: Server, context: Context, connect: Connect, request_of: Callable[[], Incoming], wait: Wait
) -> None:
    good, bad = connect(server.listener.tcp), connect(server.listener.tcp)
    assert bad.send(b"ask", [b"x" * (FRAME_BYTES_MAX + 1)])
    wait(lambda: bad.update() is ConnectionState.LOST, bad)
    assert exchange(server, good, request_of, wait) == (b"header", [b"payload"])
    assert server.receive() is None


def test_the_largest_frame_passes(
    server: Server, connect: Connect, request_of: Callable[[], Incoming]
) -> None:
    connection = connect(server.listener.tcp)
    connection.send(b"ask", [bytes(FRAME_BYTES_MAX)])
    assert len(request_of().frames[0]) == FRAME_BYTES_MAX


def test_malformed_messages_are_dropped_and_logged_once_a_peer(
    server: Server,
    connect: Connect,
    request_of: Callable[[], Incoming],
    wait: Wait,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection = connect(server.listener.tcp)
    for _ in range(3):
        connection.send(b"ask", [b""] * FRAMES_PER_MESSAGE_MAX)
        connection.send(b"")
        connection.send(b"", [b"payload"])
    assert exchange(server, connection, request_of, wait) == (b"header", [b"payload"])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_as_many_frames_as_allowed_pass(
    server: Server, connect: Connect, request_of: Callable[[], Incoming]
) -> None:
    connection = connect(server.listener.tcp)
    connection.send(b"ask", [b"."] * (FRAMES_PER_MESSAGE_MAX - 1))
    assert len(request_of().frames) == FRAMES_PER_MESSAGE_MAX - 1


def test_random_bytes_hurt_nobody(
    server: Server, connect: Connect, request_of: Callable[[], Incoming], wait: Wait
) -> None:
    # Some of them pass for messages of ZMTP 1.0, which knows no handshake; headers are for others to check.
    connection = connect(server.listener.tcp)
    noise = random.Random(7)
    for _ in range(20):
        with socket.create_connection(split_tcp(server.listener.tcp)) as plain:
            plain.sendall(noise.randbytes(noise.randrange(1, 2_000)))
    assert exchange(server, connection, request_of, wait) == (b"header", [b"payload"])


def test_what_shakes_no_hands_is_dropped(
    server: Server, connect: Connect, request_of: Callable[[], Incoming], wait: Wait
) -> None:
    connection = connect(server.listener.tcp)
    http = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:7070\r\nUser-Agent: " + b"Mozilla/5.0 " * 40 + b"\r\n\r\n"
    for said in (b"\x01\x00\x02\x00A", http):
        with socket.create_connection(split_tcp(server.listener.tcp)) as plain:
            plain.sendall(said)
            assert exchange(server, connection, request_of, wait) == (b"header", [b"payload"])


def test_a_connection_that_says_nothing_is_closed(
    context: Context, own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_module, "HANDSHAKE_TIMEOUT_MS", 100)
    server = own(Server(context, tcp=LOOPBACK))
    with socket.create_connection(split_tcp(server.listener.tcp), timeout=PATIENCE_S) as plain:
        while plain.recv(1024):
            pass  # the server's half of the greeting, then the end


def test_an_address_in_use_is_an_error_that_names_it(server: Server, context: Context, own: Own) -> None:
    with pytest.raises(ConnectionFailedError, match="already in use") as raised:
        own(Server(context, tcp=server.listener.tcp))
    assert server.listener.tcp in str(raised.value)


def test_an_address_of_another_machine_is_an_error(context: Context, own: Own) -> None:
    with pytest.raises(ConnectionFailedError, match=r"192\.0\.2\.1:7070: no interface"):
        own(Server(context, tcp="tcp://192.0.2.1:7070"))


def test_a_host_name_is_looked_up(context: Context, own: Own) -> None:
    assert own(Server(context, tcp="tcp://localhost:0")).listener.tcp.startswith("tcp://127.0.0.1:")


def test_ipc_is_bound_in_a_private_folder(
    context: Context, own: Own, connect: Connect, tmp_path: Path, wait: Wait
) -> None:
    path = tmp_path / "run" / "node.sock"
    server = own(Server(context, tcp=LOOPBACK, ipc=f"ipc://{path}"))
    assert server.listener.ipc == f"ipc://{path}"
    assert server.listener.boot_id == boot_id() != ""
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    connection = connect(server.listener.ipc)
    connection.send(b"ask")
    wait(lambda: server.receive(), server)


def test_ipc_makes_a_folder_of_sockets_private_but_leaves_others_alone(
    context: Context, own: Own, tmp_path: Path
) -> None:
    empty, used = tmp_path / "empty", tmp_path / "used"
    for folder in (empty, used):
        folder.mkdir()
        folder.chmod(0o755)
    (used / "file").touch()
    own(Server(context, tcp=LOOPBACK, ipc=f"ipc://{empty}/node.sock"))
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700
    with pytest.raises(ConnectionFailedError, match="0700"):
        own(Server(context, tcp=LOOPBACK, ipc=f"ipc://{used}/node.sock"))
    assert stat.S_IMODE(used.stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_ipc_in_a_folder_of_another_user_is_refused(context: Context, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12_345, -1)
    with pytest.raises(ConnectionFailedError, match="belongs to another user"):
        Server(context, tcp=LOOPBACK, ipc=f"ipc://{folder}/node.sock")


def test_the_socket_file_of_a_killed_process_is_no_obstacle(
    context: Context, own: Own, connect: Connect, tmp_path: Path, echo_server: Callable[..., tuple]
) -> None:
    ipc = f"ipc://{tmp_path}/node.sock"
    process, _ = echo_server(ipc=ipc)
    process.kill()
    process.wait()
    assert (tmp_path / "node.sock").exists()
    assert connect(own(Server(context, tcp=LOOPBACK, ipc=ipc)).listener.ipc)


def test_close_removes_the_socket_file_unless_it_is_anothers(
    context: Context, own: Own, tmp_path: Path
) -> None:
    file = tmp_path / "node.sock"
    first = own(Server(context, tcp=LOOPBACK, ipc=f"ipc://{file}"))
    first.close()
    assert not file.exists()
    second = own(Server(context, tcp=LOOPBACK, ipc=f"ipc://{file}"))
    first.close()
    assert file.exists()
    file.unlink()
    file.touch()
    second.close()
    assert file.exists()


def test_the_socket_of_a_live_process_is_not_taken_from_it(
    context: Context, own: Own, connect: Connect, tmp_path: Path
) -> None:
    ipc = f"ipc://{tmp_path}/node.sock"
    own(Server(context, tcp=LOOPBACK, ipc=ipc))
    with pytest.raises(ConnectionFailedError, match="already in use"):
        own(Server(context, tcp=LOOPBACK, ipc=ipc))
    assert connect(ipc)


def test_ipc_is_not_found_while_there_are_more_connections_than_descriptors_for_them(
    context: Context, own: Own, tmp_path: Path, connect: Connect, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "connections_max", lambda: 4)
    path = tmp_path / "run" / "node.sock"
    server = own(Server(context, tcp=LOOPBACK, ipc=f"ipc://{path}"))
    connections = [connect(server.listener.ipc) for _ in range(4)]
    assert server.take_gone() == []
    assert path.exists()
    connections.append(connect(server.listener.ipc))
    wait(lambda: server.take_gone() == [] and not path.exists(), server)
    assert connect(server.listener.tcp)
    for _ in range(2):
        connections.pop().close()
    wait(lambda: server.take_gone() == [] and server.connections == 4, server)
    assert not path.exists(), "not at once again"
    connections.pop().close()
    wait(lambda: server.take_gone() == [] and path.exists(), server)
    connections += [connect(server.listener.ipc) for _ in range(2)]
    wait(lambda: server.take_gone() == [] and not path.exists(), server)
    server.close()
    assert list(path.parent.iterdir()) == []


def test_an_ipc_path_that_is_too_long_is_an_error(context: Context, own: Own, tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailedError, match="at most 107"):
        own(Server(context, tcp=LOOPBACK, ipc=f"ipc://{tmp_path}/{'x' * 100}"))
