"""A real node beside a real coordinator, and a client that speaks the bare protocol."""

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tailrace.coordinator.config import CoordinatorConfig
from tailrace.coordinator.main import Coordinator
from tailrace.node.config import NodeConfig
from tailrace.node.main import Node
from tailrace.protocol.cluster import Listener, TopicInfo
from tailrace.protocol.columns import encode
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.messages import (
    CreateTopic,
    Fetch,
    Fetched,
    FetchEntry,
    Produce,
    Produced,
    ProduceEntry,
    TopicCreated,
)
from tailrace.protocol.wire import decode_reply
from tailrace.protocol.wire import encode as encode_message
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import new_context
from tailrace.transport.poller import Poller

from ..patience import PATIENCE_S

MIB = 1024 * 1024
NODE_SCRIPT = Path(__file__).with_name("node_process.py")


class Peer:
    """One connection; requests and replies as they are on the wire."""

    def __init__(self, context: Any, endpoint: str) -> None:
        self.connection = Connection(context, endpoint)
        self._poller = Poller()
        self._poller.add(self.connection)
        self._closed = False
        self._ids = itertools.count(1)
        self._wait(lambda: self.connection.state is ConnectionState.READY, PATIENCE_S)

    def _wait(self, done: Callable[[], Any], timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            self.connection.update()
            result = done()
            if result:
                return result
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"nothing from {self.connection.endpoint} for {timeout} s")
            self._poller.poll(left)

    def send(self, kind: type, frames: Any = (), **fields: Any) -> int:
        """Send a request, return its id."""
        request_id = next(self._ids)
        assert self.connection.send(encode_message(kind(request_id, **fields)), frames)
        return request_id

    def receive(self, timeout: float = PATIENCE_S) -> tuple[Any, list[bytes]]:
        """The next reply, decoded, and its payload frames."""
        header, frames = self._wait(self.connection.receive, timeout)
        return decode_reply(header), frames

    def ask(
        self, kind: type, frames: Any = (), timeout: float = PATIENCE_S, **fields: Any
    ) -> tuple[Any, list[bytes]]:
        """Send a request and wait for its reply."""
        request_id = self.send(kind, frames, **fields)
        reply, payload = self.receive(timeout)
        assert reply.request_id == request_id
        return reply, payload

    def close(self) -> None:
        """May be repeated."""
        if not self._closed:
            self._closed = True
            self._poller.close()
            self.connection.close()


class Running:
    """A Node or Coordinator whose `run` is in a thread of this process."""

    def __init__(self, part: Node | Coordinator) -> None:
        self.part = part
        self.error: BaseException | None = None
        self.listener = Listener("")
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.part.run(self._on_ready)
        except (TailraceError, RuntimeError) as error:
            self.error = error
        finally:
            self._ready.set()

    def _on_ready(self, listener: Listener) -> None:
        self.listener = listener
        self._ready.set()

    def wait_ready(self, timeout: float = PATIENCE_S) -> "Running":
        assert self._ready.wait(timeout), "not ready in time"
        if self.error is not None:
            raise self.error
        return self

    def is_ready(self) -> bool:
        return self._ready.is_set()

    def join(self, timeout: float = PATIENCE_S) -> None:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "did not end in time"

    def stop(self) -> None:
        self.part.stop()
        self.join()
        if self.error is not None:
            raise self.error


class House:
    """A folder with one coordinator and the nodes that a test starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = new_context()
        self.coordinator: Running | None = None
        self.nodes: list[Running] = []
        self.processes: list[subprocess.Popen[str]] = []
        self._peers: list[Peer] = []
        self.coordinator_ipc = f"ipc://{folder}/run/coordinator.sock"

    def start_coordinator(self, **options: Any) -> Running:
        config = CoordinatorConfig(
            data_dir=self.folder / "coordinator",
            tcp="tcp://127.0.0.1:0",
            ipc=self.coordinator_ipc,
            publisher_ipc=f"ipc://{self.folder}/run/publisher.sock",
        )
        self.coordinator = Running(Coordinator(replace(config, **options))).wait_ready()
        return self.coordinator

    def node_config(self, node_id: int = 1, **options: Any) -> NodeConfig:
        config = NodeConfig(
            node_id=node_id,
            data_dir=self.folder / f"node-{node_id}",
            coordinator=(self.coordinator_ipc,),
            ipc=f"ipc://{self.folder}/run/node-{node_id}.sock",
            quota_bytes=256 * MIB,
            reserve_bytes=4 * MIB,
        )
        return replace(config, **options)

    def launch(self, node_id: int = 1, **options: Any) -> Running:
        """Start a node in a thread; do not wait for it."""
        node = Running(Node(self.node_config(node_id, **options)))
        self.nodes.append(node)
        return node

    def start(self, node_id: int = 1, **options: Any) -> Running:
        return self.launch(node_id, **options).wait_ready()

    def spawn(self, node_id: int = 1) -> subprocess.Popen[str]:
        """Start a node in a process of its own; returns once it is ready."""
        config = self.node_config(node_id)
        arguments = (str(node_id), str(config.data_dir), self.coordinator_ipc, config.ipc)
        process = subprocess.Popen(
            [sys.executable, str(NODE_SCRIPT), *arguments], stdout=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def peer(self, endpoint: str = "") -> Peer:
        """A new connection, to node 1 unless told otherwise."""
        peer = Peer(self.context, endpoint or self.node_config().ipc)
        self._peers.append(peer)
        return peer

    def create(self, name: str = "t", partitions: int = 1, replicas: int = 1, **config: int) -> "Topic":
        """A topic, ready to be written."""
        reply, _ = self.peer(self.coordinator_ipc).ask(
            CreateTopic, name=name, partitions=partitions, replication_factor=replicas, config=config
        )
        assert isinstance(reply, TopicCreated), reply
        return Topic(reply.topic)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        for running in [*self.nodes, *([self.coordinator] if self.coordinator else [])]:
            running.part.stop()
            running.join()
        for peer in self._peers:
            peer.close()
        self.context.term()


class Topic:
    """A topic, and the requests about it. Partition 0 and its leader epoch unless told otherwise."""

    def __init__(self, info: TopicInfo) -> None:
        self.info = info
        self.id = info.topic_id
        self.epoch = info.partitions[0].leader_epoch

    def entry(self, partition: int = 0) -> ProduceEntry:
        return ProduceEntry(self.id, partition, self.epoch)

    def produce(self, peer: Peer, *values: bytes, partition: int = 0, **header: int) -> Any:
        """One batch; the result of it."""
        header.setdefault("timestamps", time.time_ns() // 1_000_000)
        batch = encode(list(values), **header)  # type: ignore[arg-type]
        reply, _ = peer.ask(Produce, [batch], entries=[self.entry(partition)])
        assert isinstance(reply, Produced), reply
        return reply.results[0]

    def fetch_entry(self, offset: int, partition: int = 0, max_bytes: int = MIB) -> FetchEntry:
        return FetchEntry(self.id, partition, self.epoch, offset, max_bytes)

    def fetch(
        self, peer: Peer, offset: int = 0, partition: int = 0, **fields: int
    ) -> tuple[Fetched, list[bytes]]:
        reply, frames = peer.ask(Fetch, entries=[self.fetch_entry(offset, partition)], **fields)
        assert isinstance(reply, Fetched), reply
        return reply, frames


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A coordinator runs; the test starts the nodes."""
    house = House(tmp_path_factory.mktemp("h"))
    try:
        house.start_coordinator()
        yield house
    finally:
        house.close()


@pytest.fixture
def bare_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Nothing runs yet."""
    house = House(tmp_path_factory.mktemp("h"))
    try:
        yield house
    finally:
        house.close()
