"""Keys sort as the numbers in them do, and rows come back as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.node.storage import schema
from tailrace.node.storage.schema import PartitionRow, ProducerRow

U32 = st.integers(0, 2**32 - 1)
I32 = st.integers(-(2**31), 2**31 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
U64 = st.integers(0, 2**64 - 1)


@given(st.tuples(U32, I64), st.tuples(U32, I64))
def test_time_keys_sort_by_partition_and_time(a: tuple[int, int], b: tuple[int, int]) -> None:
    assert (schema.time_key(*a) < schema.time_key(*b)) == (a < b)
    assert schema.read_time_key(schema.time_key(*a)) == a
    assert schema.read_partition_key(schema.time_key(*a)) == a[0]


@given(st.tuples(U32, U64), st.tuples(U32, U64))
def test_producer_keys_sort(a: tuple[int, int], b: tuple[int, int]) -> None:
    assert (schema.producer_key(*a) < schema.producer_key(*b)) == (a < b)
    assert schema.read_pair_key(schema.producer_key(*a)) == a


@given(st.tuples(U32, U32), st.tuples(U32, U32))
def test_epoch_keys_sort(a: tuple[int, int], b: tuple[int, int]) -> None:
    assert (schema.epoch_key(*a) < schema.epoch_key(*b)) == (a < b)
    assert schema.read_epoch_key(schema.epoch_key(*a)) == a


@given(U64)
def test_offset_keys(offset: int) -> None:
    assert schema.read_offset_key(schema.offset_key(offset)) == offset
    assert len(schema.offset_key(offset)) == 8


@given(st.builds(PartitionRow, st.binary(min_size=16, max_size=16), U32, U32, I64, I64, I64, I32, I64, I64))
def test_partition_rows(row: PartitionRow) -> None:
    assert schema.read_partition_row(row.pack()) == row


@given(
    st.integers(0, 2**15 - 1),
    st.integers(0, 2**31 - 1),
    I64,
    I64,
    st.lists(st.tuples(I32, U32, I64), max_size=64),
)
def test_producer_rows(
    epoch: int, sequence: int, time: int, offset: int, window: list[tuple[int, int, int]]
) -> None:
    packed = b"".join(schema.WINDOW_ENTRY.pack(*entry) for entry in window)
    row = ProducerRow(epoch, sequence, time, offset, packed)
    assert schema.read_producer_row(row.pack()) == row
    with pytest.raises(ValueError, match="cannot hold"):
        schema.read_producer_row(row.pack() + b"x")
