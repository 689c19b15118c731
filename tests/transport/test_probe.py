"""Whether a process listens, found out without waiting."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tailrace.transport.probe import Probe


@contextmanager
def listening(kind: str, folder: Path) -> Iterator[str]:
    family = socket.AF_UNIX if kind == "ipc" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "s") if kind == "ipc" else ("127.0.0.1", 0))
        listener.listen()
        name = listener.getsockname()
        yield f"ipc://{name}" if kind == "ipc" else f"tcp://127.0.0.1:{name[1]}"


def refused_within(endpoint: str, seconds: float) -> bool:
    with closing(Probe(endpoint)) as probe:
        end = time.monotonic() + seconds
        while not probe.refused and time.monotonic() < end:
            time.sleep(0.001)
        return probe.refused


@pytest.mark.parametrize("kind", ["tcp", "ipc"])
def test_only_where_nobody_listens_any_more_it_is_refused(kind: str, tmp_path: Path) -> None:
    with listening(kind, tmp_path) as endpoint:
        assert not refused_within(endpoint, 0.1)
    assert refused_within(endpoint, 5)


@pytest.mark.parametrize("endpoint", ["tcp://node-1.example:1", "ipc:///nowhere/s", "tcp://", "tcp://[::1"])
def test_what_cannot_be_tried_is_not_refused(endpoint: str) -> None:
    assert not refused_within(endpoint, 0.05)
