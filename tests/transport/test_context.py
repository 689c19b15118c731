"""What a socket cannot be had for."""

import errno
import resource
import threading
from itertools import count
from pathlib import Path
from unittest.mock import Mock

import pytest
import zmq

from tailrace.protocol.errors import LimitExceededError
from tailrace.transport.connection import Connection
from tailrace.transport.context import new_context, new_socket
from tailrace.transport.poller import Poller
from tailrace.transport.wakeup import Wakeup

from ..patience import PATIENCE_S


def open_descriptors() -> set[int]:
    """And that of the folder, as it was read."""
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}


def test_a_process_without_a_file_descriptor_left() -> None:
    context = Mock()
    context.socket.side_effect = zmq.ZMQError(errno.EMFILE)
    with pytest.raises(LimitExceededError, match=r"left for tcp://h:1: this process may open \d+ files"):
        new_socket(context, zmq.DEALER, "tcp://h:1")
    context.socket.side_effect = zmq.ZMQError(errno.EFAULT)
    with pytest.raises(zmq.ZMQError):
        new_socket(context, zmq.DEALER, "tcp://h:1")


def test_a_connection_that_cannot_be_watched_is_not_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_socket: zmq.Socket[bytes], _events: int) -> None:
        raise zmq.ZMQError(errno.EMFILE)

    monkeypatch.setattr(zmq.Socket, "get_monitor_socket", none_left)
    context = new_context()
    with pytest.raises(LimitExceededError, match=r"left for tcp://127\.0\.0\.1:1: this process"):
        Connection(context, "tcp://127.0.0.1:1")
    end = threading.Thread(target=context.term, daemon=True)
    end.start()
    end.join(PATIENCE_S)
    assert not end.is_alive()


def test_no_context_is_made_where_its_threads_could_not_begin() -> None:
    """libzmq ends the process then."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = open_descriptors()
    most = next(most for most in count() if most - len({fd for fd in used if fd < most}) == 8)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        with pytest.raises(LimitExceededError, match="no file descriptor is left for sockets"):
            new_context()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert open_descriptors() == used


@pytest.mark.parametrize("made", [Wakeup, Poller])
def test_what_the_system_has_no_descriptor_for(made: type[Wakeup | Poller]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(LimitExceededError, match="this process may open 0 files"):
            made()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
