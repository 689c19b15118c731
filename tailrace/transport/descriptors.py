"""What a process is told that may open no more files."""

import errno
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from tailrace.protocol.errors import LimitExceededError
from tailrace.protocol.limits import DESCRIPTORS_KEPT, DESCRIPTORS_PER_CLIENT


def connections_max() -> int:
    """How many clients of its machine a server can have, by the files that this process may open."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return sys.maxsize
    return (most - min(DESCRIPTORS_KEPT, most // 4)) // DESCRIPTORS_PER_CLIENT


@contextmanager
def descriptors_for(what: str) -> Iterator[None]:
    """Within it, what fails for lack of file descriptors raises LimitExceededError, which says what to do."""
    try:
        yield
    except (OSError, zmq.ZMQError) as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise LimitExceededError(
            f"no file descriptor is left for {what}: this process may open {most} files (ulimit -n). "
            "Close clients that nobody needs, or raise that limit"
        ) from error
