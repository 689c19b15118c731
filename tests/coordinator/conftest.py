"""Real coordinators, in a thread or a process of their own, and peers that talk to them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tailrace.coordinator.config import CoordinatorConfig
from tailrace.coordinator.main import Coordinator
from tailrace.protocol.cluster import Listener
from tailrace.protocol.messages import GetSnapshot, Published, Reply, Request, SnapshotTaken
from tailrace.protocol.wire import decode_published, decode_reply, encode
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import Context, new_context
from tailrace.transport.poller import Poller
from tailrace.transport.publisher import Subscriber

from ..patience import PATIENCE_S

PROGRAM = """
import json, resource, signal, sys
from pathlib import Path
from tailrace.coordinator.config import CoordinatorConfig
from tailrace.coordinator.main import Coordinator

fields = json.loads(sys.argv[1])
if limit := fields.pop("file_bytes_max", None):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
coordinator = Coordinator(CoordinatorConfig(**fields | {"data_dir": Path(fields["data_dir"])}))
signal.signal(signal.SIGTERM, lambda *_: coordinator.stop())
coordinator.run(lambda listener: print(listener.tcp, flush=True))
"""


class Peer:
    """A connection to a coordinator, and what came back on it."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self.connection = Connection(context, endpoint)
        self.poller = Poller()
        self.poller.add(self.connection)
        self.requests = 0

    def next_id(self) -> int:
        self.requests += 1
        return self.requests

    def connect(self) -> "Peer":
        self.wait(lambda: self.connection.update() is not ConnectionState.CONNECTING)
        return self

    def send_raw(self, header: bytes, frames: Sequence[bytes] = ()) -> None:
        assert self.connection.send(header, frames)

    def send(self, kind: type[Request], **fields: Any) -> int:
        """The id of the request that was sent."""
        request_id = self.next_id()
        self.send_raw(encode(kind(request_id, **fields)))
        return request_id

    def receive(self) -> Reply:
        replies = self.wait(self.connection.receive)
        return decode_reply(replies[0])

    def ask(self, kind: type[Request], **fields: Any) -> Reply:
        request_id = self.send(kind, **fields)
        reply = self.receive()
        assert reply.request_id == request_id
        return reply

    def snapshot(self) -> SnapshotTaken:
        reply = self.ask(GetSnapshot)
        assert isinstance(reply, SnapshotTaken)
        return reply

    def wait(self, ready: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (result := ready()):
            assert time.monotonic() < deadline, "no answer"
            self.poller.poll(deadline - time.monotonic())
            self.connection.update()
        return result


class Listening:
    """A subscriber, and what it has heard."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self.subscriber = Subscriber(context, endpoint)
        self.poller = Poller()
        self.poller.add(self.subscriber)

    def next(self) -> Published:
        deadline = time.monotonic() + PATIENCE_S
        while (data := self.subscriber.receive()) is None:
            assert time.monotonic() < deadline, "nothing was published"
            self.poller.poll(deadline - time.monotonic())
        return decode_published(data)

    def drain(self) -> None:
        while self.subscriber.receive() is not None:
            pass


class Peers:
    """Makes peers and subscribers, and closes them."""

    def __init__(self) -> None:
        self.context = new_context()
        self.closing: list[Connection | Subscriber] = []

    def peer(self, endpoint: str) -> Peer:
        peer = Peer(self.context, endpoint)
        self.closing.append(peer.connection)
        return peer.connect()

    def subscribe(self, endpoint: str) -> Listening:
        listening = Listening(self.context, endpoint)
        self.closing.append(listening.subscriber)
        return listening

    def listening(self, endpoint: str) -> Listening:
        """A subscriber that is known to hear the publisher, by one of its beats."""
        listening = self.subscribe(endpoint)
        listening.next()
        return listening

    def close(self) -> None:
        for closable in self.closing:
            closable.close()
        self.context.term()


@pytest.fixture
def peers() -> Iterator[Peers]:
    made = Peers()
    yield made
    made.close()


class Running:
    """A coordinator in a thread."""

    def __init__(self, config: CoordinatorConfig, parent_fd: int | None) -> None:
        self.coordinator = Coordinator(config)
        self.ready = threading.Event()
        self.pool = ThreadPoolExecutor(1)
        self.running = self.pool.submit(self.coordinator.run, self.on_ready, parent_fd)
        self.running.add_done_callback(lambda _: self.ready.set())

    def on_ready(self, listener: Listener) -> None:
        self.listener = listener
        self.ready.set()

    def wait_ready(self) -> "Running":
        assert self.ready.wait(PATIENCE_S)
        if self.running.done():
            self.running.result()
        return self

    def stop(self) -> None:
        self.coordinator.stop()
        self.join()

    def join(self) -> None:
        self.running.result(PATIENCE_S)


StartThread = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartThread]:
    """Start a coordinator in a thread, on the test's own data folder."""
    running: list[Running] = []

    def start(parent_fd: int | None = None, **fields: Any) -> Running:
        defaults = {"data_dir": tmp_path / "coordinator", "tcp": "tcp://127.0.0.1:0", "beat_interval_ms": 50}
        running.append(Running(CoordinatorConfig(**defaults | fields), parent_fd))
        return running[-1].wait_ready()

    yield start
    for coordinator in running:
        coordinator.coordinator.stop()
        coordinator.running.exception(PATIENCE_S)
        coordinator.pool.shutdown()


class Child:
    """A coordinator in a process of its own."""

    def __init__(self, fields: dict[str, Any], environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(fields)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def wait(self) -> str:
        """What it wrote to stderr until it ended."""
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return errors

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)


StartChild = Callable[..., Child]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[StartChild]:
    """Start a coordinator in a process, on the test's own data folder."""
    children: list[Child] = []

    def spawn(environment: dict[str, str] | None = None, **fields: Any) -> Child:
        defaults = {"data_dir": str(tmp_path / "coordinator"), "tcp": "tcp://127.0.0.1:0"}
        children.append(Child(defaults | fields, environment))
        return children[-1]

    yield spawn
    for child in children:
        if child.process.poll() is None:
            child.signal(signal.SIGCONT)
            child.kill()
