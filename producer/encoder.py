"""Batches become bytes: at once or when they are sent, in memory that is used again and again.

Memory that is touched for the first time costs many times what it costs to write to: with buffers of its own
for each batch, that would be most of the work.
"""

from typing import Final

from tailrace.protocol.compression import Compression
from tailrace.protocol.errors import BatchTooLargeError, InvalidArgumentError
from tailrace.protocol.limits import KIB, MIB
from tailrace.protocol.parts import SMALL_PART_BYTES

from .batch import BATCH_OVERHEAD_BYTES, Batch, Stamp

EARLY_BYTES_MAX: Final = 16 * MIB
"""With more than this in hand, a batch is not encoded before it is sent."""
ROOM_BYTES_MIN: Final = 32 * KIB
"""Smaller batches are not worth a room of their own."""
FREE_BYTES_MAX: Final = 16 * MIB
"""Rooms that are kept while nobody needs them."""


class Rooms:
    """Rooms of `size` bytes. The one that was given back last, and so may still be in the processor's caches,
    is the first to be used again. Any thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[memoryview] = []
        self._kept = max(1, FREE_BYTES_MAX // size)

    def take(self) -> memoryview:
        """A room that nobody else uses."""
        try:
            return self._free.pop()
        except IndexError:
            return memoryview(bytearray(self._size))

    def give(self, room: memoryview) -> None:
        """Nobody uses it any more."""
        if len(self._free) < self._kept:
            self._free.append(room)


class Encoder:
    """Encodes the sealed batches of one producer, whose full ones take `batch_bytes`. Any thread."""

    def __init__(self, batch_bytes: int, *, compresses: bool) -> None:
        self.early = not compresses
        """Are there batches that are encoded before they are sent? Those of arrays all are."""
        self._rooms = Rooms(batch_bytes + BATCH_OVERHEAD_BYTES)

    def encode_early(self, batch: Batch, used_bytes: int) -> None:
        """Encode a batch that was just filled and sealed, while its records are in the processor's caches.

        Later costs more. But compression lets other threads run meanwhile, and what will not be sent soon,
        with `used_bytes` in hand, would only take memory twice: both are left to the I/O thread.
        """
        if self.early and batch.encoded is None and (batch.packed or used_bytes <= EARLY_BYTES_MAX):
            try:  # noqa: SIM105 - suppress() is three calls more for each small batch
                self.encode(batch, Compression.NONE, batch.foreseen)
            except (InvalidArgumentError, BatchTooLargeError):
                pass  # the I/O thread meets it again, and fails the batch; all else is a signal handler's

    def encode(self, batch: Batch, compression: Compression, stamp: Stamp) -> None:
        """Encode a batch, in memory that is used again if that is worth it. Raises like `Batch.encode`."""
        roomy = ROOM_BYTES_MIN <= batch.size < SMALL_PART_BYTES * batch.count and self.early
        batch.encode(compression, stamp, self._rooms.take() if roomy else None)

    def reuse_memory(self, batch: Batch) -> None:
        """The batch is stored: no request holds its bytes any more."""
        room, batch.memory = batch.memory, None
        if room is not None:
            self._rooms.give(room)
