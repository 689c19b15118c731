"""What a client does with shared memory: when it is used, when slots are free again, and frames otherwise."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tailrace.client.engine import Engine
from tailrace.client.local_path import NO_ROOM, SHARED_MEMORY, LocalPath
from tailrace.client.pending import Pending
from tailrace.protocol.cluster import NodeChanged
from tailrace.protocol.descriptor import Descriptor, decode_descriptor, descriptor_frame, frames_of
from tailrace.protocol.errors import LocalPathError, MalformedRequestError, TimedOutError
from tailrace.protocol.limits import LOCAL_PAYLOAD_BYTES_MIN, MIB
from tailrace.protocol.local_messages import ArenaOpened, OpenArena, PipesOpened
from tailrace.protocol.messages import Ping, Pong, Request
from tailrace.protocol.parts import Payload
from tailrace.transport import arena as arenas
from tests.client.conftest import Answer, StandIn, StandInCoordinator, make_node
from tests.client.piped_node import Start, piped
from tests.patience import wait_until

LARGE = b"x" * LOCAL_PAYLOAD_BYTES_MIN


def opens(request: Callable[[int], Request], told: Callable[[Any], None], _now: float) -> None:
    """A node that takes what it is offered."""
    asked = request(1)
    told(ArenaOpened(asked.request_id) if isinstance(asked, OpenArena) else PipesOpened(asked.request_id))


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPath]:
    monkeypatch.setattr(arenas, "ARENA_BYTES", 4 * MIB)
    path = LocalPath("node 1", opens)
    path.open_arena(0.0)
    assert path.open
    yield path
    path.close()


def start_of(frames: Sequence[Payload]) -> int:
    """Where the slot is that this descriptor names."""
    frame = descriptor_frame(list(frames))
    assert isinstance(frame, bytes)
    return decode_descriptor(frame).start


def open_arenas(inode: int) -> int:
    """Descriptors of this process by which it holds the arena that has this inode."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of this iteration
            found += "memfd:tailrace-arena" in str(link.readlink()) and link.stat().st_ino == inode
    return found


def pending(request_id: int, frames: tuple[Payload, ...] = (), reply_bytes: int = 0) -> Pending:
    return Pending(
        request_id,
        1,
        b"header",
        frames,
        on_reply=lambda *_: None,
        since=0.0,
        deadline=1.0,
        reply_bytes=reply_bytes,
    )


def test_what_is_worth_it(path: LocalPath) -> None:
    assert path.worth(pending(1, (LARGE,)))
    assert path.worth(pending(1, reply_bytes=1))
    assert not path.worth(pending(1, (b"small",)))


def test_a_slot_is_free_once_the_reply_is_there(path: LocalPath) -> None:
    starts = []
    for request_id in (1, 2):
        starts.append(start_of(path.outgoing(pending(request_id, (LARGE, LARGE)))))
        assert path.incoming(request_id, [b"a frame"]) == [b"a frame"]
    path.outgoing(pending(3, (LARGE,)))
    path.withdraw(3)
    path.withdraw(3)
    starts.append(start_of(path.outgoing(pending(4, (LARGE,)))))
    assert len(set(starts)) == 1


def test_a_reply_without_a_slot(path: LocalPath) -> None:
    reply = list(frames_of(Descriptor(64, [10])))
    with pytest.raises(MalformedRequestError, match="no slot"):
        path.incoming(1, reply)
    start = start_of(path.outgoing(pending(2, reply_bytes=64)))
    with pytest.raises(MalformedRequestError):
        path.incoming(2, list(frames_of(Descriptor(64, [65]))))
    assert not path.has_slot(2)
    assert start_of(path.outgoing(pending(3, reply_bytes=64))) == start, "it is free again"


@pytest.mark.parametrize("refused", [False, True])
def test_the_arena_is_given_back(refused: bool) -> None:
    """At the end, or at once where the node does not want it: with its descriptors the memory is gone."""
    told: list[Callable[[Any], None]] = []
    path = LocalPath("node 1", lambda _request, tell, _now: told.append(tell))
    path.open_arena(0.0)
    assert path.arena is not None
    inode = os.fstat(path.arena.fd).st_ino
    assert open_arenas(inode) > 0
    told[0](LocalPathError("not today") if refused else ArenaOpened(1))
    assert path.open is not refused
    if not refused:
        assert open_arenas(inode) > 0
        path.close()
    assert open_arenas(inode) == 0
    path.close()


def test_frames_when_the_arena_is_full(path: LocalPath) -> None:
    sent = 0
    while (frames := path.outgoing(pending(sent, (LARGE * 100,)))) != (LARGE * 100,):
        assert len(frames) == 2
        sent += 1
    assert sent > 1
    assert path.state == NO_ROOM
    path.incoming(0, [])
    assert len(path.outgoing(pending(sent, (LARGE * 100,)))) == 2
    assert path.state == SHARED_MEMORY


def test_no_shared_memory_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(arenas.os, "memfd_create")
    path = LocalPath("node 1", opens)
    assert path.untried
    path.open_arena(0.0)
    assert path.arena is None
    assert not path.untried
    assert path.outgoing(pending(1, (LARGE,))) == (LARGE,)
    assert path.state == "frames: shared memory by memfd is Linux's"


@pytest.fixture
def node(
    coordinator: StandInCoordinator, tmp_path: Path
) -> Iterator[Callable[[Callable[[Request], Answer]], StandIn]]:
    nodes: list[StandIn] = []

    def start(answer: Callable[[Request], Answer]) -> StandIn:
        nodes.append(StandIn(answer, ipc=f"ipc://{tmp_path}/n/{len(nodes)}"))
        coordinator.change(NodeChanged(make_node(1, nodes[-1].listener, epoch=len(nodes))))
        return nodes[-1]

    yield start
    for each in nodes:
        each.stop()


def ask(engine: Engine) -> Any:
    """A request with a large payload, and room for a large reply."""
    replies: list[Any] = []
    engine.submit(
        lambda: engine.request(1, Ping, (LARGE,), on_reply=lambda reply, frames: replies.append(reply))
    )
    while not replies:
        engine.pause(0.001)
    return replies[0]


def test_a_node_that_refuses_gets_frames(engine: Engine, node: Any) -> None:
    def answer(request: Request) -> Answer:
        return LocalPathError("not today") if isinstance(request, OpenArena) else Pong(request.request_id)

    served = node(answer)
    engine.refresh(5)
    assert isinstance(ask(engine), Pong)
    assert isinstance(ask(engine), Pong)
    assert engine.paths == {1: "frames: not today"}
    assert sum(isinstance(request, OpenArena) for request in served.requests) == 1, "it was asked once"


def test_a_slot_is_the_nodes_until_it_answers(engine: Engine, start_piped: Start) -> None:
    """However long that takes: the client has stopped waiting, and the node may still write there."""
    node = start_piped(arenas=True)
    asked = piped(engine, node)
    asked.ask(LARGE)  # has the node asked to share memory
    asked.wait()
    wait_until(lambda: engine.paths == {1: SHARED_MEMORY}, "shared memory")

    def slots(*ask: bytes, **options: float) -> list[int]:
        before = len(node.requests)
        asked.ask(*ask, **options)
        asked.wait()
        wait_until(lambda: len(node.requests) == before + len(ask), "the requests")
        return [decode_descriptor(payload).start for payload in node.payloads[before:]]

    node.held = True
    late = slots(LARGE, LARGE, timeout_s=0.05)
    assert all(isinstance(reply, TimedOutError) for _, reply, _ in asked.answered[-2:])
    later = slots(LARGE, timeout_s=0.05)
    assert len({*late, *later}) == 3
    node.release()
    slots(LARGE)  # whose answer comes behind those
    assert slots(LARGE) == late[:1]


def test_over_tcp_nobody_is_asked(coordinator: StandInCoordinator, engine: Engine, start_node: Any) -> None:
    served = start_node(lambda request: Pong(request.request_id))
    coordinator.change(NodeChanged(make_node(1, served.listener)))
    engine.refresh(5)
    assert isinstance(ask(engine), Pong)
    assert engine.paths == {1: "frames over tcp: it has no local socket"}
    assert not any(isinstance(request, OpenArena) for request in served.requests)


def test_the_state_says_what_is_used(path: LocalPath) -> None:
    assert path.state == SHARED_MEMORY
