"""Pipes from both sides: what travels, who is refused, and that nothing is left of who is gone."""

import errno
import fcntl
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.protocol.errors import LocalPathError
from tailrace.protocol.limits import PIPED_BYTES_MAX
from tailrace.protocol.piped import pack
from tailrace.transport import peer_pipes
from tailrace.transport.peer_pipes import PeerPipes
from tailrace.transport.pipes import PIPE_READ_BYTES, PipeEnd, Pipes
from tailrace.transport.poller import Poller
from tailrace.transport.server import Incoming
from tailrace.transport.wakeup import Wakeup

from ..descriptors import descriptors
from ..patience import wait_until

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="pipes to a node are Linux's")

PEER = b"peer"
LARGEST = b"h" * (PIPED_BYTES_MAX - 3)
Handover = Callable[..., None]


def part_of(address: str) -> Any:
    """A part of a message from there; of a process, as libzmq names it: user, group, process."""
    return SimpleNamespace(get=lambda name: {"Peer-Address": address}[name])


ME = part_of(f"localhost:{os.geteuid()}:{os.getegid()}:{os.getpid()}")


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


class Node(PeerPipes):
    """A node's pipes, and its poller."""

    def __init__(self) -> None:
        self.poller = Poller()
        self._never_set = Wakeup()
        self.poller.add(self._never_set)
        super().__init__(self.poller)

    def receive_all(self) -> list[Incoming]:
        """What the poller knows of."""
        return [incoming for source in self.poller.poll(0) for incoming in self.receive(source) or ()]

    def close_all(self) -> None:
        super().close_all()
        self.poller.close()
        self._never_set.close()


@pytest.fixture
def node(_no_descriptor_is_left: None) -> Iterator[Node]:
    node = Node()
    yield node
    node.close_all()


@pytest.fixture
def pipes(_no_descriptor_is_left: None) -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    pipes.close()


@pytest.fixture
def client(node: Node, pipes: Pipes) -> Pipes:
    """Its pipes are open, and used."""
    node.open(PEER, ME, pipes.requests_end, pipes.replies_end)
    assert pipes.send(b"first", [])
    assert texts(node.receive_all()) == [(b"first", [])]
    return pipes


def texts(incoming: Any) -> list[tuple[bytes, list[bytes]]]:
    return [(bytes(each.header), list(map(bytes, each.frames))) for each in incoming]


def test_requests_and_replies(node: Node, client: Pipes) -> None:
    poller = node.poller
    assert poller.poll(0) == []
    assert client.send(b"one", [b"a", bytearray(b"b")])
    assert client.send(b"two", [])
    (source,) = poller.poll(0)
    incoming = node.receive(source)
    assert incoming is not None
    assert texts(incoming) == [(b"one", [b"a", b"b"]), (b"two", [])]
    assert all(each.peer == PEER and each.part is ME for each in incoming)
    incoming[0].frames[0][:] = b"A"  # a request's payload is the node's to write to
    assert poller.poll(0) == []
    assert node.send(PEER, b"three", [memoryview(b"c")])
    assert node.send(PEER, b"four", [])
    assert client.receive() == [(b"three", [b"c"]), (b"four", [])]
    assert client.receive() == []


def test_the_client_waits_for_replies(node: Node, client: Pipes) -> None:
    poller = Poller()
    poller.add(client)
    assert poller.poll(0) == []
    node.send(PEER, b"reply", [])
    assert poller.poll(0) == [client]
    client.receive()
    assert poller.poll(0) == []


def test_no_reply_before_a_request(node: Node, pipes: Pipes) -> None:
    """Until then, nobody knows whether the client has heard that they are open, and listens."""
    node.open(PEER, ME, pipes.requests_end, pipes.replies_end)
    assert not node.send(PEER, b"reply", [])
    assert node.before(PEER) == []
    assert not node.send(PEER, b"reply", [])
    assert pipes.send(b"request", [])
    assert texts(node.before(PEER)) == [(b"request", [])]
    assert node.send(PEER, b"reply", [])


def test_what_one_peer_has_sent(node: Node, client: Pipes) -> None:
    client.send(b"one", [])
    assert texts(node.before(PEER)) == [(b"one", [])]
    assert node.before(PEER) == node.before(b"nobody") == []
    assert node.receive_all() == []


def test_what_is_too_large(node: Node, client: Pipes) -> None:
    assert client.send(LARGEST, [])
    assert not client.send(LARGEST + b"h", [])
    assert texts(node.receive_all()) == [(LARGEST, [])]
    assert node.send(PEER, LARGEST, [])
    assert not node.send(PEER, LARGEST + b"h", [])
    assert node.send(PEER, b"the next", []), "only one that is full is given up"
    assert [header for header, _ in client.receive()] == [LARGEST, b"the next"]


def fill(send: Callable[[bytes], bool]) -> list[bytes]:
    """What was sent until it could not be."""
    sent: list[bytes] = []
    while send(message := b"%09d" % len(sent) + b"x" * (len(sent) % 3_000)):
        sent.append(message)
    return sent


def test_a_node_that_does_not_read(node: Node, client: Pipes) -> None:
    sent = fill(lambda message: client.send(message, []))
    assert len(sent) > 10
    assert [header for header, _ in texts(node.receive_all())] == sent, "one read empties it"
    assert client.send(b"again", [])
    assert texts(node.receive_all()) == [(b"again", [])]


def test_a_client_that_does_not_read(node: Node, client: Pipes) -> None:
    sent = fill(lambda message: node.send(PEER, message, []))
    assert not node.send(PEER, b"small", []), "for good: what goes around it must not be overtaken"
    assert [header for header, _ in client.receive()] == sent
    assert not node.send(PEER, b"small", [])
    assert client.send(b"still heard", [])
    assert texts(node.receive_all()) == [(b"still heard", [])]


def test_a_full_pipe_is_read_at_once(pipes: Pipes) -> None:
    size = fcntl.fcntl(pipes.requests_end.fd, fcntl.F_GETPIPE_SZ)
    assert size <= PIPE_READ_BYTES


def test_a_pipe_of_one_page(node: Node, client: Pipes) -> None:
    """What the kernel gives to a user who has very many."""
    for end in (client.requests_end, client.replies_end):
        fcntl.fcntl(end.fd, fcntl.F_SETPIPE_SZ, 1)
    assert client.send(LARGEST, [])
    assert not client.send(b"h", [])
    assert texts(node.receive_all()) == [(LARGEST, [])]
    assert node.send(PEER, LARGEST, [])
    assert client.receive() == [(LARGEST, [])]


def test_a_pipe_made_larger(node: Node, client: Pipes, caplog: pytest.LogCaptureFixture) -> None:
    """A client that does so must not wonder when the node reads it in pieces."""
    fcntl.fcntl(client.requests_end.fd, fcntl.F_SETPIPE_SZ, 4 * PIPE_READ_BYTES)
    fill(lambda message: client.send(message, []))
    assert node.receive_all() == []
    assert len(node) == 0
    assert "pipes are closed" in caplog.text


def test_a_client_that_is_gone(node: Node, pipes: Pipes) -> None:
    gone = Pipes()
    node.open(b"gone", ME, gone.requests_end, gone.replies_end)
    node.open(PEER, ME, pipes.requests_end, pipes.replies_end)
    assert gone.send(b"last words", [])
    gone.close()
    assert texts(node.receive_all()) == [(b"last words", [])]
    assert not node.send(b"gone", b"reply", []), "EPIPE"
    assert len(node) == 2
    assert node.receive_all() == []  # the end
    assert len(node) == 1
    assert not node.send(b"gone", b"reply", [])
    assert node.receive_all() == node.before(b"gone") == []
    assert pipes.send(b"another", [])
    assert texts(node.receive_all()) == [(b"another", [])]


def test_connections_that_end(node: Node, client: Pipes) -> None:
    client.send(b"unread", [])
    node.close([PEER, b"nobody"])
    node.close([PEER])
    assert len(node) == 0
    assert node.receive_all() == node.before(PEER) == []
    assert not node.send(PEER, b"reply", [])
    assert client.send(b"to nobody", []), "no SIGPIPE, no EPIPE: its connection tells that the node is gone"


def test_garbage_costs_its_sender_the_pipes(
    node: Node, client: Pipes, caplog: pytest.LogCaptureFixture
) -> None:
    bad = Pipes()
    try:
        node.open(b"bad", ME, bad.requests_end, bad.replies_end)
        os.write(bad._requests, (pack(b"good", []) or b"") + b"\xff" * 100)
        client.send(b"good", [])
        assert texts(node.receive_all()) == [(b"good", [])]
        assert not node.send(b"bad", b"reply", [])
        assert len(node) == 1
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert b"bad".hex() in record.message
        assert node.send(PEER, b"reply", [])
        bad.send(b"nobody reads", [])
        assert node.receive_all() == []
    finally:
        bad.close()


def test_opening_twice_replaces(node: Node, client: Pipes) -> None:
    client.send(b"old", [])
    before = descriptors()
    other = Pipes()
    try:
        node.open(PEER, ME, other.requests_end, other.replies_end)
        assert descriptors() == before + 4
        assert len(node) == 1
        other.send(b"new", [])
        assert texts(node.receive_all()) == [(b"new", [])]
        assert node.send(PEER, b"reply", [])
        assert other.receive() == [(b"reply", [])]
        assert client.receive() == []
        with pytest.raises(LocalPathError):
            node.open(PEER, ME, other.requests_end, PipeEnd(1 << 20, 0))
        other.send(b"still open", [])
        assert texts(node.receive_all()) == [(b"still open", [])]
    finally:
        other.close()


def test_so_many_clients(node: Node, client: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_pipes, "PIPED_CLIENTS_MAX", 1)
    ends = client.requests_end, client.replies_end
    with pytest.raises(LocalPathError, match="1 clients"):
        node.open(b"other", ME, *ends)
    node.open(PEER, ME, *ends)
    node.close([PEER])
    node.open(b"other", ME, *ends)


def inode(fd: int) -> PipeEnd:
    return PipeEnd(fd, os.fstat(fd).st_ino)


@pytest.mark.parametrize("which", ["requests", "replies"])
@pytest.mark.parametrize("kind", ["file", "folder", "socket", "device", "closed", "another pipe", "none"])
def test_another_kind_of_file(
    node: Node, pipes: Pipes, tmp_path: Path, kind: str, which: str, request: pytest.FixtureRequest
) -> None:
    """Refused, whatever it is; the descriptors are counted after each test."""
    if kind == "socket":
        ours, theirs = socket.socketpair()
        request.addfinalizer(ours.close)
        request.addfinalizer(theirs.close)
        end = inode(ours.fileno())
    elif kind in ("closed", "none"):
        other = Pipes()
        end = other.requests_end if kind == "closed" else PipeEnd(2**31 - 1, 1)
        other.close()
    elif kind == "another pipe":  # as when the number was given to another file since
        end = PipeEnd(pipes.requests_end.fd, pipes.requests_end.inode + (1 << 32))
    else:
        path = {"file": tmp_path / "file", "folder": tmp_path, "device": Path("/dev/null")}[kind]
        if kind == "file":
            path.write_bytes(b"content")
        fd = os.open(path, os.O_RDONLY)
        request.addfinalizer(lambda: os.close(fd))
        end = inode(fd)
    ends = {"requests": pipes.requests_end, "replies": pipes.replies_end, which: end}
    with pytest.raises(LocalPathError):
        node.open(PEER, ME, ends["requests"], ends["replies"])
    assert len(node) == 0
    if kind == "file":
        assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (None, "ipc"),
        (part_of("127.0.0.1"), "ipc"),
        (part_of(f"localhost:{os.geteuid() + 1}:0:{os.getpid()}"), "for user"),
        (part_of(f"localhost:{os.geteuid()}:0:0"), "cannot be opened"),  # of another PID namespace
    ],
    ids=["nobody", "tcp", "another user", "unknown process"],
)
def test_another_kind_of_peer(node: Node, pipes: Pipes, part: Any, reason: str) -> None:
    with pytest.raises(LocalPathError, match=reason):
        node.open(PEER, part, pipes.requests_end, pipes.replies_end)


def test_one_pipe_for_both_ways(node: Node, pipes: Pipes) -> None:
    with pytest.raises(LocalPathError, match="its own replies"):
        node.open(PEER, ME, pipes.requests_end, pipes.requests_end)


@pytest.mark.parametrize("left", [0, 1])
def test_a_node_without_descriptors(
    node: Node, pipes: Pipes, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    real, opened = os.open, []

    def limited(path: str, flags: int) -> int:
        if len(opened) == left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        opened.append(real(path, flags))
        return opened[-1]

    monkeypatch.setattr(peer_pipes.os, "open", limited)
    with pytest.raises(LocalPathError, match="Too many open files"):
        node.open(PEER, ME, pipes.requests_end, pipes.replies_end)
    assert len(opened) == left
    assert len(node) == 0


def test_on_another_system(node: Node, pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(LocalPathError, match="Linux"):
        node.open(PEER, ME, pipes.requests_end, pipes.replies_end)
    assert node.before(PEER) == []
    assert not node.send(PEER, b"reply", [])
    node.close([PEER])


ELSEWHERE = """
import os, select, sys
sys.platform = "darwin"
del os.pipe2, select.epoll
select.PIPE_BUF = 512
from tailrace.transport import peer_pipes, pipes
try:
    pipes.Pipes()
except (OSError, AttributeError) as error:
    print("refused")
"""


def test_it_can_be_imported_elsewhere() -> None:
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("refused\n", 0), done.stderr


def test_no_descriptors_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.pipe2, []

    def pipe2(flags: int) -> tuple[int, int]:
        calls.append(flags)
        if len(calls) == 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(flags)

    monkeypatch.setattr(os, "pipe2", pipe2)
    with pytest.raises(OSError, match="Too many"):
        Pipes()
    assert len(calls) == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_of_the_node_keeps_nothing_ready(node: Node, client: Pipes) -> None:
    """A child has the descriptors, too: what is in pipes that were closed must not come to the node."""
    child = os.fork()
    if child == 0:
        try:
            signal.pause()
        finally:
            os._exit(0)
    try:
        client.send(b"unread", [])
        node.close([PEER])
        assert node.receive_all() == []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


LONE_CLIENT = """
import signal, sys
from tailrace.transport.pipes import Pipes
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
pipes = Pipes()
print(*pipes.requests_end, *pipes.replies_end, flush=True)
sys.stdin.readline()
assert pipes.send(b"to nobody", [])
print("alive", flush=True)
sys.stdin.readline()
"""


def test_between_processes(node: Node) -> None:
    """A client whose application wants to be killed by SIGPIPE is not, when its node is gone."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", LONE_CLIENT]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        numbers = list(map(int, client.stdout.readline().split()))
        part = part_of(f"localhost:{os.geteuid()}:0:{client.pid}")
        for _ in range(2):
            node.open(PEER, part, PipeEnd(*numbers[:2]), PipeEnd(*numbers[2:]))
            node.close([PEER])
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.stdout.readline() == "alive\n"
        node.open(PEER, part, PipeEnd(*numbers[:2]), PipeEnd(*numbers[2:]))
        assert texts(node.receive_all()) == [(b"to nobody", [])], "it was never read"
        client.kill()
        wait_until(lambda: not node.receive_all() and not len(node), "the end")
