"""Producers that are still open at the end of the interpreter, or in a forked child."""

import atexit
import logging
import os
import warnings
import weakref
from functools import partial
from typing import Final, Protocol

from tailrace.client import lifecycle
from tailrace.protocol.errors import TailraceError, TimedOutError

TOLD_AFTER_S: Final = 1.0
"""Who ends a process is told after this why it does not end yet."""

_log = logging.getLogger(__name__)


class Open(Protocol):
    """What a producer offers for its end."""

    def flush(self, timeout: float) -> None:
        """Deliver everything. Raises TimedOutError, with what stands in the way, after `timeout` seconds."""

    def close(self) -> None:
        """Deliver everything, then stop."""

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
        for finish in (partial(_flush, producer), producer.close):
            try:
                finish()
            except TailraceError as error:
                _log.error("a producer that was not closed: %s", error)
        warnings.warn("a producer was not closed", ResourceWarning, stacklevel=1, source=producer)


def _flush(producer: Open) -> None:
    try:
        producer.flush(TOLD_AFTER_S)
    except TimedOutError as error:
        _log.warning("the process waits for a producer that was not closed, Ctrl-C ends it: %s", error)


def _disown_all() -> None:
    for producer in tuple(_open):
        producer.disown()
    _open.clear()


# Runs before `lifecycle` closes the engines: what is registered last runs first.
assert lifecycle
atexit.register(_close_all)
os.register_at_fork(after_in_child=_disown_all)
