"""A connection to servers that are not there yet, are killed, stopped, or restarted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tailrace.protocol.cluster import Listener
from tailrace.transport import context as context_module
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import Context
from tailrace.transport.poller import Poller
from tailrace.transport.server import Server

from ..patience import PATIENCE_S
from .conftest import ECHO_SERVER

Wait = Callable[..., None]
Connect = Callable[[str], Connection]
EchoServer = Callable[..., tuple]
Own = Callable[..., Any]
LOOPBACK = "tcp://127.0.0.1:0"
AT_ONCE_S = 0.5


@pytest.fixture
def free_endpoint(free_address: str) -> str:
    """An address that nobody listens on."""
    return f"tcp://{free_address}"


def suspend(process: "subprocess.Popen[str]") -> None:
    """SIGSTOP; returns when every thread has stopped, which on a busy machine takes a while."""
    process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def poll_for(seconds: float, connection: Connection) -> None:
    """Let things happen to the connection for so long."""
    poller = Poller()
    poller.add(connection)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        poller.poll(left)
        connection.update()


def test_connecting_goes_on_until_there_is_a_server(
    context: Context, own: Own, wait: Wait, free_endpoint: str
) -> None:
    connection = own(Connection(context, free_endpoint))
    poll_for(0.2, connection)
    assert connection.state is ConnectionState.CONNECTING
    server = own(Server(context, tcp=free_endpoint))
    wait(lambda: connection.update() is ConnectionState.READY, connection)
    assert connection.send(b"ask")
    wait(lambda: server.receive(), server)


def test_nothing_is_queued_while_connecting(
    context: Context, own: Own, wait: Wait, free_endpoint: str
) -> None:
    connection = own(Connection(context, free_endpoint))
    assert not connection.send(b"too early")
    server = own(Server(context, tcp=free_endpoint))
    wait(lambda: connection.update() is ConnectionState.READY, connection)
    assert connection.send(b"in time")
    headers: list[bytes] = []
    wait(
        lambda: headers.extend(bytes(request.header) for request in iter(server.receive, None)) or headers,
        server,
    )
    assert headers == [b"in time"]


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_killed_peer_is_noticed_at_once(
    connect: Connect, echo_server: EchoServer, wait: Wait, tmp_path: object, transport: str
) -> None:
    """Not by the heartbeats that it does not answer; a busy machine may delay some, not all of them."""
    took: list[float] = []
    while not took or (took[-1] >= AT_ONCE_S and len(took) < 5):
        process, listener = echo_server(ipc=f"ipc://{tmp_path}/{len(took)}.sock")
        connection = connect(getattr(listener, transport))
        process.kill()
        killed = time.monotonic()
        wait(lambda: connection.update() is ConnectionState.LOST, connection)  # noqa: B023
        took.append(time.monotonic() - killed)
        assert not connection.send(b"ask")
        assert connection.receive() is None
    assert min(took) < AT_ONCE_S


BUSY = """
import subprocess, sys
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import new_context
from tailrace.transport.poller import Poller

context = new_context()
frames = [b"x" * 100] * 200
for _ in range(8):
    command = [sys.executable, *sys.argv[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        endpoint = server.stdout.readline().strip()
        left = [Connection(context, endpoint) for _ in range(8)]
        poller, answers = Poller(), 0
        for connection in left:
            poller.add(connection)
        while left:
            poller.poll(None if answers == 0 else 0)
            for connection in tuple(left):
                if connection.update() is ConnectionState.LOST:
                    left.remove(connection)
                    poller.remove(connection)
                    connection.close()
                    continue
                connection.send(b"ask", frames)
                answers += connection.receive() is not None
            if answers > 50:
                server.kill()
print("lived", flush=True)
"""


def test_a_peer_that_dies_within_a_message_does_no_harm() -> None:
    """ZeroMQ ends the whole process when the rest of a message that is being read gets lost."""
    command = [sys.executable, "-c", BUSY, str(ECHO_SERVER), LOOPBACK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "lived\n", "")


def test_a_lost_connection_stays_lost_when_the_server_is_back(
    context: Context, own: Own, again: Own, connect: Connect, wait: Wait
) -> None:
    first = own(Server(context, tcp=LOOPBACK))
    endpoint = first.listener.tcp
    connection = connect(endpoint)
    first.close()
    wait(lambda: connection.update() is ConnectionState.LOST, connection)
    second = again(lambda: Server(context, tcp=endpoint))
    newer = connect(endpoint)
    poll_for(0.1, connection)
    assert connection.state is ConnectionState.LOST
    assert not connection.send(b"old")
    assert newer.send(b"new")
    headers: list[bytes] = []
    wait(
        lambda: headers.extend(bytes(request.header) for request in iter(second.receive, None)) or headers,
        second,
    )
    assert headers == [b"new"]


def test_send_sees_a_loss_that_nobody_polled_for(
    context: Context, own: Own, again: Own, connect: Connect, wait: Wait
) -> None:
    first = own(Server(context, tcp=LOOPBACK))
    endpoint = first.listener.tcp
    connection = connect(endpoint)
    first.close()
    second = again(lambda: Server(context, tcp=endpoint))
    # The old socket reconnects behind our back; a second one's handshake comes later than its.
    witness = connect(endpoint)
    time.sleep(0.05)
    assert witness.send(b"witness")
    assert not connection.send(b"crossed over")
    assert connection.state is ConnectionState.LOST
    headers: list[bytes] = []
    wait(
        lambda: headers.extend(bytes(request.header) for request in iter(second.receive, None)) or headers,
        second,
    )
    assert headers == [b"witness"]


def test_a_stopped_peer_accepts_but_is_not_ready(
    context: Context,
    own: Own,
    connect: Connect,
    echo_server: EchoServer,
    wait: Wait,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context_module, "HANDSHAKE_TIMEOUT_MS", 200)
    process, listener = echo_server()
    suspend(process)
    connection = own(Connection(context, listener.tcp))
    poll_for(0.7, connection)
    assert connection.state is ConnectionState.CONNECTING, "handshakes that time out are no loss"
    os.kill(process.pid, signal.SIGCONT)
    wait(lambda: connection.update() is ConnectionState.READY, connection)


def test_requests_are_answered_in_order_across_processes(
    connect: Connect, echo_server: EchoServer, wait: Wait
) -> None:
    _, listener = echo_server()
    assert isinstance(listener, Listener)
    connection = connect(listener.tcp)
    payload = bytes(200_000)
    for number in range(200):
        assert connection.send(b"%d" % number, [payload])
    replies: list[tuple[bytes, list[bytes]]] = []
    wait(lambda: replies.extend(iter(connection.receive, None)) or len(replies) == 200, connection)
    assert replies == [(b"%d" % number, [payload]) for number in range(200)]


def test_close_is_final_and_may_be_repeated(context: Context, own: Own, free_endpoint: str) -> None:
    connection = own(Connection(context, free_endpoint))
    connection.close()
    connection.close()
    assert connection.state is ConnectionState.LOST
    assert not connection.send(b"ask")
