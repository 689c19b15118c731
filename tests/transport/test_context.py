"""What a socket cannot be had for."""

import errno
import re
import subprocess
import sys
import threading
from unittest.mock import Mock

import pytest
import zmq

from tailrace.protocol.errors import LimitExceededError
from tailrace.transport.connection import Connection
from tailrace.transport.context import new_context, new_socket

from ..patience import PATIENCE_S

FEW_DESCRIPTORS = """
import resource
from itertools import count
from pathlib import Path

from tailrace.protocol.errors import LimitExceededError
from tailrace.transport.context import new_context
from tailrace.transport.poller import Poller
from tailrace.transport.wakeup import Wakeup

used = {{int(entry.name) for entry in Path("/proc/self/fd").iterdir()}}
most = next(most for most in count() if most - len({{fd for fd in used if fd < most}}) == {left})
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
try:
    {made}()
except LimitExceededError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
assert {{int(entry.name) for entry in Path("/proc/self/fd").iterdir()}} == used
"""


def told_with(left: int, made: str) -> str:
    """What a process is told that may open `left` files more. Not in this one, whose other contexts would
    abort it: libzmq's threads need descriptors when they please, and poll(2) refuses more than the limit."""
    program = FEW_DESCRIPTORS.format(left=left, made=made)
    return subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


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
    assert "no file descriptor is left for sockets" in told_with(8, "new_context")


@pytest.mark.parametrize(("made", "what"), [("Wakeup", "a wake-up"), ("Poller", "a poller")])
def test_what_the_system_has_no_descriptor_for(made: str, what: str) -> None:
    assert re.search(rf"left for {what}: this process may open \d+ files", told_with(0, made))
