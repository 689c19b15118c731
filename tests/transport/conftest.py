"""Contexts that are terminated, and server processes that are killed, whatever a test does."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from tailrace.protocol.cluster import Listener
from tailrace.protocol.errors import ConnectionFailedError
from tailrace.transport.connection import Connection, ConnectionState
from tailrace.transport.context import Context, new_context
from tailrace.transport.poller import Poller, Source

from ..patience import PATIENCE_S

ECHO_SERVER = Path(__file__).with_name("echo_server.py")

Wait = Callable[..., None]


class Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


@pytest.fixture
def context() -> Iterator[Context]:
    context = new_context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def own(context: Context) -> Iterator[Callable[[C], C]]:
    """`own(source)`: closed when the test ends, which `close` must allow more than once."""
    owned: list[Closable] = []

    def own(one: C) -> C:
        owned.append(one)
        return one

    yield own
    for one in owned:
        one.close()


@pytest.fixture
def again(own: Callable[[C], C]) -> Callable[[Callable[[], C]], C]:
    """`again(open)`: bind to the address of a source closed just now, which ZeroMQ's thread gives up soon."""

    def again(open_source: Callable[[], C]) -> C:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return own(open_source())
            except ConnectionFailedError:
                assert time.monotonic() < deadline

    return again


@pytest.fixture
def wait() -> Wait:
    """`wait(condition, *sources)`: poll the sources until the condition holds."""

    def wait(condition: Callable[[], object], *sources: Source, timeout_s: float = PATIENCE_S) -> None:
        poller = Poller()
        for source in sources:
            poller.add(source)
        deadline = time.monotonic() + timeout_s
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, "the condition did not come true in time"
            poller.poll(left)

    return wait


@pytest.fixture
def connect(
    context: Context, own: Callable[[Connection], Connection], wait: Wait
) -> Callable[[str], Connection]:
    def connect(endpoint: str) -> Connection:
        connection = own(Connection(context, endpoint))
        wait(lambda: connection.update() is ConnectionState.READY, connection)
        return connection

    return connect


EchoServer = tuple["subprocess.Popen[str]", Listener]


@pytest.fixture
def echo_server() -> Iterator[Callable[..., EchoServer]]:
    """`echo_server(tcp="tcp://127.0.0.1:0", ipc="")`: a process that answers with what it is sent."""
    processes: list[subprocess.Popen[str]] = []

    def start(tcp: str = "tcp://127.0.0.1:0", ipc: str = "") -> EchoServer:
        command = [sys.executable, str(ECHO_SERVER), tcp, ipc]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return process, Listener(process.stdout.readline().strip(), ipc)

    yield start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
