"""A fetched batch on its way to the application: decoded, and handed over piece by piece.

Decoding happens here, in the thread that asks for records, never in the I/O thread. Records are built
for a whole batch at once and sliced; with deserializers, for the slice that was asked for. All of it
is C-built calls over columns.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import msgspec

from tailrace.protocol.batch import BatchHeader, check_crc, parse_header
from tailrace.protocol.crc import Buffer
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import BatchTooLargeError, CorruptBatchError, TailraceError
from tailrace.protocol.record import Record, TopicPartition

from .column_batch import ColumnBatch
from .decoding import Decoding, deserialize
from .failures import corrupt_batch, failed_record, malformed
from .sift import Rejected, sift


class RawBatch(msgspec.Struct, frozen=True, gc=False):
    """A whole batch as it came, its header, and the offsets from which and before which it is handed over."""

    data: Buffer
    header: BatchHeader
    start: int
    end: int


def raw_batches(
    batches: Sequence[Buffer], start: int
) -> tuple[list[RawBatch], int, int, TailraceError | None]:
    """What is to be handed over of these from the offset `start` on, up to what cannot be read.

    Also the offset behind it, its size in bytes, and the error that keeps the rest from being read.
    """
    raw, end, size = [], start, 0
    try:
        for batch in batches:
            header = parse_header(batch)
            behind = header.base_offset + header.last_offset_delta + 1
            if behind > end:
                raw.append(RawBatch(batch, header, end, behind))
                end, size = behind, size + len(batch)
    except (CorruptBatchError, BatchTooLargeError) as error:
        return raw, end, size, error
    return raw, end, size, None


class OpenBatch:
    """What is left of one batch. `rejected`: what was taken out of it.

    With `sifted` records that do not deserialize are taken out, and all others are deserialized at once.
    Raises CorruptBatchError, naming partition and offsets, if the batch does not decode.
    """

    def __init__(
        self, name: TopicPartition, raw: RawBatch, decoding: Decoding, *, sifted: bool = False
    ) -> None:
        self._name = name
        self._decoding = decoding
        try:
            self._batch = decode(raw.data, verify_crc=decoding.check_crc, header=raw.header)
        except (CorruptBatchError, BatchTooLargeError) as error:
            raise corrupt_batch(name, raw.start, raw.end, error) from error
        self.leader_epoch = raw.header.leader_epoch
        """Of the leader that appended the batch."""
        self.next = 0
        """The index of the first record that is not handed over."""
        if raw.start > raw.header.base_offset:
            self.next = bisect_left(self._batch.offsets, raw.start)
        self._records: list[Record[Any, Any]] | None = None
        self.rejected: list[Rejected] = []
        if sifted and not decoding.plain:
            self._batch, self.rejected = sift(name, self._batch, self.next, decoding)
            self._decoding = Decoding()
            self.next = 0
        self.count = self._batch.count
        """How many records it has, those that were handed over included."""

    def position(self, index: int) -> int:
        """The offset to go on from when the records before `index` are handed over, but not all."""
        return self._batch.offsets[index - 1] + 1 if index else self._batch.base_offset

    def peek(self, count: int) -> list[Record[Any, Any]]:
        """Up to `count` of the next records, which stay the next ones until `next` is moved.

        Raises SerializationError if the very next one does not deserialize; else stops before it.
        """
        start, stop = self.next, self.next + count
        if not self._decoding.plain:
            return self._deserialize(start, stop)
        if self._records is None:
            self._records = self._batch.records(self._name.topic, self._name.partition)
        return self._records[start:stop]

    def rest(self) -> ColumnBatch:
        """All that is left, as columns."""
        return ColumnBatch(self._name, self._batch, self.next, self._decoding)

    def _deserialize(self, start: int, stop: int) -> list[Record[Any, Any]]:
        batch = self._batch
        keys = deserialize(self._decoding.key, batch.keys[start:stop])
        values = deserialize(self._decoding.value, batch.values[start:stop])
        for what, column in (("key", keys), ("value", values)):
            if column.error is not None and not column.items:
                raise failed_record(self._name, batch.offsets[start], what, column.error)
        # The shortest column ends the map: nothing is built from the first record that failed on.
        columns = (batch.offsets[start:stop], batch.timestamps[start:stop], keys.items, values.items)
        place = (repeat(self._name.topic), repeat(self._name.partition))
        return list(map(Record, *place, *columns, batch.headers[start:stop]))


def rejected_whole(name: TopicPartition, raw: RawBatch, error: CorruptBatchError) -> Rejected | None:
    """A batch whose checksum holds, though its columns do not: it was made so. None for a damaged one."""
    try:
        check_crc(raw.data, raw.header)
    except CorruptBatchError:
        return None
    header = raw.header
    key: bytes | None = None
    value: bytes | None = bytes(raw.data)
    record = Record(*name, header.base_offset, header.max_timestamp, key, value, ())
    reason = malformed(name, header.base_offset, header.record_count, error.__cause__)
    return Rejected(record, reason, header.record_count)
