"""RELIABILITY of a retry: which batch is new, which is a duplicate, which must not be stored."""

import pytest

from tailrace.node.storage.producers import Rebuilt, after_append, original_offset, rolled_back
from tailrace.node.storage.schema import WINDOW_ENTRY, ProducerRow
from tailrace.protocol.batch import BatchHeader, parse_header
from tailrace.protocol.errors import (
    FencedProducerError,
    InvalidRecordError,
    OutOfOrderSequenceError,
    TailraceError,
    UnknownProducerIdError,
)
from tailrace.protocol.limits import PRODUCER_WINDOW_BATCHES

from .support import NOW, batch

LAST_SEQUENCE = 2**31 - 1
HEADER = parse_header(batch(producer=7, sequence=0))


def header(sequence: int, count: int = 1, epoch: int = 0) -> BatchHeader:
    return HEADER._replace(
        base_sequence=sequence, record_count=count, last_offset_delta=count - 1, producer_epoch=epoch
    )


def row_after(*headers: BatchHeader) -> ProducerRow:
    row, offset = None, 100
    for one in headers:
        assert original_offset(row, one) is None
        row = after_append(row, one, offset, NOW)
        offset += one.record_count
    assert row is not None
    return row


def test_the_next_sequence_is_new_and_the_last_ones_are_duplicates() -> None:
    row = row_after(header(0, 3), header(3, 2), header(5, 1))
    assert original_offset(row, header(6, 9)) is None
    assert original_offset(row, header(0, 3)) == 100
    assert original_offset(row, header(3, 2)) == 103
    assert original_offset(row, header(5, 1)) == 105


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (header(7, epoch=2), OutOfOrderSequenceError),
        (header(3, 1, epoch=2), OutOfOrderSequenceError),
        (header(1, 3, epoch=2), OutOfOrderSequenceError),
        (header(0, epoch=1), FencedProducerError),
        (header(5, epoch=3), OutOfOrderSequenceError),
        (header(-1, epoch=2), InvalidRecordError),
        (header(0, epoch=-1), InvalidRecordError),
    ],
)
def test_what_must_not_be_stored(wrong: BatchHeader, error: type[TailraceError]) -> None:
    row = row_after(header(0, 3, epoch=2), header(3, 2, epoch=2))
    with pytest.raises(error):
        original_offset(row, wrong)


def test_an_unknown_producer_starts_at_sequence_0() -> None:
    assert original_offset(None, header(0)) is None
    with pytest.raises(UnknownProducerIdError):
        original_offset(None, header(1))


def test_a_newer_epoch_starts_at_0_and_forgets_the_window() -> None:
    row = row_after(header(0, 3), header(3, 2), header(0, 3, epoch=1))
    assert original_offset(row, header(3, epoch=1)) is None
    assert original_offset(row, header(0, 3, epoch=1)) == 105
    with pytest.raises(OutOfOrderSequenceError):
        original_offset(row, header(3, 2, epoch=1)._replace(base_sequence=30))
    with pytest.raises(FencedProducerError):
        original_offset(row, header(0, 3))


def test_the_window_is_64_batches() -> None:
    headers = [header(number) for number in range(PRODUCER_WINDOW_BATCHES + 1)]
    row = row_after(*headers)
    for number, one in enumerate(headers[1:], 1):
        assert original_offset(row, one) == 100 + number
    with pytest.raises(OutOfOrderSequenceError):
        original_offset(row, headers[0])


def test_sequences_start_again_at_0_after_the_last() -> None:
    row = row_after(header(0, LAST_SEQUENCE - 1), header(LAST_SEQUENCE - 1, 5))
    assert row.next_sequence == 3
    assert original_offset(row, header(3)) is None
    assert original_offset(row, header(LAST_SEQUENCE - 1, 5)) == 100 + LAST_SEQUENCE - 1
    row = after_append(row, header(3, LAST_SEQUENCE - 2), 0, NOW)
    assert row.next_sequence == 0, "one after 2**31 - 1"
    assert original_offset(row, header(0)) is None


def test_a_row_is_rolled_back_to_what_is_left_of_its_window() -> None:
    row = row_after(header(0, 3), header(3, 2), header(5, 1))._replace(transaction_offset=103)
    assert rolled_back(row, 106) == row
    assert rolled_back(row, 105) == row_after(header(0, 3), header(3, 2))._replace(transaction_offset=103)
    assert rolled_back(row, 103) == row_after(header(0, 3))
    assert rolled_back(row, 100) is None


@pytest.mark.parametrize(
    ("backwards", "first"),
    [
        ([header(5), header(4), header(3)], 3),
        ([header(5), header(4), header(3, epoch=1)], 4),
        ([header(5), header(3)], 5),
        ([header(0), header(LAST_SEQUENCE)], 0),
        ([header(number) for number in range(200, 100, -1)], 201 - PRODUCER_WINDOW_BATCHES),
    ],
    ids=["all", "an epoch", "a gap", "the first", "a window"],
)
def test_a_row_is_made_anew_from_what_continues(backwards: list[BatchHeader], first: int) -> None:
    rebuilt = Rebuilt(row_after(header(0)))
    assert rebuilt.row() is None
    for place, one in enumerate(backwards):
        if not rebuilt.take(one._replace(base_offset=500 - place)):
            break
    row = rebuilt.row()
    assert row is not None
    newest = backwards[0]
    assert (row.epoch, row.next_sequence, row.last_timestamp) == (0, newest.base_sequence + 1, NOW)
    sequences = [entry[0] for entry in WINDOW_ENTRY.iter_unpack(row.window)]
    assert sequences == list(range(first, newest.base_sequence + 1))
