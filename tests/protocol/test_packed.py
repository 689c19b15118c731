"""Columns that lie in buffers become the same bytes as lists do."""

import importlib
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.protocol import packed
from tailrace.protocol.columns import encode
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import BatchTooLargeError, InvalidArgumentError
from tailrace.protocol.limits import BATCH_BODY_BYTES_MAX, MIB, RECORD_BYTES_MAX
from tailrace.protocol.packed import Packed, body_items, body_timestamps, nulls, packed_items, packed_texts

items = st.lists(st.one_of(st.none(), st.binary(max_size=9)), max_size=20)


def even(rows: list[bytes], width: int) -> Packed:
    return Packed(np.frombuffer(b"".join(rows), np.uint8), len(rows), width)


@settings(deadline=None)
@given(parts=st.lists(items, min_size=1, max_size=4), keys=items)
def test_a_batch_of_parts_is_that_of_the_list(
    parts: list[list[bytes | None]], keys: list[bytes | None]
) -> None:
    values = [item for part in parts for item in part]
    if not values:
        return
    keys = (keys + [None] * len(values))[: len(values)]
    packed = body_items([packed_items(part) for part in parts])
    assert encode(packed, body_items([packed_items(keys)])) == encode(values, keys)
    assert encode(values, body_items([packed_items(keys)])) == encode(values, keys)


@pytest.mark.parametrize("together", [1, 10, packed._ENCODED_CHARACTERS])
def test_texts_are_what_their_bytes_are(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_ENCODED_CHARACTERS", together)

    @settings(deadline=None)
    @given(texts=st.lists(st.text()))
    def check(texts: list[str]) -> None:
        column = packed_texts(texts)
        if any("\0" in text for text in texts):
            assert column is None
        else:
            assert column is not None
            assert column.items() == list(map(str.encode, texts))
            assert column.ends().tolist() == packed_items(list(map(str.encode, texts))).ends().tolist()

    check()
    others: list[Any] = ["\ud800", None, b"bytes", 1.5]
    assert [packed_texts(["ä", other]) for other in others] == [None] * len(others)


@settings(deadline=None)
@given(count=st.integers(1, 30), width=st.integers(0, 5), data=st.data())
def test_a_fixed_width_is_that_of_the_list(count: int, width: int, data: st.DataObject) -> None:
    rows = [data.draw(st.binary(min_size=width, max_size=width)) for _ in range(count)]
    column = even(rows, width)
    start = data.draw(st.integers(0, count - 1))
    assert column.items() == rows
    assert encode(body_items([column])) == encode(rows)
    mixed = [column.cut(start, count), packed_items([None, b"x"]), nulls(2)]
    assert decode(encode(body_items(mixed))).values == [*rows[start:], None, b"x", None, None]


@pytest.mark.parametrize("pyarrow", [True, False])
@pytest.mark.parametrize("length_max", [5, 200])
def test_what_is_cut_taken_and_owned(pyarrow: bool, length_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if pyarrow:
        importlib.import_module("pyarrow")
    else:
        monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    source = np.random.default_rng(length_max)
    lengths = source.integers(0, length_max, 300).tolist()
    values = [source.bytes(length) if length % 7 else None for length in lengths]
    column = packed_items(values)
    for start, stop in ((0, 300), (17, 203), (299, 300), (5, 5)):
        part = column.cut(start, stop)
        assert part.items() == values[start:stop]
        assert part.owned().items() == values[start:stop]
        assert not np.shares_memory(part.owned().data, column.data)
        order = source.permutation(stop - start)
        assert part.take(order).items() == [values[start + index] for index in order.tolist()]
        assert part.ends()[-1] == sum(len(value or b"") for value in values[start:stop])


def test_owned_is_no_larger_than_its_items() -> None:
    column = packed_items([b"x" * 1_000] * 100)
    assert len(column.cut(3, 4).owned().data) == 1_000
    assert len(even([b"abc"] * 100, 3).cut(3, 4).owned().data) == 3


def test_more_items_than_kept_offsets() -> None:
    rows = [b"ab"] * 20_000
    assert encode(body_items([even(rows, 2)])) == encode(rows)


@pytest.mark.parametrize(
    "parts", [[(3, 7)], [(2, 7), (1, 8)], [(2, np.array([5, 9])), (1, 6)], [(3, np.array([4, 4, 4]))]]
)
def test_timestamps(parts: list[tuple[int, int | np.ndarray]]) -> None:
    stamps = [
        stamp
        for count, stamp in parts
        for stamp in ([stamp] * count if isinstance(stamp, int) else stamp.tolist())
    ]
    values: list[bytes | None] = [b"a", b"b", b"c"]
    assert encode(values, timestamps=body_timestamps(parts)) == encode(values, timestamps=stamps)


def test_bounds() -> None:
    large = np.zeros(RECORD_BYTES_MAX + 1, np.uint8)
    with pytest.raises(BatchTooLargeError, match=f"a record of {RECORD_BYTES_MAX + 1} bytes"):
        encode(body_items([Packed(large, 1, len(large))]))
    with pytest.raises(BatchTooLargeError, match=f"a record of {RECORD_BYTES_MAX + 1} bytes"):
        encode([b"x"], body_items([Packed(large[:-1], 1, len(large) - 1)]))
    huge = np.zeros(BATCH_BODY_BYTES_MAX + MIB, np.uint8)
    with pytest.raises(BatchTooLargeError, match="a column of"):
        body_items([Packed(huge, len(huge) // MIB, MIB)])
    with pytest.raises(InvalidArgumentError, match="1 keys for 2 values"):
        encode([b"a", b"b"], body_items([packed_items([b"k"])]))
