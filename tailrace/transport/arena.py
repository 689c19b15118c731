"""A client's arena: memory that it shares with one node of its machine, so that payloads need not be sent.

    arena := token (16 bytes), zeros up to byte 64, slots

A memfd, which no file system knows and which is gone with its last user, sealed against growing and
shrinking, so that neither side can be made to touch bytes that are not there.
"""

import fcntl
import os
import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from ctypes import Array, c_ubyte
from mmap import MAP_SHARED, PROT_READ, PROT_WRITE, mmap
from typing import Final, NamedTuple
from weakref import ref

from tailrace.protocol.descriptor import ALIGNMENT, Descriptor, aligned, room_for
from tailrace.protocol.limits import ARENA_BYTES, ARENA_LENT_BYTES_MAX, ARENA_TOKEN_BYTES, MIB
from tailrace.protocol.parts import Payload, parts_of

from .server import Buffer
from .slots import Slots

SLOTS_AT: Final = ALIGNMENT
RESERVE_STEP_BYTES: Final = 1 * MIB
"""Memory is asked for in such steps, as it is first used: past the end of what there is, a write to a mapping
would be a SIGBUS, while this is an error."""

assert ARENA_TOKEN_BYTES <= SLOTS_AT


_Loan: Final = c_ubyte * ARENA_BYTES
"""Stands for a slot that was lent: as long as there is a view of its memory, it is there."""


class Slot(NamedTuple):
    """A part of an arena that is in use."""

    start: int
    size: int


class _Lent(ref["Array[c_ubyte]"]):
    """Tells when a slot that was lent is used no more."""

    __slots__ = ("slot",)
    slot: Slot


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
            self._mapping = mmap(self.fd, ARENA_BYTES, MAP_SHARED, PROT_READ | PROT_WRITE)
            self._memory = memoryview(self._mapping)
        except BaseException:
            os.close(self.fd)
            raise
        self._memory[: len(self.token)] = self.token
        self._lent: dict[int, _Lent] = {}
        """By the start of their slots."""
        self._returned: deque[ref[Array[c_ubyte]]] = deque()
        """What was lent and is not used any more."""
        self._lent_bytes = 0
        self._slots = Slots(SLOTS_AT, ARENA_BYTES)

    def place(self, payloads: Sequence[Payload]) -> tuple[Slot, Descriptor] | None:
        """Copy payloads into a slot; None when there is no room for them."""
        lengths = list(map(len, payloads))
        slot = self._take(room_for(lengths))
        if slot is None:
            return None
        memory, at = self._memory, slot.start
        for payload in payloads:
            for part in parts_of(payload):
                end = at + len(part)
                memory[at:end] = part
                at = end
            at = aligned(at)
        return slot, Descriptor(slot.start, lengths)

    def reserve(self, size: int) -> tuple[Slot, Descriptor] | None:
        """A slot that `size` bytes can be put into; None when there is no room for it."""
        slot = self._take(aligned(size))
        return None if slot is None else (slot, Descriptor(slot.start, [slot.size]))

    def lend(self, slot: Slot, descriptor: Descriptor) -> list[Buffer]:
        """The payloads in a slot, where they lie, read-only. The slot is free when nobody has any of them.

        Copies, and a slot that is free at once, while ARENA_LENT_BYTES_MAX are lent. Raises
        MalformedRequestError if they do not lie in the slot: then that is still in use.
        """
        end = slot.start + slot.size
        spans = descriptor.spans(slot.start, end)
        used = aligned(spans[-1][1]) - slot.start
        if self._lent_bytes + used > ARENA_LENT_BYTES_MAX:
            self._take_back()
        if self._lent_bytes + used > ARENA_LENT_BYTES_MAX:
            copies: list[Buffer] = [bytes(self._memory[a:b]) for a, b in spans]
            self.release(slot)
            return copies
        if used < slot.size:
            self._slots.give(slot.start + used, slot.size - used)
        loan = _Loan.from_buffer(self._mapping)
        # Runs in the thread that lets go of the last view: what it does there takes no lock. It is no Python
        # code, so that no signal handler runs in it: what that raised would be lost, and the slot with it.
        lent = _Lent(loan, self._returned.append)
        lent.slot = Slot(slot.start, used)
        self._lent[slot.start] = lent
        self._lent_bytes += used
        memory = memoryview(loan).cast("B").toreadonly()
        return [memory[a:b] for a, b in spans]

    def release(self, slot: Slot) -> None:
        """Nobody uses the slot any more."""
        self._slots.give(*slot)

    def close(self) -> None:
        """Give the memory back, but for what is lent; the node keeps what it has mapped until it notices."""
        self._memory.release()
        with suppress(BufferError):  # what is lent keeps the mapping, and is its end
            self._mapping.close()
        os.close(self.fd)

    def _take(self, size: int) -> Slot | None:
        self._take_back()
        start = self._slots.take(size)
        if start is None:
            return None
        try:
            self._reserve(start + size)
        except OSError:
            self._slots.give(start, size)
            return None
        return Slot(start, size)

    def _take_back(self) -> None:
        """Slots of which all that was lent is gone are free."""
        while self._returned:
            lent = self._returned.popleft()
            assert isinstance(lent, _Lent)
            slot = lent.slot
            del self._lent[slot.start]
            self._lent_bytes -= slot.size
            self._slots.give(*slot)

    def _reserve(self, end: int) -> None:
        if end > self._reserved:
            upto = min(-(-end // RESERVE_STEP_BYTES) * RESERVE_STEP_BYTES, ARENA_BYTES)
            os.posix_fallocate(self.fd, self._reserved, upto - self._reserved)
            self._reserved = upto
