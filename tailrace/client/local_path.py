"""One connection's shared memory: payloads that go and come by way of an arena instead of in frames.

The arena belongs to the connection: a node that is cut off can write into no other's slots. Until the reply
is there, or the connection is gone, a slot is the node's, however long that takes. With the reply it is free
again; one with batches in it, when they were decoded or dropped.
"""

from collections.abc import Sequence
from typing import Final

from tailrace.protocol.descriptor import decode_descriptor, descriptor_frame, frames_of
from tailrace.protocol.errors import MalformedRequestError
from tailrace.protocol.limits import LOCAL_PAYLOAD_BYTES_MIN
from tailrace.protocol.parts import Payload
from tailrace.transport.arena import Arena, Slot

from .pending import Frame, Pending

SHARED_MEMORY: Final = "shared memory"


class LocalPath:
    """Belongs to the I/O thread; `state`, which any thread may read, is for people.

    `arena` is there once the node was asked to share it, `open` once it does.
    """

    def __init__(self) -> None:
        self.arena: Arena | None = None
        self.open = False
        self.state = "frames"
        self._slots: dict[int, Slot] = {}

    def worth(self, pending: Pending) -> bool:
        """Is the request's payload, or that of its reply, large enough?"""
        return bool(pending.reply_bytes) or sum(map(len, pending.frames)) >= LOCAL_PAYLOAD_BYTES_MIN

    def prepare(self) -> Arena | None:
        """Make the arena that the node is asked to share; None where there can be none."""
        try:
            self.arena = Arena()
        except OSError as error:
            self.refused(str(error))
        return self.arena

    @property
    def untried(self) -> bool:
        """Was the node not asked yet?"""
        return self.state == "frames"

    def opened(self) -> None:
        """The node shares the arena."""
        self.open, self.state = True, SHARED_MEMORY

    def refused(self, reason: str) -> None:
        """It does not: frames, as long as the connection lasts."""
        self.close()
        self.state = f"frames: {reason}"

    def outgoing(self, pending: Pending) -> Sequence[Payload]:
        """What to send: a descriptor if the arena has room, else what there is."""
        if self.arena is None or not self.open:
            return pending.frames
        frames = pending.frames
        taken = self.arena.place(frames) if frames else self.arena.reserve(pending.reply_bytes)
        if taken is None:
            return frames
        self._slots[pending.request_id], descriptor = taken
        return frames_of(descriptor)

    def withdraw(self, request_id: int) -> None:
        """The request was not sent after all."""
        slot = self._slots.pop(request_id, None)
        if slot is not None and self.arena is not None:
            self.arena.release(slot)

    def incoming(self, request_id: int, frames: Sequence[bytes]) -> Sequence[Frame]:
        """The payload of a reply, where it lies: its slot is used until nobody has any of it any more.

        Raises MalformedRequestError.
        """
        descriptor = descriptor_frame(frames)
        if descriptor is None:
            if request_id in self._slots:
                self.withdraw(request_id)
            return frames
        slot = self._slots.get(request_id)
        if slot is None or self.arena is None:
            raise MalformedRequestError("a descriptor for a request that has no slot")
        try:
            lent = self.arena.lend(slot, decode_descriptor(descriptor))
        except MalformedRequestError:
            self.withdraw(request_id)
            raise
        del self._slots[request_id]
        return lent

    def close(self) -> None:
        """Give everything back."""
        if self.arena is not None:
            self.arena.close()
        self.arena, self.open = None, False
        self._slots.clear()
