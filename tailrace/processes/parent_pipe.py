"""How children notice that their parent is gone, and how it tells of their ends."""

import os
import signal
import weakref
from typing import Final

_NOT_OPEN: Final = -1
_SIGBUS_HINT: Final = (
    "as when data.mdb was cut short, or its disk cannot be read. Where other nodes have replicas of all that "
    "a node holds, move its data folder away, and it copies them again"
)


class ParentPipe:
    """The pipe by which children notice that their parent is gone, however it ended."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        _pipes.add(self)

    def close_in_fork(self) -> None:
        """A fork of the parent, which may live longer, must not keep the children alive.

        Once: in a fork of the fork the number is another file's.
        """
        _pipes.discard(self)
        os.close(self._writer)
        self._writer = _NOT_OPEN

    def close(self) -> None:
        """End the children that are still there."""
        _pipes.discard(self)
        os.close(self.reader)
        if self._writer != _NOT_OPEN:
            os.close(self._writer)


_pipes: Final[weakref.WeakSet[ParentPipe]] = weakref.WeakSet()


def _close_pipes() -> None:
    for pipe in list(_pipes):
        pipe.close_in_fork()


os.register_at_fork(after_in_child=_close_pipes)


def describe_exit(code: int) -> str:
    """`exit code 1` or `SIGKILL`."""
    if code == -signal.SIGBUS:
        return f"SIGBUS, {_SIGBUS_HINT}"
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
