"""What a socket cannot be had for."""

import errno
from unittest.mock import Mock

import pytest
import zmq

from tailrace.protocol.errors import LimitExceededError
from tailrace.transport.context import new_socket


def test_a_process_without_a_file_descriptor_left() -> None:
    context = Mock()
    context.socket.side_effect = zmq.ZMQError(errno.EMFILE)
    with pytest.raises(LimitExceededError, match=r"left for tcp://h:1: this process may open \d+ files"):
        new_socket(context, zmq.DEALER, "tcp://h:1")
    context.socket.side_effect = zmq.ZMQError(errno.EFAULT)
    with pytest.raises(zmq.ZMQError):
        new_socket(context, zmq.DEALER, "tcp://h:1")
