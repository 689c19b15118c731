"""`tailrace consume`: what it says in its own words."""

import pytest

from tailrace.cli.consume import way_out
from tailrace.consumer.failures import corrupt_batch
from tailrace.protocol.errors import CorruptBatchError
from tailrace.protocol.record import TopicPartition

PLACE = TopicPartition("old-orders", 3)


@pytest.mark.parametrize(
    ("group_id", "end"),
    [
        (None, "give -p 3 -o 1000 to go on without it"),
        (
            "billing",
            "`tailrace group reset-offsets billing --topic old-orders:3 --to-offset 1000 --execute` "
            "to go on without it",
        ),
    ],
)
def test_the_way_round_a_corrupt_batch(group_id: str | None, end: str) -> None:
    error = corrupt_batch(PLACE, 990, 1000, ValueError("the checksum is wrong"))
    with pytest.raises(CorruptBatchError) as raised, way_out(group_id):
        raise error
    start = "old-orders-3: the batch at offset 990 is corrupt: the checksum is wrong. "
    start += "The position stays before it; "
    assert str(raised.value) == start + end


def test_a_cause_that_speaks_of_a_seek_is_left_as_it_is() -> None:
    error = corrupt_batch(PLACE, 990, 1000, ValueError("a: seek to 7"))
    told = r"is corrupt: a: seek to 7\. .*give -p 3 -o 1000 "
    with pytest.raises(CorruptBatchError, match=told), way_out(None):
        raise error


def test_an_error_that_is_no_consumers_stays_as_it_is() -> None:
    with pytest.raises(CorruptBatchError, match=r"^t-0: seek to 3$"), way_out(None):
        raise CorruptBatchError("t-0: seek to 3")


def test_a_batch_whose_end_is_unknown() -> None:
    error = corrupt_batch(PLACE, 990, None, ValueError("what is this"))
    with pytest.raises(CorruptBatchError) as raised, way_out(None):
        raise error
    assert str(raised.value) == str(error)
