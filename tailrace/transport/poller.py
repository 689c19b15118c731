"""Wait until one of several sources has something to read."""

import math
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

import zmq
from zmq.backend import zmq_poll

from .context import Socket

POLL_S_MAX: Final = 86_400.0
"""System calls cannot count up to every deadline; whoever waits for longer looks at the clock again."""


class Pollable(Protocol):
    """A source of input: a Server, Connection, Subscriber or Wakeup."""

    def pollables(self) -> Sequence[Socket | int]:
        """The sockets and descriptors behind it, the same ones for its whole life."""


Source: TypeAlias = Pollable | int


class Poller:
    """Level-triggered: a source is reported until everything in it was read.

    Belongs to one thread. A poll of five sockets takes about 3 us. Signal handlers run during the
    wait; what they raise comes out of `poll`, what they hand over they announce by a `Wakeup`.
    """

    def __init__(self) -> None:
        self._items: list[tuple[Socket | int, int]] = []
        self._sources: dict[Socket | int, Source] = {}

    def add(self, source: Source) -> None:
        """Watch a source; an int is a file descriptor, reported on input and on hang-up."""
        for item in _items_of(source):
            if item in self._sources:
                raise ValueError(f"{source!r} is watched already")
            self._sources[item] = source
            self._items.append((item, zmq.POLLIN))

    def remove(self, source: Source) -> None:
        """Stop watching a source. Must be called before the source is closed."""
        for item in _items_of(source):
            del self._sources[item]
            self._items.remove((item, zmq.POLLIN))

    def poll(self, timeout_s: float | None) -> list[Source]:
        """The sources with input, each once; empty after `timeout_s` seconds (a day, if that is less).

        None waits for ever.
        """
        # Rounded up: rounding down would make the last millisecond before a deadline a busy loop.
        timeout_ms = -1 if timeout_s is None else max(0, math.ceil(min(timeout_s, POLL_S_MAX) * 1000))
        if not self._items:
            raise ValueError("nothing to wait for: the poller has no source")
        sources, ready = self._sources, zmq_poll(self._items, timeout_ms)
        if len(ready) == 1:
            return [sources[ready[0][0]]]
        return list(dict.fromkeys([sources[item] for item, _ in ready]))


def _items_of(source: Source) -> Sequence[Socket | int]:
    return (source,) if isinstance(source, int) else source.pollables()
