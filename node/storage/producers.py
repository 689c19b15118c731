"""Idempotence: what a partition decides about a batch by its producer id, epoch and sequence.

The semantics are Kafka's (KIP-98, KIP-360) with a window of 64 batches instead of 5. Sequences
count records, are 31 bits wide and start again at 0 after 2**31 - 1. Pure: no clock, no storage.
When the end of a log is cut off, its producers' rows go back to what they were.
"""

from typing import Final

from tailrace.protocol.batch import BatchHeader
from tailrace.protocol.errors import (
    FencedProducerError,
    InvalidRecordError,
    OutOfOrderSequenceError,
    UnknownProducerIdError,
)
from tailrace.protocol.limits import PRODUCER_WINDOW_BATCHES

from .schema import NO_TRANSACTION, WINDOW_ENTRY, ProducerRow

SEQUENCE_MASK: Final = 2**31 - 1
WINDOW_BYTES: Final = PRODUCER_WINDOW_BATCHES * WINDOW_ENTRY.size

_pack_entry: Final = WINDOW_ENTRY.pack


def original_offset(row: ProducerRow | None, header: BatchHeader) -> int | None:
    """The base offset at which this very batch was stored before; None: it is new and in order.

    Raises UnknownProducerIdError, FencedProducerError, OutOfOrderSequenceError and, for a
    producer id without a sequence, InvalidRecordError.
    """
    sequence, epoch = header.base_sequence, header.producer_epoch
    if sequence < 0 or epoch < 0:
        raise InvalidRecordError(
            f"producer id {header.producer_id} with epoch {epoch} and sequence {sequence}: both must be set"
        )
    if row is None:
        if sequence != 0:
            raise UnknownProducerIdError(
                f"producer id {header.producer_id} is unknown here and starts at sequence {sequence}, not 0"
            )
        return None
    if epoch == row.epoch:
        return None if sequence == row.next_sequence else _find(row, header)
    if epoch < row.epoch:
        raise FencedProducerError(
            f"producer id {header.producer_id} is at epoch {row.epoch}, the batch is of epoch {epoch}"
        )
    if sequence != 0:
        raise OutOfOrderSequenceError(
            f"producer id {header.producer_id} starts epoch {epoch} at sequence {sequence}, not 0"
        )
    return None


def _find(row: ProducerRow, header: BatchHeader) -> int:
    for sequence, count, offset in WINDOW_ENTRY.iter_unpack(row.window):
        if sequence == header.base_sequence and count == header.record_count:
            return int(offset)
    raise OutOfOrderSequenceError(
        f"producer id {header.producer_id} sent sequence {header.base_sequence}, expected {row.next_sequence}"
    )


def after_append(row: ProducerRow | None, header: BatchHeader, base_offset: int, now_ms: int) -> ProducerRow:
    """The producer's row once this batch is stored at `base_offset`."""
    sequence, count, epoch = header.base_sequence, header.record_count, header.producer_epoch
    entry = _pack_entry(sequence, count, base_offset)
    if row is None or row.epoch != epoch:
        window, transaction_offset = entry, NO_TRANSACTION
    else:
        window, transaction_offset = (row.window + entry)[-WINDOW_BYTES:], row.transaction_offset
    return ProducerRow(epoch, (sequence + count) & SEQUENCE_MASK, now_ms, transaction_offset, window)


def rolled_back(row: ProducerRow, end_offset: int) -> ProducerRow | None:
    """The row without the batches from `end_offset` on; None: its window holds no others.

    `last_timestamp` stays, so that the id is forgotten later than it might be.
    """
    kept = [entry for entry in WINDOW_ENTRY.iter_unpack(row.window) if entry[2] < end_offset]
    if not kept:
        return None
    sequence, count, _ = kept[-1]
    return row._replace(
        next_sequence=(sequence + count) & SEQUENCE_MASK,
        transaction_offset=row.transaction_offset if row.transaction_offset < end_offset else NO_TRANSACTION,
        window=row.window[: len(kept) * WINDOW_ENTRY.size],
    )


class Rebuilt:
    """A row that is made anew from the batches of one producer, given from the last one back."""

    def __init__(self, row: ProducerRow) -> None:
        """`row` is what it replaces."""
        self._row = row
        self._epoch = row.epoch
        self._entries: list[tuple[int, int, int]] = []
        """Newest first."""

    def take(self, header: BatchHeader) -> bool:
        """The batch before those taken so far; False once older ones do not matter."""
        sequence, count = header.base_sequence, header.record_count
        if self._entries:
            continues = (sequence + count) & SEQUENCE_MASK == self._entries[-1][0]
            if header.producer_epoch != self._epoch or not continues:
                return False
        self._epoch = header.producer_epoch
        self._entries.append((sequence, count, header.base_offset))
        return sequence != 0 and len(self._entries) < PRODUCER_WINDOW_BATCHES

    def row(self) -> ProducerRow | None:
        """As the batches make it; None if there were none."""
        if not self._entries:
            return None
        sequence, count, _ = self._entries[0]
        window = b"".join(_pack_entry(*entry) for entry in reversed(self._entries))
        next_sequence = (sequence + count) & SEQUENCE_MASK
        return ProducerRow(self._epoch, next_sequence, self._row.last_timestamp, NO_TRANSACTION, window)
