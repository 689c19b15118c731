"""What a socket cannot be had for."""

import errno
import resource
from unittest.mock import Mock

import pytest
import zmq

from tailrace.protocol.errors import LimitExceededError
from tailrace.transport.context import new_socket
from tailrace.transport.poller import Poller
from tailrace.transport.wakeup import Wakeup


def test_a_process_without_a_file_descriptor_left() -> None:
    context = Mock()
    context.socket.side_effect = zmq.ZMQError(errno.EMFILE)
    with pytest.raises(LimitExceededError, match=r"left for tcp://h:1: this process may open \d+ files"):
        new_socket(context, zmq.DEALER, "tcp://h:1")
    context.socket.side_effect = zmq.ZMQError(errno.EFAULT)
    with pytest.raises(zmq.ZMQError):
        new_socket(context, zmq.DEALER, "tcp://h:1")


@pytest.mark.parametrize("made", [Wakeup, Poller])
def test_what_the_system_has_no_descriptor_for(made: type[Wakeup | Poller]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(LimitExceededError, match="this process may open 0 files"):
            made()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
