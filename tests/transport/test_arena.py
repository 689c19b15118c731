"""Arenas from both sides: what is shared, and what is refused."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.protocol.descriptor import Descriptor, frames_of
from tailrace.protocol.errors import LocalPathError, MalformedRequestError
from tailrace.protocol.limits import (
    ARENA_BYTES,
    ARENA_BYTES_MAX,
    ARENA_LENT_BYTES_MAX,
    ARENA_TOKEN_BYTES,
    KIB,
    MIB,
)
from tailrace.transport import peer_arenas
from tailrace.transport.arena import SLOTS_AT, Arena
from tailrace.transport.peer_arenas import PeerArenas
from tailrace.transport.peer_files import Credentials, credentials_of, open_peer_file
from tailrace.transport.server import Buffer

from ..descriptors import descriptors

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="shared memory is Linux's")

ME = Credentials(os.geteuid(), os.getpid())
PEER = b"peer"
TOKEN = bytes(range(16))
SEALS = (fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW)


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena()
    yield arena
    arena.close()


@pytest.fixture
def arenas(arena: Arena) -> PeerArenas:
    arenas = PeerArenas()
    arenas.open(PEER, ME, arena.fd, arena.token)
    return arenas


def frame_of(descriptor: Descriptor) -> memoryview:
    return memoryview(frames_of(descriptor)[1])


def test_both_sides_see_the_same_bytes(arena: Arena, arenas: PeerArenas) -> None:
    payloads = [b"a" * 100, b"b" * 64, b"c"]
    placed = arena.place(payloads)
    assert placed is not None
    slot, descriptor = placed
    there = arenas.payload(PEER, frame_of(descriptor))
    assert list(map(bytes, there.frames)) == payloads
    assert there.shared
    assert there.start == slot.start
    there.frames[1][:] = b"B" * 64
    assert arena.lend(slot, descriptor) == [payloads[0], b"B" * 64, b"c"]


def test_its_token_is_its_own(arena: Arena) -> None:
    """Who does not see the memory cannot name it."""
    other = Arena()
    try:
        tokens = (arena.token, other.token)
        assert [os.pread(each.fd, ARENA_TOKEN_BYTES, 0) for each in (arena, other)] == list(tokens)
    finally:
        other.close()
    assert list(map(len, tokens)) == [ARENA_TOKEN_BYTES] * 2
    assert len({*tokens, bytes(ARENA_TOKEN_BYTES)}) == 3


def test_slots_are_used_again(arena: Arena) -> None:
    first, _ = arena.reserve(1_000) or pytest.fail("no room")
    second, _ = arena.reserve(1_000) or pytest.fail("no room")
    assert second.start == first.start + first.size
    arena.release(first)
    third, _ = arena.place([b"x" * 100]) or pytest.fail("no room")
    assert third.start == first.start


def test_a_full_arena(arena: Arena) -> None:
    taken = arena.reserve(ARENA_BYTES - SLOTS_AT)
    assert taken is not None
    assert arena.place([b"x"]) is None
    assert arena.reserve(1) is None
    arena.release(taken[0])
    assert arena.place([b"x"]) is not None


def test_no_memory_left(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert arena.reserve(8 * 1024 * 1024) is None
    monkeypatch.undo()
    slot, _ = arena.reserve(8 * 1024 * 1024) or pytest.fail("it is there again")
    assert slot.start == SLOTS_AT


def test_a_reply_outside_of_its_slot(arena: Arena) -> None:
    slot, _ = arena.reserve(128) or pytest.fail("no room")
    for descriptor in (Descriptor(slot.start, [129]), Descriptor(slot.start + 128, [1]), Descriptor(0, [1])):
        with pytest.raises(MalformedRequestError):
            arena.lend(slot, descriptor)


def lend(arena: Arena, size: int, used: int) -> tuple[int, list[Buffer]]:
    """Where a slot of `size` bytes begins, of which `used` came back with a payload, and that payload."""
    slot, _ = arena.reserve(size) or pytest.fail("no room")
    return slot.start, arena.lend(slot, Descriptor(slot.start, [used]))


def test_a_slot_that_is_lent_is_used_until_the_last_view_is_gone(arena: Arena) -> None:
    slot, descriptor = arena.place([b"one", b"two"]) or pytest.fail("no room")
    one, two = arena.lend(slot, descriptor)
    assert (one, two) == (b"one", b"two")
    assert isinstance(two, memoryview)
    assert two.readonly
    part = two[1:]
    del one, two
    other, _ = arena.reserve(64) or pytest.fail("no room")
    assert other.start > slot.start, "it is still looked at"
    assert part == b"wo"
    del part
    again, _ = arena.reserve(64) or pytest.fail("no room")
    assert again.start == slot.start


def test_what_a_payload_does_not_need_of_its_slot_is_free(arena: Arena) -> None:
    start, held = lend(arena, 64 * KIB, 100)
    assert lend(arena, 64 * KIB, 64)[0] == start + 128
    del held
    assert lend(arena, 64 * KIB, 64)[0] == start


def test_views_may_be_dropped_by_another_thread(arena: Arena) -> None:
    start, held = lend(arena, 64, 64)
    thread = Thread(target=held.clear)
    thread.start()
    thread.join()
    assert lend(arena, 64, 64)[0] == start


def test_copies_when_too_much_is_lent(arena: Arena) -> None:
    step = ARENA_LENT_BYTES_MAX // 4
    held = [lend(arena, step, step)[1] for _ in range(4)]
    start, copies = lend(arena, step, 64)
    assert isinstance(copies[0], bytes)
    assert lend(arena, step, 64)[0] == start, "its slot is free at once"
    del held[1]
    assert isinstance(lend(arena, step, 64)[1][0], memoryview)


def test_what_is_lent_outlives_the_arena() -> None:
    arena = Arena()
    slot, descriptor = arena.place([b"kept"]) or pytest.fail("no room")
    (view,) = arena.lend(slot, descriptor)
    arena.close()
    del arena
    assert view == b"kept"


def test_it_cannot_shrink_or_grow(arena: Arena) -> None:
    for size in (0, ARENA_BYTES - 1, ARENA_BYTES + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fd, size)


def test_the_memory_outlives_the_connection_while_it_is_used(arena: Arena, arenas: PeerArenas) -> None:
    _, descriptor = arena.place([b"kept"]) or pytest.fail("no room")
    (frame,) = arenas.payload(PEER, frame_of(descriptor)).frames
    arenas.close([PEER, b"another"])
    assert len(arenas) == 0
    assert bytes(frame) == b"kept"
    with pytest.raises(MalformedRequestError, match="no arena"):
        arenas.payload(PEER, frame_of(descriptor))


def test_lying_descriptors(arenas: PeerArenas) -> None:
    for start, sizes in ((0, [64]), (SLOTS_AT, [ARENA_BYTES]), (ARENA_BYTES, [1]), (SLOTS_AT + 1, [1])):
        with pytest.raises(MalformedRequestError):
            arenas.payload(PEER, frame_of(Descriptor(start, sizes)))


# ------------------------------------------------------------------ the hand-over


def memfd(size: int = 4_096, seals: tuple[int, ...] = SEALS, token: bytes = TOKEN) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, token, 0)
    for seal in seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seal)
    return fd


def of_huge_pages(_: Path) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | os.MFD_HUGETLB | os.MFD_HUGE_2MB
    try:
        fd = os.memfd_create("test", flags)
    except OSError as error:
        pytest.skip(f"no huge pages here: {error}")
    os.ftruncate(fd, 2 * MIB)
    for seal in SEALS:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seal)
    return fd


def of_file(path: Path) -> int:
    path.write_bytes(TOKEN.ljust(4_096))
    fd = os.open(path, os.O_RDWR)
    path.unlink()
    return fd


def half_a_pipe(_: Path) -> int:
    read, write = os.pipe()
    os.close(write)
    return read


NO_ARENAS: dict[str, tuple[Callable[[Path], int], str]] = {
    "not sealed": (lambda _: memfd(seals=()), "not sealed"),
    "may shrink": (lambda _: memfd(seals=(fcntl.F_SEAL_GROW,)), "not sealed"),
    "may grow": (lambda _: memfd(seals=(fcntl.F_SEAL_SHRINK,)), "not sealed"),
    "not to be written": (lambda _: memfd(seals=(fcntl.F_SEAL_WRITE, *SEALS)), "cannot be mapped"),
    "another token": (lambda _: memfd(token=b"z" * 16), "does not hold the token"),
    "another first byte": (lambda _: memfd(token=b"z" + TOKEN[1:]), "does not hold the token"),
    "another byte": (lambda _: memfd(token=TOKEN[:8] + b"z" + TOKEN[9:]), "does not hold the token"),
    "another last byte": (lambda _: memfd(token=TOKEN[:-1] + b"z"), "does not hold the token"),
    "empty": (lambda _: memfd(size=64), "an arena of 64 bytes"),
    "huge": (lambda _: memfd(size=ARENA_BYTES_MAX + 4_096), "at most"),
    "huge pages": (of_huge_pages, "is not the client's memory"),
    "a file": (lambda path: of_file(path / "file"), "is not the client's memory"),
    "a file in memory": (lambda _: of_file(Path(f"/dev/shm/tailrace-{os.getpid()}")), "is not the client's"),
    "a pipe": (half_a_pipe, "is not the client's memory"),
    "a device": (lambda _: os.open("/dev/zero", os.O_RDWR), "is not the client's memory"),
    "a folder": (lambda path: os.open(path, os.O_RDONLY), "is not the client's memory"),
}


@pytest.mark.parametrize("name", NO_ARENAS)
def test_what_is_no_arena(name: str, tmp_path: Path) -> None:
    make, reason = NO_ARENAS[name]
    fd = make(tmp_path)
    arenas = PeerArenas()
    before = descriptors()
    try:
        with pytest.raises(LocalPathError, match=reason):
            arenas.open(PEER, ME, fd, TOKEN)
    finally:
        assert descriptors() == before, "nothing stays open"
        os.close(fd)
    assert len(arenas) == 0


def test_locks_of_files_that_are_named_stay(tmp_path: Path) -> None:
    """They are gone when the process closes the file: those of the node's LMDB, for one."""
    path = tmp_path / "lock"
    with path.open("w+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        locked = f":{path.stat().st_ino} "
        assert locked in Path("/proc/locks").read_text()
        with pytest.raises(LocalPathError):
            PeerArenas().open(PEER, ME, file.fileno(), TOKEN)
        for access in (os.O_RDONLY, os.O_WRONLY):
            with pytest.raises(LocalPathError):
                open_peer_file(ME, file.fileno(), access, what="a pipe", fits=lambda _: False)
        assert locked in Path("/proc/locks").read_text()


def test_another_process_and_another_user(arena: Arena) -> None:
    arenas = PeerArenas()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with pytest.raises(LocalPathError):
            arenas.open(PEER, Credentials(os.geteuid(), other.pid), arena.fd, arena.token)
    finally:
        other.communicate(b"\n")
    with pytest.raises(LocalPathError, match="cannot be opened"):
        arenas.open(PEER, Credentials(os.geteuid(), other.pid), arena.fd, arena.token)
    with pytest.raises(LocalPathError, match="cannot be opened"):
        arenas.open(PEER, Credentials(os.geteuid(), 0), arena.fd, arena.token)
    with pytest.raises(LocalPathError, match="for user"):
        arenas.open(PEER, Credentials(os.geteuid() + 1, os.getpid()), arena.fd, arena.token)
    with pytest.raises(LocalPathError, match="ipc"):
        arenas.open(PEER, None, arena.fd, arena.token)


def test_no_more_than_so_many(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_arenas, "ARENAS_MAX", 2)
    arenas = PeerArenas()
    for peer in (b"1", b"2", b"2"):
        arenas.open(peer, ME, arena.fd, arena.token)
    with pytest.raises(LocalPathError, match="already"):
        arenas.open(b"3", ME, arena.fd, arena.token)
    arenas.close([b"1"])
    arenas.open(b"3", ME, arena.fd, arena.token)


def test_credentials_come_from_the_kernel(server: Any, connect: Any, wait: Any) -> None:
    for endpoint, expected in ((server.listener.ipc, ME), (server.listener.tcp, None)):
        assert connect(endpoint).send(b"hello")
        assert credentials_of(heard_by(server, wait).part) == expected


def heard_by(server: Any, wait: Any) -> Any:
    """The next message that comes to a server."""
    received: list[Any] = []

    def there() -> bool:
        incoming = server.receive()
        if incoming is not None:
            received.append(incoming)
        return bool(received)

    wait(there, server)
    return received[0]


STRANGER = """
import sys
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import new_context
from tailrace.transport.poller import Poller
context = new_context()
connection = Connection(context, sys.argv[1])
poller = Poller()
poller.add(connection)
while connection.update() is not ConnectionState.READY:
    poller.poll(1)
assert connection.send(b"hello")
sys.stdin.read()
"""
OTHER_GROUP = 4_321


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a process of another group started")
def test_the_user_is_not_the_group(server: Any, wait: Any) -> None:
    """Root's group has root's number, as others' often have theirs: here it has not."""
    command = [sys.executable, "-P", "-c", STRANGER, server.listener.ipc]
    try:
        stranger = subprocess.Popen(command, stdin=subprocess.PIPE, group=OTHER_GROUP)
    except OSError as error:
        pytest.skip(f"no other groups here: {error}")
    try:
        found = credentials_of(heard_by(server, wait).part)
        assert found == Credentials(os.geteuid(), stranger.pid)
    finally:
        stranger.kill()
        stranger.communicate()


def test_what_the_kernel_says_is_user_group_and_process() -> None:
    part: Any = SimpleNamespace(get={"Peer-Address": "localhost:11:22:33"}.__getitem__)
    assert credentials_of(part) == Credentials(uid=11, pid=33)
    for address in ("127.0.0.1", "localhost:11:22", "localhost:11:22:33:44", "elsewhere:11:22:33", ""):
        part = SimpleNamespace(get={"Peer-Address": address}.__getitem__)
        assert credentials_of(part) is None


@pytest.fixture
def server(context: Any, own: Any, tmp_path: Path) -> Any:
    from tailrace.transport.server import Server

    return own(Server(context, tcp="tcp://127.0.0.1:0", ipc=f"ipc://{tmp_path}/s/s"))
