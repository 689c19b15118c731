"""The native body: what goes in comes out, and what does not fit is refused by name."""

import itertools
import random
import struct
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.protocol import buffers, columns, limits
from tailrace.protocol.batch import ALL_KEYS, parse_header
from tailrace.protocol.columns import encode
from tailrace.protocol.compression import Compression
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import BatchTooLargeError, CorruptBatchError, InvalidArgumentError
from tailrace.protocol.record import Record

NULLABLE = st.none() | st.binary(max_size=40)
TIMESTAMP = st.integers(0, 2**45) | st.integers(-(2**63), 2**63 - 1)
HEADERS = st.lists(st.tuples(st.text(max_size=5), NULLABLE), max_size=3)


@st.composite
def column_sets(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 40) | st.sampled_from([255, 256, 257, 600]))

    def column(items: st.SearchStrategy[Any]) -> list[Any]:
        few = draw(st.lists(items, min_size=1, max_size=12))
        return list(itertools.islice(itertools.cycle(few), count))

    width = draw(st.integers(0, 20))
    fixed = st.binary(min_size=width, max_size=width)
    return {
        "values": column(draw(st.sampled_from([fixed, st.binary(max_size=40), NULLABLE, st.none()]))),
        "keys": draw(st.none()) if draw(st.booleans()) else column(draw(st.sampled_from([fixed, NULLABLE]))),
        "timestamps": draw(TIMESTAMP) if draw(st.booleans()) else column(TIMESTAMP),
        "headers": None if draw(st.booleans()) else column(HEADERS),
    }


@settings(max_examples=200, deadline=None)
@given(column_sets(), st.sampled_from(Compression))
def test_round_trip(given_columns: dict[str, Any], compression: Compression) -> None:
    values, keys = given_columns["values"], given_columns["keys"]
    timestamps, headers = given_columns["timestamps"], given_columns["headers"]
    count = len(values)
    batch = encode(values, keys, timestamps, headers, compression=compression)

    header = parse_header(batch)
    stamps = timestamps if isinstance(timestamps, list) else [timestamps] * count
    assert (header.base_timestamp, header.max_timestamp) == (stamps[0], max(stamps))
    assert header.record_count == header.last_offset_delta + 1 == count
    assert header.compression in (compression, Compression.NONE)
    assert bool(header.attributes & ALL_KEYS) == (keys is not None and None not in keys)

    decoded = decode(batch)
    assert decoded.values == values
    assert decoded.keys == (keys or [None] * count)
    assert decoded.timestamps == stamps
    assert decoded.headers == ([tuple(pairs) for pairs in headers] if headers else [()] * count)
    assert decoded.offsets == range(count)


@pytest.mark.parametrize("width", [0, 1, 4_096, 4_097])
@pytest.mark.parametrize("count", [1, 255, 256, 257])
def test_values_of_one_width(width: int, count: int) -> None:
    values = [random.randbytes(width) for _ in range(count)]
    assert decode(encode(values)).values == values


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 9, 1_000, 16_384])
def test_a_width_that_never_came_before_costs_no_more_than_the_column_has(count: int) -> None:
    needed = 4 * (count + 1)
    kept = buffers._even_offsets(7, count.bit_length())
    assert needed <= len(kept) < 2 * needed
    assert kept[:needed] == struct.pack(f"<{count + 1}i", *range(0, 7 * count + 1, 7))


def test_more_records_than_the_cached_offsets() -> None:
    values = [b"%07d" % place for place in range(40_000)]
    assert decode(encode(values)).values == values


def test_large_values_are_checksummed_piece_by_piece() -> None:
    values = [random.randbytes(300_000 + place) for place in range(3)]
    decoded = decode(encode([*values, None], [b"k"] * 4))
    assert decoded.values == [*values, None]


def test_bytes_like_objects_are_copied() -> None:
    value, key = bytearray(b"value"), memoryview(b"key")
    batch = encode([value, value, None], [key, None, key])  # type: ignore[list-item]
    value[:] = b"other"
    decoded = decode(batch)
    assert decoded.values == [b"value", b"value", None]
    assert decoded.keys == [b"key", None, b"key"]
    large = bytearray(100_000)
    assert decode(encode([large])).values == [bytes(large)]


def test_any_sequence_will_do() -> None:
    stamps = np.array([3, 4])
    assert decode(encode(np.array([b"a", b"b"], dtype=object), timestamps=stamps)).timestamps == [3, 4]  # type: ignore[arg-type]
    assert decode(encode(np.array([b"a", b"b"]), [np.bytes_(b"k"), None])).keys == [b"k", None]  # type: ignore[arg-type]
    assert decode(encode(deque([b"a", b"b"]), deque([b"k", b"l"]))).keys == [b"k", b"l"]
    decoded = decode(encode((b"a", b"b"), (b"k", None), (1, 2), (((), (("h", None),)))))
    assert (decoded.values, decoded.keys, decoded.timestamps) == ([b"a", b"b"], [b"k", None], [1, 2])
    assert decoded.headers == [(), (("h", None),)]


def test_columns_that_say_nothing_are_left_out() -> None:
    plain = encode([b"v"] * 3, timestamps=5)
    assert encode([b"v"] * 3, [None] * 3, [5] * 3, [[], [], ()]) == plain


def test_incompressible_bodies_stay_plain() -> None:
    values = [random.randbytes(10_000)]
    for compression in Compression:
        assert parse_header(encode(values, compression=compression)).compression is Compression.NONE
        small = encode([b"x" * 100] * 100, compression=compression)
        assert parse_header(small).compression is compression


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (([],), "at least one record"),
        ((["text"],), r"values\[0\] is str"),
        (([b"a", 1],), r"values\[1\] is int"),
        (([None, "text"],), r"values\[1\] is str"),
        (([None, ""],), r"values\[1\] is str"),
        (([None, 0],), r"values\[1\] is int"),
        (([b"a", [1]],), r"values\[1\] is list"),
        (("text",), r"values\[0\] is str"),
        ((b"text",), r"values\[0\] is int"),
        ((5,), "values is int"),
        (([b"a"], 5), "keys is int"),
        (([b"a"], ["k"]), r"keys\[0\] is str"),
        (([b"a"], [b"k", b"l"]), "2 keys for 1 values"),
        (([b"a"], None, [1, 2]), "2 timestamps for 1 values"),
        (([b"a"], None, [2**63]), "int64"),
        (([b"a", b"b"], None, [1, None]), "int64"),
        (([b"a", b"b"], None, [1, "2"]), "int64"),
        (([b"a"], None, 2**63), "int64"),
        (([b"a", b"b"], None, [-(2**63) - 1, 0]), "int64"),
        (([b"a"], None, 1.5), "timestamps"),
        (([b"a"], None, None), "timestamps"),
        (([b"a"], None, 0, [[], []]), "2 headers for 1 values"),
        (([b"a"], None, 0, [[("k",)]]), "pairs"),
        (([b"a"], None, 0, [[("k", b"v", b"w")]]), "pairs"),
        (([b"a"], None, 0, [[("k", b"v"), ("k",)]]), "pairs"),
        (([b"a"], None, 0, [[(b"k", b"v")]]), "pairs"),
        (([b"a"], None, 0, [[("\ud800", b"v")]]), "pairs"),
        (([b"a", b"b"], None, 0, [[("k", b"v")], None]), "pairs"),
        (([b"a"], None, 0, [[("k", "v")]]), r"header values\[0\] is str"),
        (([b"a"], None, 0, [[("k", None), ("k", 5)]]), r"header values\[1\] is int"),
        (([memoryview(b"abcdabcd").cast("i")],), "bytes"),
    ],
)
def test_arguments_that_do_not_fit(arguments: tuple[Any, ...], complaint: str) -> None:
    for compression in (Compression.NONE, Compression.LZ4):
        with pytest.raises(InvalidArgumentError, match=complaint):
            encode(*arguments, compression=compression)


def test_records_over_their_bound() -> None:
    most = limits.RECORD_BYTES_MAX
    assert decode(encode([bytes(most)])).values == [bytes(most)]
    assert decode(encode([bytes(most - 3)], [b"key"])).keys == [b"key"]
    for arguments in (
        ([bytes(most + 1)],),
        ([b"", bytes(most - 2)], [b"", b"key"]),
        ([b"", bytes(most - 2)], None, 0, [[], [("k", b"vv")]]),
    ):
        with pytest.raises(BatchTooLargeError, match=f"a record of {most + 1} bytes"):
            encode(*arguments)  # type: ignore[arg-type]


def test_batches_over_their_bounds() -> None:
    with pytest.raises(BatchTooLargeError, match="records"):
        encode([b""] * (limits.BATCH_RECORDS_MAX + 1))
    with pytest.raises(BatchTooLargeError, match="a batch of"):
        encode([bytes(limits.BATCH_BYTES_MAX // 4)] * 4)
    with pytest.raises(BatchTooLargeError, match="a column of"):
        encode([bytes(1_000_000)] * 2_200, compression=Compression.ZSTD)
    with pytest.raises(BatchTooLargeError, match="bytes of records"):
        encode([bytes(4_000_000)] * 16, [bytes(1_000_000)] * 16, compression=Compression.ZSTD)
    with pytest.raises(BatchTooLargeError, match="headers in a record"):
        encode([b""], headers=[[("", None)] * (limits.HEADERS_PER_RECORD_MAX + 1)])
    with pytest.raises(BatchTooLargeError, match="headers, at most"):
        encode([b""] * 1_001, headers=[[("", None)] * limits.HEADERS_PER_RECORD_MAX] * 1_001)


def test_compression_lets_a_batch_pass_its_wire_bound() -> None:
    values = [bytes(4_000_000)] * 16
    batch = encode(values, compression=Compression.LZ4)
    assert len(batch) < limits.BATCH_BYTES_MAX < 64_000_000
    assert decode(batch).values == values


def test_records() -> None:
    batch = decode(encode([b"a", b"b", None], [b"k", None, b"l"], [5, 6, 4], [(), [("h", b"1")], ()]))
    records = batch.records("topic", 3)
    assert records == [
        Record("topic", 3, 0, 5, b"k", b"a", ()),
        Record("topic", 3, 1, 6, None, b"b", (("h", b"1"),)),
        Record("topic", 3, 2, 4, b"l", None, ()),
    ]
    assert len(batch) == batch.count == 3
    assert (batch.base_offset, batch.last_offset) == (0, 2)


def compacted(deltas: list[int]) -> dict[int, bytes]:
    count = len(deltas)
    return {
        4: struct.pack(f"<{count + 1}i", *range(count + 1)),
        5: bytes(range(97, 97 + count)),
        14: struct.pack(f"<{count}i", *deltas),
    }


def test_compacted_batch_keeps_its_offsets(native: Any) -> None:
    batch = decode(native(compacted([1, 4, 9]), 3, last_delta=9, base_offset=100))
    assert batch.offsets == [101, 104, 109]
    assert batch.values == [b"a", b"b", b"c"]
    assert (batch.base_offset, batch.last_offset, len(batch)) == (100, 109, 3)
    assert [record.offset for record in batch.records("t", 0)] == [101, 104, 109]
    assert batch.to_arrow().column("offset").to_pylist() == [101, 104, 109]


@pytest.mark.parametrize("deltas", [[-1, 4, 9], [1, 1, 9], [4, 1, 9], [1, 4, 8], [1, 4, 10]])
def test_offset_deltas_that_do_not_ascend(native: Any, deltas: list[int]) -> None:
    with pytest.raises(CorruptBatchError, match="offset deltas"):
        decode(native(compacted(deltas), 3, last_delta=9))


def test_log_append_time_overrides_the_column(native: Any) -> None:
    stamps = {4: bytes(12), 5: b"", 7: struct.pack("<2q", 1, 2)}
    assert decode(native(stamps, 2, timestamps=(1, 9))).timestamps == [1, 2]
    assert decode(native(stamps, 2, timestamps=(1, 9), attributes=8)).timestamps == [9, 9]


ONE = {1: struct.pack("<2i", 0, 1), 2: b"k", 4: struct.pack("<2i", 0, 1), 5: b"v"}
HEADED = {
    4: bytes(8),
    5: b"",
    8: struct.pack("<2i", 0, 1),
    9: struct.pack("<2i", 0, 1),
    10: b"h",
    11: bytes(8),
    12: b"",
}


def without(columns_of: dict[int, bytes], *kinds: int) -> dict[int, bytes]:
    return {kind: buffer for kind, buffer in columns_of.items() if kind not in kinds}


@pytest.mark.parametrize(
    ("buffers_of", "attributes", "count", "last_delta"),
    [
        (ONE, 0, 1, 0),  # every record has a key, but the bit is not set
        (ONE | {3: b"\x01"}, 0x100, 1, 0),  # the bit is set, but there is a bitmap
        (without(ONE, 1, 2), 0x100, 1, 0),  # the bit is set, but there are no keys
        (without(ONE, 1), 0x100, 1, 0),
        (without(ONE, 2), 0x100, 1, 0),
        (without(ONE, 1, 2) | {3: b"\x01"}, 0, 1, 0),
        (without(ONE, 4), 0x100, 1, 0),
        (without(ONE, 5), 0x100, 1, 0),
        (without(ONE, 4, 5), 0x100, 1, 0),
        ({}, 0, 1, 0),
        (ONE | {3: b"\x03"}, 0, 1, 0),  # a bit after the last
        (ONE | {3: b"\x01\x00"}, 0, 1, 0),
        (ONE | {3: b""}, 0, 1, 0),
        (ONE | {6: b""}, 0x100, 1, 0),
        (ONE | {7: bytes(7)}, 0x100, 1, 0),
        (ONE | {7: bytes(16)}, 0x100, 1, 0),
        (ONE | {0: b""}, 0x100, 1, 0),
        (ONE | {15: b""}, 0x100, 1, 0),
        (ONE | {14: b""}, 0x100, 1, 0),
        (ONE, 0x100, 1, 1),  # a gap without offset deltas
        (ONE | {4: bytes(4)}, 0x100, 1, 0),
        (ONE | {4: bytes(12)}, 0x100, 1, 0),
        (ONE | {4: struct.pack("<2i", 0, 2)}, 0x100, 1, 0),
        (ONE | {4: struct.pack("<2i", 0, 0)}, 0x100, 1, 0),
        (ONE | {4: struct.pack("<2i", 1, 1)}, 0x100, 1, 0),
        (ONE | {4: struct.pack("<2i", -1, 1)}, 0x100, 1, 0),
        ({4: struct.pack("<4i", 0, 2, 1, 2), 5: b"ab"}, 0, 3, 2),
        ({4: struct.pack("<4i", 0, 9, 1, 2), 5: b"ab"}, 0, 3, 2),
        ({4: struct.pack("<4i", 0, -9, 1, 2), 5: b"ab"}, 0, 3, 2),
        *((without(HEADED, kind), 0, 1, 0) for kind in HEADED),
        (without(HEADED, 8, 9, 10, 11, 12) | {13: b"\x01"}, 0, 1, 0),
        (HEADED | {13: b"\x02"}, 0, 1, 0),
        (HEADED | {10: b"\xff"}, 0, 1, 0),
        (HEADED | {8: struct.pack("<2i", 0, 2)}, 0, 1, 0),
        (HEADED | {8: bytes(8), 9: bytes(4), 10: b"", 11: bytes(4)}, 0, 1, 0),
        (HEADED | {9: struct.pack("<3i", 0, 1, 1)}, 0, 1, 0),
        (HEADED | {9: b"\x00\x00\x00\x00\x01\x00\x00\x00\x00"}, 0, 1, 0),
        # a character cut in two: valid as a whole, not key by key
        (
            HEADED
            | {8: struct.pack("<2i", 0, 2), 9: struct.pack("<3i", 0, 1, 2), 10: "é".encode(), 11: bytes(12)},
            0,
            1,
            0,
        ),
    ],
)
def test_columns_that_do_not_hold(
    native: Any, buffers_of: dict[int, bytes], attributes: int, count: int, last_delta: int
) -> None:
    with pytest.raises(CorruptBatchError):
        decode(native(buffers_of, count, attributes=attributes, last_delta=last_delta))


def test_the_base_columns_above_do_hold(native: Any) -> None:
    assert decode(native(ONE, 1, attributes=0x100)).keys == [b"k"]
    assert decode(native(ONE | {3: b"\x00"}, 1)).keys == [None]
    assert decode(native(HEADED, 1)).headers == [(("h", b""),)]
    assert decode(native(HEADED | {13: b"\x00"}, 1)).headers == [(("h", None),)]


def test_kinds_ascend(native: Any) -> None:
    assert decode(native(ONE, 1, attributes=0x100)).values == [b"v"]
    with pytest.raises(CorruptBatchError, match="column kind 4 after 5"):
        decode(native(ONE, 1, attributes=0x100, ascending=False))


def test_differing_timestamps_need_their_column(native: Any) -> None:
    with pytest.raises(CorruptBatchError, match="timestamp"):
        decode(native({4: bytes(8), 5: b""}, 1, timestamps=(1, 2)))


def test_padding_and_reserved_bytes_are_zero(sealed: Any) -> None:
    body = encode([b"v"])[61:]
    assert decode(sealed(body, 1)).values == [b"v"]
    zeros = [place for place, byte in enumerate(body) if byte == 0]
    offsets_at, data_at = 3 + 8 + 16, 3 + 8 + 16 + 8
    assert len(body) == data_at + 8
    for place in zeros:
        if offsets_at <= place < data_at:
            continue
        with pytest.raises(CorruptBatchError):
            decode(sealed(body[:place] + b"\x01" + body[place + 1 :], 1))
    with pytest.raises(CorruptBatchError, match="40 bytes in a body of 48"):
        decode(sealed(body + bytes(8), 1))


def test_bitmaps_match_their_definition() -> None:
    source = random.Random(1)
    for count in (1, 7, 8, 9, 64, 1_001):
        flags = [source.random() < 0.5 for _ in range(count)]
        bitmap = buffers.pack_bitmap(flags)
        assert len(bitmap) == (count + 7) // 8
        assert flags == [bool(bitmap[place // 8] >> place % 8 & 1) for place in range(count)]
        assert list(buffers.unpack_bitmap(bitmap, count)) == flags


@given(
    offsets=st.lists(st.integers(-2, 9), min_size=2, max_size=6),
    length=st.integers(0, 9),
    ascending=st.booleans(),
)
def test_offsets_are_checked_alike_with_and_without_numpy(
    offsets: list[int], length: int, ascending: bool
) -> None:
    if ascending:
        offsets = [0, *sorted(map(abs, offsets))]
        length = offsets[-1]
    count = len(offsets) - 1
    body = b"front" + struct.pack(f"<{count + 1}i", *offsets)
    outcomes = []
    for missing in ("", "numpy"):
        with mock.patch.dict(sys.modules):
            sys.modules.pop(missing, None)
            try:
                outcomes.append(buffers.check_offsets(body, 5, count, length, "test") in ([], offsets))
            except CorruptBatchError as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] is True or not ascending


def test_kinds_are_dense() -> None:
    assert [int(kind) for kind in columns.Kind] == list(range(1, 15))


@given(
    runs=st.lists(
        st.lists(st.integers(0, 9), min_size=1, max_size=9)
        | st.integers(1, 3).map(lambda width: [width] * 5),
        max_size=9,
    ),
    first=st.sampled_from((0, 7, 2**31 - 20, 2**40)),
)
def test_offsets_of_runs(runs: list[list[int]], first: int) -> None:
    offsets = buffers.Runs()
    for lengths in runs:
        bounds: Sequence[int] = list(itertools.accumulate(lengths, initial=first))
        if lengths[0] and len(set(lengths)) == 1:
            bounds = range(bounds[0], bounds[-1] + 1, lengths[0])
        offsets.add(bounds)
    lengths = [length for lengths in runs for length in lengths]
    assert (offsets.count, offsets.size) == (len(lengths), sum(lengths))
    assert offsets.offsets() == struct.pack(
        f"<{len(lengths) + 1}i", *itertools.accumulate(lengths, initial=0)
    )
