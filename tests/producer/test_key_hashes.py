"""Keys in buffers go to the same partitions as the same keys one by one."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.producer.key_hashes import places_of
from tailrace.producer.partitioner import Partitioner, PartitionerOption
from tailrace.protocol.packed import Packed, packed_items


def last_byte(key: bytes | None, everyone: Sequence[int], available: Sequence[int]) -> int:
    return key[-1] % len(everyone) if key else 0


PARTITIONERS = (Partitioner("crc32"), Partitioner("murmur2"), Partitioner(last_byte))


@settings(deadline=None)
@given(
    keys=st.lists(st.one_of(st.none(), st.binary(max_size=12), st.binary(min_size=60, max_size=70))),
    count=st.integers(1, 4_000),
    partitioner=st.sampled_from(PARTITIONERS),
)
def test_keys_of_any_length(keys: list[bytes | None], count: int, partitioner: Partitioner) -> None:
    expected = [partitioner.place(key, count, ()) for key in keys]
    found = places_of(packed_items(keys), partitioner, count, (), count).tolist()
    assert found == [count if place is None else place for place in expected]


@pytest.mark.parametrize("option", ["crc32", "murmur2", last_byte])
@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 5, 7, 8, 16, 63, 64, 65, 200])
def test_keys_of_one_width(option: PartitionerOption, width: int) -> None:
    partitioner = Partitioner(option)
    rows = np.random.default_rng(width).integers(0, 256, (50, width), np.uint8)
    expected = [partitioner.place(row.tobytes(), 12, ()) for row in rows]
    found = places_of(Packed(rows.reshape(-1), 50, width), partitioner, 12, (), 12).tolist()
    assert found == [12 if place is None else place for place in expected]


@pytest.mark.parametrize("make", [lambda: packed_items([]), lambda: Packed(np.zeros(0, np.uint8), 0, 8)])
def test_no_keys_at_all(make: Callable[[], Packed]) -> None:
    for partitioner in PARTITIONERS:
        assert places_of(make(), partitioner, 3, (), 3).tolist() == []
