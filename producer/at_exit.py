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


_open: "weakref.WeakKeyDictionary[Open, str]" = weakref.WeakKeyDictionary()
"""By producer: its name."""


def register(producer: Open, name: str) -> None:
    """It may hold records from now on."""
    _open[producer] = name


def unregister(producer: Open) -> None:
    """It was closed."""
    _open.pop(producer, None)


def _close_all() -> None:
    for producer, name in tuple(_open.items()):
        try:
            producer.close()
        except TailraceError as error:
            _log.error("%s was not closed: %s", name, error)
        warnings.warn(f"{name} was not closed", ResourceWarning, stacklevel=1, source=producer)


def _disown_all() -> None:
    for producer in tuple(_open):
        producer.disown()
    _open.clear()


# Runs before `lifecycle` closes the engines: what is registered last runs first.
assert lifecycle
atexit.register(_close_all)
os.register_at_fork(after_in_child=_disown_all)
