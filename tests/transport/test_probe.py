"""Whether a process listens, found out without waiting."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tailrace.transport.probe import Names, Probe

from ..patience import PATIENCE_S


@contextmanager
def listening(host: str, folder: Path) -> Iterator[str]:
    family = socket.AF_INET if host else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0) if host else str(folder / "s"))
        listener.listen()
        name = listener.getsockname()
        yield f"tcp://{host}:{name[1]}" if host else f"ipc://{name}"


def refused_within(endpoint: str, seconds: float) -> bool:
    """In one of several attempts: the first ones may have to wait for a name."""
    names, end = Names(), time.monotonic() + seconds
    while time.monotonic() < end:
        with closing(Probe(endpoint, names)) as probe:
            time.sleep(0.01)
            if probe.refused:
                return True
    return False


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_only_where_nobody_listens_any_more_it_is_refused(host: str, tmp_path: Path) -> None:
    with listening(host, tmp_path) as endpoint:
        assert not refused_within(endpoint, 0.2)
    assert refused_within(endpoint, PATIENCE_S)


@pytest.mark.parametrize(
    "endpoint", ["tcp://no-such-host.invalid:1", "ipc:///nowhere/s", "tcp://", "tcp://[::1"]
)
def test_what_cannot_be_tried_is_not_refused(endpoint: str) -> None:
    assert not refused_within(endpoint, 0.1)
