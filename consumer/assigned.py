"""One assigned partition: where it is read, and what was fetched of it but not handed over yet."""

from collections import deque
from itertools import islice
from random import Random
from typing import Literal, TypeAlias

from msgspec.structs import replace

from tailrace.client.retry import Backoff
from tailrace.protocol.cluster import NO_LEADER
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.messages import NO_EPOCH
from tailrace.protocol.record import TopicPartition

from .open_batch import OpenBatch, RawBatch

Key: TypeAlias = tuple[bytes, int]
"""Topic id and partition."""
Reset: TypeAlias = Literal["earliest", "latest", "none"]
NO_FETCH = 0
NO_POSITION = -1
"""Reading has not begun: it failed, or the end to begin at is not known yet."""


class AssignedPartition:
    """Two readers meet here: the I/O thread fetches ahead, the application's thread hands over.

    `position` is the next offset to hand over; `settled` the one up to which the application is done,
    since it has asked for more; `in_hand_from` the offset of the first record that it may be working on;
    `fetch_offset` the next offset to ask the node for. While `buffer` holds
    batches, `position` belongs to the application's thread, else to whoever has the lock.
    """

    __slots__ = (
        "aside", "backoff", "begins_after", "buffer", "buffered_bytes", "failure", "fetch", "fetch_offset",
        "high_watermark", "in_hand_from", "key",
        "leader", "leader_epoch", "lost", "name", "open", "paused", "position", "position_epoch",
        "reset", "retry_at", "settled", "settled_epoch",
    )  # fmt: skip

    def __init__(
        self, name: TopicPartition, topic_id: bytes, position: int, reset: Reset, random: Random
    ) -> None:
        self.name = name
        self.key: Key = (topic_id, name.partition)
        self.position = self.settled = self.in_hand_from = self.fetch_offset = position
        self.position_epoch = self.settled_epoch = -1
        self.reset: Reset = reset
        self.leader = NO_LEADER
        self.leader_epoch = -1
        self.high_watermark = -1
        self.paused = False
        self.aside = False
        """Paused for one call that wants others only."""
        self.lost = False
        """The log does not hold `fetch_offset`; where the log lies must be asked before it goes on."""
        self.begins_after = NO_EPOCH
        """A leader epoch. Nobody led the partition when reading was to begin at its end: that is where this
        epoch ended, which the next leader knows. Until it has told there is no position."""
        self.fetch = NO_FETCH
        """The fetch in flight that asks for this partition. A reply to any other one is stale."""
        self.buffer: deque[RawBatch] = deque()
        self.buffered_bytes = 0
        self.open: OpenBatch | None = None
        """`buffer[0]`, decoded, when a part of it was handed over."""
        self.failure: TailraceError | None = None
        """Raised to the application when it has got all that was fetched before; ended by a seek."""
        self.backoff = Backoff(random)
        self.retry_at = 0.0

    def __str__(self) -> str:
        return f"{self.name.topic}-{self.name.partition}"

    def wants_fetch(self, buffer_bytes_max: int) -> bool:
        """Should more of it be fetched? `buffer_bytes_max` is how much may lie in the buffer before."""
        return (
            self.buffered_bytes < buffer_bytes_max
            and not (self.paused or self.aside)
            and self.failure is None
            and self.leader != NO_LEADER
        )

    def begin_after(self, leader_epoch: int) -> None:
        """Have the next leader asked where `leader_epoch` ended, and begin there."""
        self.begins_after = leader_epoch
        self.lost = True

    def begin_at(self, offset: int) -> None:
        """The first position is known now. Nothing was handed over before."""
        self.move_to(offset)
        self.settle()

    def settle(self) -> None:
        """The application is done with all that was handed over."""
        self.settled = self.in_hand_from = self.position
        self.settled_epoch = self.position_epoch

    def pop(self) -> None:
        """The first batch is handed over to its last record.

        Behind the last one that position is `fetch_offset`, also where the log went on elsewhere meanwhile.
        """
        raw, more = self.buffer[0], len(self.buffer) > 1
        size = len(raw.data)
        del self.buffer[0]  # not a call from here on: what a signal handler raises comes before all, or after
        self.buffered_bytes -= size
        self.position = raw.end if more else self.fetch_offset
        self.position_epoch = raw.header.leader_epoch
        self.open = None

    def put_back(self, raw: RawBatch, position: int, epoch: int) -> int:
        """The first batch, if it was popped or not, is read again from `position` on; its size if it was."""
        buffer = self.buffer
        popped = not buffer or buffer[0].data is not raw.data
        restored = deque((replace(raw, start=position), *(buffer if popped else islice(buffer, 1, None))))
        size = len(raw.data) if popped else 0
        self.buffer = restored  # not a call from here on
        self.buffered_bytes += size
        self.position, self.position_epoch = position, epoch
        self.open = None
        return size

    def move_to(self, offset: int) -> None:
        """Read from `offset`; what was fetched and what failed before counts no more."""
        self.buffer.clear()
        self.buffered_bytes = 0
        self.open = None
        self.failure = None
        self.lost = False
        self.begins_after = NO_EPOCH
        if offset != self.position:
            self.position_epoch = -1
        self.position = self.fetch_offset = offset
        self.clear_backoff()

    def clear_backoff(self) -> None:
        """Nothing speaks against fetching at once."""
        if self.retry_at:
            self.backoff.reset()
            self.retry_at = 0.0
