"""What a connection within one machine has beside it: shared memory for payloads, pipes for what is small.

The arena belongs to the connection: a node that is cut off can write into no other's slots. Until the reply
is there, or the connection is gone, a slot is the node's, however long that takes. With the reply it is free
again; one with batches in it, when they were decoded or dropped.

What comes through the pipe is read before what comes around it: so small replies arrive in the order in
which they were sent, as requests do (`link.py`). One that is too large for the pipe may arrive behind them.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from tailrace.protocol.descriptor import decode_descriptor, descriptor_frame, frames_of
from tailrace.protocol.errors import MalformedRequestError, TailraceError
from tailrace.protocol.limits import LOCAL_PAYLOAD_BYTES_MIN
from tailrace.protocol.local_messages import ArenaOpened, OpenArena, OpenPipes, PipesOpened
from tailrace.protocol.messages import Reply, Request
from tailrace.protocol.parts import Payload
from tailrace.transport.arena import Arena, Slot
from tailrace.transport.pipes import Pipes

from .pending import Frame, Pending

OPEN_TIMEOUT_S: Final = 10.0
"""A node maps memory and opens pipes in its network thread, at once."""
SHARED_MEMORY: Final = "shared memory"
NO_ROOM: Final = "frames: no room in the shared memory"
Told: TypeAlias = Callable[[Reply | TailraceError], None]
Ask: TypeAlias = Callable[[Callable[[int], Request], Told, float], None]
"""Makes a request of an id and sends it; its reply is told exactly once. The last argument is now."""

_log = logging.getLogger(__name__)


class LocalPath:
    """Belongs to the I/O thread; `state` is for people: how the last payload went, if it was large enough for
    shared memory.

    `arena` is there once the node was asked to share it, `open` once it does; `pipes`, once it has them.
    """

    def __init__(self, name: str, ask: Ask) -> None:
        self.arena: Arena | None = None
        self.open = False
        self.state = "frames"
        self.pipes: Pipes | None = None
        self._name = name
        self._ask = ask
        self._slots: dict[int, Slot] = {}
        self._closed = False

    # ------------------------------------------------------------------ pipes

    def open_pipes(self, watch: Callable[[Pipes], None], now: float) -> None:
        """Offer the node a pair of pipes; `watch` them once it has taken them."""
        try:
            pipes = Pipes()
        except OSError as error:
            _log.debug("%s: no pipes: %s", self._name, error)
            return

        def answered(reply: Reply | TailraceError) -> None:
            if self._closed or not isinstance(reply, PipesOpened):
                pipes.close()
                _log.debug("%s: no pipes: %s", self._name, reply)
            else:
                self.pipes = pipes
                watch(pipes)

        requests, replies = pipes.requests_end, pipes.replies_end
        self._ask(
            lambda request_id: OpenPipes(
                request_id,
                requests_fd=requests.fd,
                requests_inode=requests.inode,
                replies_fd=replies.fd,
                replies_inode=replies.inode,
            ),
            answered,
            now,
        )

    # ----------------------------------------------------------- shared memory

    def open_arena(self, now: float) -> None:
        """Ask the node to share memory; what is sent meanwhile goes in frames."""
        arena = self._prepare()
        if arena is None:
            return

        def answered(reply: Reply | TailraceError) -> None:
            if self._closed:
                return
            if isinstance(reply, ArenaOpened):
                self.open, self.state = True, SHARED_MEMORY
            else:
                self._refused(str(reply))
            _log.debug("%s: %s", self._name, self.state)

        self.state = "frames: shared memory was asked for"
        fd, token = arena.fd, arena.token
        self._ask(lambda request_id: OpenArena(request_id, fd=fd, token=token), answered, now)

    def worth(self, pending: Pending) -> bool:
        """Is the request's payload, or that of its reply, large enough?"""
        return bool(pending.reply_bytes) or sum(map(len, pending.frames)) >= LOCAL_PAYLOAD_BYTES_MIN

    @property
    def in_use(self) -> str:
        """How payloads travel, for people. Any thread."""
        return "pipes" if self.untried and self.pipes is not None else self.state

    @property
    def untried(self) -> bool:
        """Was the node not asked yet?"""
        return self.state == "frames"

    def outgoing(self, pending: Pending) -> Sequence[Payload]:
        """What to send: a descriptor if the arena has room, else what there is."""
        if self.arena is None or not self.open:
            return pending.frames
        frames = pending.frames
        taken = self.arena.place(frames) if frames else self.arena.reserve(pending.reply_bytes)
        if taken is None:
            self.state = NO_ROOM
            return frames
        self.state = SHARED_MEMORY
        self._slots[pending.request_id], descriptor = taken
        return frames_of(descriptor)

    def has_slot(self, request_id: int) -> bool:
        """Was room in the arena given to this request, or to its reply?"""
        return request_id in self._slots

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
        """Give everything back. The pipes must be watched no more."""
        self._closed = True
        self._close_arena()
        if self.pipes is not None:
            self.pipes.close()
            self.pipes = None

    def _prepare(self) -> Arena | None:
        try:
            self.arena = Arena()
        except OSError as error:
            self._refused(str(error))
        return self.arena

    def _refused(self, reason: str) -> None:
        """Frames, as long as the connection lasts."""
        self._close_arena()
        self.state = f"frames: {reason}"

    def _close_arena(self) -> None:
        if self.arena is not None:
            self.arena.close()
        self.arena, self.open = None, False
        self._slots.clear()
