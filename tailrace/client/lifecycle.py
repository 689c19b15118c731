"""What happens to engines at the end of the interpreter and across a fork."""

import atexit
import os
import warnings
import weakref
from typing import NoReturn, Protocol

from tailrace.transport import context  # noqa: F401 - its exit handlers run after ours: the last one is first


class Closable(Protocol):
    """What an engine offers for its end."""

    name: str

    def close(self) -> None:
        """Stop the I/O thread and close everything."""

    def disown(self) -> None:
        """This process is a fork of the one that the engine belongs to: touch nothing of it any more."""


class OfOneProcess:
    """A client, which has a thread and connections in the process that made it, and cannot leave it."""

    def __reduce__(self) -> NoReturn:
        """Raises TypeError."""
        raise TypeError(
            f"{type(self).__name__} cannot be pickled, since it belongs to this process: make one in each"
            " process that uses it"
        )


_running: weakref.WeakSet[Closable] = weakref.WeakSet()


def register(engine: Closable) -> None:
    """The engine runs: close it when the interpreter ends, disown it in forked children."""
    _running.add(engine)


def unregister(engine: Closable) -> None:
    """The engine was closed."""
    _running.discard(engine)


def _close_all() -> None:
    for engine in list(_running):
        engine.close()
        warnings.warn(f"{engine.name} was not closed", ResourceWarning, stacklevel=1, source=engine)


def _disown_all() -> None:
    for engine in list(_running):
        engine.disown()
    _running.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_disown_all)
