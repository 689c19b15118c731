"""Wait until one of several sources has something to read."""

import math
import select
import sys
from collections.abc import Sequence
from time import monotonic
from typing import Final, Protocol, TypeAlias, runtime_checkable

import zmq

from .context import Socket, readable
from .descriptors import descriptors_for

POLL_S_MAX: Final = 86_400.0
"""System calls cannot count up to every deadline; whoever waits for longer looks at the clock again."""
READY_MAX: Final = 128
"""More are reported by the next calls, in turn."""


class Pollable(Protocol):
    """A source of input: a Server, Connection, Subscriber or Wakeup."""

    def pollables(self) -> Sequence[Socket | int]:
        """The sockets and descriptors behind it, the same ones for its whole life."""


@runtime_checkable
class UsesSockets(Pollable, Protocol):
    """A source with sockets. It sets `used` whenever it does anything with one of them; the poller unsets it.

    A socket's descriptor tells once that something has happened, and whatever is done with the socket may
    take note of that (zmq_getsockopt(3), ZMQ_FD): then the socket has to be asked before the next wait.
    """

    used: bool


Source: TypeAlias = Pollable | int


class _Descriptors:
    """`select.poll`, called as `select.epoll` is, where there is no such thing."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register = self._poll.register
        self.unregister = self._poll.unregister
        self.modify = self._poll.modify

    def poll(self, timeout_s: float | None, maxevents: int) -> list[tuple[int, int]]:
        # Rounded up, as epoll does: the last millisecond before a deadline would be a busy loop.
        return self._poll.poll(None if timeout_s is None else math.ceil(timeout_s * 1000))[:maxevents]

    def close(self) -> None:
        """There is nothing to give back."""


class Poller:
    """Level-triggered: a source is reported until everything in it was read.

    Belongs to one thread. Signal handlers run during the wait; what they raise comes out of `poll`, what they
    hand over they announce by a `Wakeup`. Only the system's poll is waited in. (zmq_poll asks every socket
    twice before a wait and once after it, each time with a system call: 4 us more until one is awake.)
    Raises LimitExceededError if the process may open no more files.
    """

    def __init__(self) -> None:
        with descriptors_for("a poller"):
            self._descriptors = select.epoll() if sys.platform == "linux" else _Descriptors()
        self._sources: dict[int, Source] = {}
        """By descriptor."""
        self._sockets: dict[UsesSockets, list[Socket]] = {}

    def add(self, source: Source) -> None:
        """Watch a source; an int is a file descriptor, reported on input and on hang-up."""
        for item in _items_of(source):
            descriptor = _descriptor_of(item)
            if descriptor in self._sources:
                raise ValueError(f"{source!r} is watched already")
            self._sources[descriptor] = source
            self._descriptors.register(descriptor, select.POLLIN)
            if not isinstance(item, int):
                assert isinstance(source, UsesSockets)
                self._sockets.setdefault(source, []).append(item)
                source.used = True  # what was done with it before

    def remove(self, source: Source) -> None:
        """Stop watching a source. Before it is closed: the numbers of its descriptors may be others' then."""
        for descriptor in map(_descriptor_of, _items_of(source)):
            self._descriptors.unregister(descriptor)
            del self._sources[descriptor]
        if isinstance(source, UsesSockets):
            self._sockets.pop(source, None)

    def pause(self, source: Source) -> None:
        """Report no input of it until `resume`. By any thread, also during `poll`; no sockets."""
        self._modify(source, 0)

    def resume(self, source: Source) -> None:
        """End a `pause`."""
        self._modify(source, select.POLLIN)

    def poll(self, timeout_s: float | None) -> list[Source]:
        """The sources with input, each once, some READY_MAX of them at most.

        Empty after `timeout_s` (a day, if that is less); None waits for ever.
        """
        if not self._sources:
            raise ValueError("nothing to wait for: the poller has no source")
        left_s = None if timeout_s is None else min(max(0.0, timeout_s), POLL_S_MAX)
        until = math.inf if left_s is None else monotonic() + left_s
        while True:
            found: list[Source] = [
                source for source in self._sockets if source.used and self._has_input(source)
            ]
            told = self._descriptors.poll(0 if found else left_s, READY_MAX)
            for descriptor, _ in told:
                source = self._sources[descriptor]
                if source not in found and (source not in self._sockets or self._has_input(source)):
                    found.append(source)
            if found or not told:
                return found
            left_s = None if left_s is None else max(0.0, until - monotonic())

    def close(self) -> None:
        """Give back what the system keeps. Not to be used afterwards."""
        self._descriptors.close()

    def _modify(self, source: Source, events: int) -> None:
        for item in _items_of(source):
            self._descriptors.modify(_descriptor_of(item), events)

    def _has_input(self, source: UsesSockets) -> bool:
        source.used = any(map(readable, self._sockets[source]))
        return source.used


def _items_of(source: Source) -> Sequence[Socket | int]:
    return (source,) if isinstance(source, int) else source.pollables()


def _descriptor_of(item: Socket | int) -> int:
    return item if isinstance(item, int) else int(item.getsockopt(zmq.FD))
