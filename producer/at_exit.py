"""Producers that are still open at the end of the interpreter, or in a forked child."""

import atexit
import logging
import os
import warnings
import weakref
from typing import Protocol

from tailrace.client import lifecycle
from tailrace.protocol.errors import TailraceError

_log = logging.getLogger(__name__)


class Open(Protocol):
    """What a producer offers for its end."""

    def close(self) -> None:
        """Deliver everything, then stop. Who waits for that is told why."""

    def disown(self) -> None:
        """This process is a fork of the one that the producer belongs to."""


_open: "weakref.WeakSet[Open]" = weakref.WeakSet()


def register(producer: Open) -> None:
    """It may hold records from now on."""
    _open.add(producer)


def unregister(producer: Open) -> None:
    """It was closed."""
    _open.discard(producer)


def _close_all() -> None:
    for producer in tuple(_open):
        try:
            producer.close()
        except TailraceError as error:
            _log.error("a producer that was not closed: %s", error)
        warnings.warn("a producer was not closed", ResourceWarning, stacklevel=1, source=producer)


def _disown_all() -> None:
    for producer in tuple(_open):
        producer.disown()
    _open.clear()


# Runs before `lifecycle` closes the engines: what is registered last runs first.
assert lifecycle
atexit.register(_close_all)
os.register_at_fork(after_in_child=_disown_all)
