"""Power loss, replayed: which bytes of a file could be on the disk at a given moment of a recording.

The model: what a sync covered is there; a write to a file opened with O_DSYNC is there once it has
returned; of everything else each 512-byte sector is there or not, independently, with p = 1/2.
"""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .recording import Event, Kind

SECTOR_BYTES = 512


class Write(NamedTuple):
    """A write that is not known to be on the disk."""

    offset: int
    data: bytes
    durable_on_return: bool


class Disk:
    """One file: the bytes that are safe, and the writes in order that are not yet."""

    def __init__(self) -> None:
        self.safe = bytearray()
        self.pending: list[Write] = []

    def apply(self, event: Event) -> None:
        """Follow the recording by one event."""
        if event.kind is Kind.WRITE_BEGIN:
            self.pending.append(Write(event.offset, event.data, event.durable))
        elif event.kind is Kind.WRITE_END and event.durable:
            done = next(
                write for write in self.pending if write.durable_on_return and write.offset == event.offset
            )
            self.pending.remove(done)
            _put(self.safe, done.offset, done.data)
        elif event.kind is Kind.SYNC_END and event.ok:
            for write in self.pending:
                _put(self.safe, write.offset, write.data)
            self.pending.clear()

    def crash(self, choice: random.Random | None) -> bytes:
        """The file after a power loss now; with no `choice` nothing that is not safe survives."""
        image = bytearray(self.safe)
        for write in self.pending if choice is not None else ():
            for at, sector in _sectors(write):
                if choice is not None and choice.random() < 0.5:
                    _put(image, at, sector)
        return bytes(image)


def crash_points(events: Sequence[Event], count: int, choice: random.Random) -> list[int]:
    """`count` indexes of events after which the power fails, drawn from writes, syncs and sends."""
    kinds = (Kind.WRITE_BEGIN, Kind.WRITE_END, Kind.SYNC_END, Kind.SEND)
    candidates = [index for index, event in enumerate(events) if event.kind in kinds]
    return sorted(choice.choices(candidates, k=count))


def _sectors(write: Write) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(write.data), SECTOR_BYTES):
        yield write.offset + at, write.data[at : at + SECTOR_BYTES]


def _put(image: bytearray, offset: int, data: bytes) -> None:
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data
