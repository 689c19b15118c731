"""A client's arena: memory that it shares with one node of its machine, so that payloads need not be sent.

    arena := token (16 bytes), zeros up to byte 64, slots

A memfd, which no file system knows and which is gone with its last user, sealed against growing and
shrinking, so that neither side can be made to touch bytes that are not there.
"""

import fcntl
import os
import secrets
from collections.abc import Sequence
from mmap import MAP_SHARED, PROT_READ, PROT_WRITE, mmap
from typing import Final, NamedTuple

from tailrace.protocol.descriptor import ALIGNMENT, Descriptor, aligned, room_for
from tailrace.protocol.limits import ARENA_BYTES, ARENA_TOKEN_BYTES, MIB

from .server import Buffer
from .slots import Slots

SLOTS_AT: Final = ALIGNMENT
RESERVE_STEP_BYTES: Final = 1 * MIB
"""Memory is asked for in such steps, as it is first used: past the end of what there is, a write to a mapping
would be a SIGBUS, while this is an error."""

assert ARENA_TOKEN_BYTES <= SLOTS_AT


class Slot(NamedTuple):
    """A part of an arena that is in use."""

    start: int
    size: int


class Arena:
    """One arena of ARENA_BYTES. Belongs to one thread. Raises OSError where there is no such thing."""

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError("shared memory by memfd is Linux's")
        self.token = secrets.token_bytes(ARENA_TOKEN_BYTES)
        self.fd = os.memfd_create("tailrace-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, ARENA_BYTES)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._reserved = 0
            self._reserve(SLOTS_AT)
            self._memory = memoryview(mmap(self.fd, ARENA_BYTES, MAP_SHARED, PROT_READ | PROT_WRITE))
        except BaseException:
            os.close(self.fd)
            raise
        self._memory[: len(self.token)] = self.token
        self._slots = Slots(SLOTS_AT, ARENA_BYTES)

    def place(self, payloads: Sequence[Buffer]) -> tuple[Slot, Descriptor] | None:
        """Copy payloads into a slot; None when there is no room for them."""
        lengths = list(map(len, payloads))
        slot = self._take(room_for(lengths))
        if slot is None:
            return None
        memory, at = self._memory, slot.start
        for payload, length in zip(payloads, lengths, strict=True):
            memory[at : at + length] = payload
            at += aligned(length)
        return slot, Descriptor(slot.start, lengths)

    def reserve(self, size: int) -> tuple[Slot, Descriptor] | None:
        """A slot that `size` bytes can be put into; None when there is no room for it."""
        slot = self._take(aligned(size))
        return None if slot is None else (slot, Descriptor(slot.start, [slot.size]))

    def read(self, slot: Slot, descriptor: Descriptor) -> list[bytes]:
        """Copies of the payloads in a slot. Raises MalformedRequestError if they do not lie in it."""
        memory = self._memory
        return [bytes(memory[a:b]) for a, b in descriptor.spans(slot.start, slot.start + slot.size)]

    def release(self, slot: Slot) -> None:
        """Nobody uses the slot any more."""
        self._slots.give(*slot)

    def close(self) -> None:
        """Give the memory back; the node keeps what it has mapped until it notices."""
        self._memory.release()
        os.close(self.fd)

    def _take(self, size: int) -> Slot | None:
        start = self._slots.take(size)
        if start is None:
            return None
        try:
            self._reserve(start + size)
        except OSError:
            self._slots.give(start, size)
            return None
        return Slot(start, size)

    def _reserve(self, end: int) -> None:
        if end > self._reserved:
            upto = min(-(-end // RESERVE_STEP_BYTES) * RESERVE_STEP_BYTES, ARENA_BYTES)
            os.posix_fallocate(self.fd, self._reserved, upto - self._reserved)
            self._reserved = upto
