"""What a process is told that may open no more files."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from tailrace.protocol.errors import LimitExceededError


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
