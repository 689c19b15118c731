"""Memory that a pool shares with its workers: what each has in hand, and what nobody may touch again.

It outlives a worker that dies at once, so the pool knows which record that had in hand. Layout, in
bytes: at 0 the number of bytes of the list of poisoned places and then the list, JSON; from SLOTS on one
slot a worker: partition and offset (-1: nothing in hand), the length of the topic, the topic.
"""

import json
import mmap
import os
import struct
from typing import Final, NamedTuple

SLOTS: Final = 256 * 1024
SLOT_BYTES: Final = 512
POISONED_MAX: Final = 500
"""So many fit, whatever their topics are called."""

_LENGTH: Final = struct.Struct("<Q")
_SLOT: Final = struct.Struct("<qqH249s")


class Place(NamedTuple):
    """A record, or a batch by its first record."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition} offset {self.offset}"


class Board:
    """One side's view of the memory behind `fd`, which `create` makes and workers inherit."""

    def __init__(self, fd: int, workers: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, SLOTS + workers * SLOT_BYTES)
        self._seen = 0
        self._poisoned: frozenset[Place] = frozenset()

    @classmethod
    def create(cls, workers: int) -> "Board":
        """An empty board."""
        fd = os.memfd_create("tailrace-workers")
        os.ftruncate(fd, SLOTS + workers * SLOT_BYTES)
        board = cls(fd, workers)
        for worker in range(workers):
            board.put_down(worker)
        return board

    def close(self) -> None:
        """Give it back."""
        self._memory.close()
        os.close(self.fd)

    def take(self, worker: int, topic: bytes, partition: int, offset: int) -> None:
        """This worker begins with a record."""
        _SLOT.pack_into(self._memory, SLOTS + worker * SLOT_BYTES, partition, offset, len(topic), topic)

    def put_down(self, worker: int) -> None:
        """It has nothing in hand."""
        _SLOT.pack_into(self._memory, SLOTS + worker * SLOT_BYTES, -1, -1, 0, b"")

    def in_hand(self, worker: int) -> Place | None:
        """What a worker has in hand, or had when it died."""
        partition, offset, length, topic = _SLOT.unpack_from(self._memory, SLOTS + worker * SLOT_BYTES)
        return None if offset < 0 else Place(topic[:length].decode(), partition, offset)

    def poison(self, places: set[Place]) -> None:
        """Nobody hands these to a handler any more. The list only grows: its length tells that it is new."""
        text = json.dumps(sorted(places)).encode()
        self._memory[_LENGTH.size : _LENGTH.size + len(text)] = text
        _LENGTH.pack_into(self._memory, 0, len(text))

    def poisoned(self) -> frozenset[Place]:
        """The list, read again when it has grown."""
        (length,) = _LENGTH.unpack_from(self._memory, 0)
        if length != self._seen:
            text = self._memory[_LENGTH.size : _LENGTH.size + length]
            self._poisoned = frozenset(Place(*place) for place in json.loads(text))
            self._seen = length
        return self._poisoned
