"""The batches of one reply: copied out of the log, as frames or into the slot that the fetch has named."""

from collections.abc import Sequence
from typing import NamedTuple

from tailrace.protocol.descriptor import Descriptor, aligned, frames_of
from tailrace.protocol.errors import MalformedRequestError
from tailrace.protocol.limits import FETCH_REPLY_BATCHES_MAX, FETCH_REPLY_BYTES_MAX, LOCAL_PAYLOAD_BYTES_MIN
from tailrace.transport.peer_arenas import Payload
from tailrace.transport.server import Buffer


class Slot(NamedTuple):
    """A part of a client's arena, `start` bytes from its beginning."""

    start: int
    memory: memoryview


def slot_of(payload: Payload) -> Slot | None:
    """Where the batches may be put, if the fetch names a place. Raises MalformedRequestError."""
    if not payload.frames:
        return None
    if not payload.shared or len(payload.frames) != 1:
        raise MalformedRequestError(f"a fetch with {len(payload.frames)} payload frames")
    return Slot(payload.start, payload.frames[0])


class FetchReply:
    """Takes batches up to `max_bytes`, but always one. `full`: a bound was reached, waiting brings no more.

    `batches` are those taken so far, `size` counts their bytes. Any thread, one after the other.
    """

    def __init__(self, max_bytes: int, slot: Slot | None) -> None:
        self.size = 0
        self.full = False
        self.no_room = 0
        """Bytes that are there, too, and that a partition's bound has room for, but not for a whole batch."""
        self._room = min(max_bytes, FETCH_REPLY_BYTES_MAX)
        self._slot = slot
        self.batches: list[Buffer] = []
        self._at = 0
        """Where the next batch goes in the slot."""

    def keep(self, batch: memoryview | bytes) -> int | None:
        """Copy a batch; its size, or None when it has no place here."""
        size, slot = len(batch), self._slot
        if self.batches and (self.size + size > self._room or not self._fits(size)):
            self.full = True
        if self.full:
            return None
        if slot is None:
            self.batches.append(bytes(batch))
        elif self._fits(size):
            part = slot.memory[self._at : self._at + size]
            part[:] = batch
            self.batches.append(part)
            self._at += aligned(size)
        else:  # one that is larger than the slot goes alone, as a frame
            self._slot = None
            self.batches.append(bytes(batch))
            self.full = True
        self.size += size
        self.full = self.full or self.size >= self._room or len(self.batches) >= FETCH_REPLY_BATCHES_MAX
        return size

    def cut(self, count: int) -> None:
        """Forget all but the first `count` batches."""
        while len(self.batches) > count:
            size = len(self.batches.pop())
            self.size -= size
            self._at -= aligned(size)

    def frames(self) -> Sequence[Buffer]:
        """What goes behind the header of the reply."""
        batches, slot = self.batches, self._slot
        if slot is None:
            return batches
        if self.size < LOCAL_PAYLOAD_BYTES_MIN:
            return [bytes(batch) for batch in batches]
        return frames_of(Descriptor(slot.start, list(map(len, batches))))

    def _fits(self, size: int) -> bool:
        return self._slot is None or self._at + size <= len(self._slot.memory)
