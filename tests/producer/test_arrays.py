"""Arrays of numpy and Arrow as columns: their bytes, or an error that says what to give."""

import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import json, msgpack

from tailrace.client.serializers import serializer_of
from tailrace.consumer.column_batch import ColumnBatch
from tailrace.consumer.decoding import Decoding
from tailrace.producer import arrays
from tailrace.producer.arguments import column_of, is_array
from tailrace.producer.arrays import packed_of, times_of
from tailrace.producer.columns import columns_of
from tailrace.producer.key_hashes import places_of
from tailrace.producer.partitioner import Partitioner
from tailrace.protocol import packed
from tailrace.protocol.columns import encode
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import InvalidArgumentError, SerializationError
from tailrace.protocol.packed import Packed
from tailrace.protocol.record import TopicPartition

POINTS = np.array([(1, 2.5), (3, 4.5)], [("x", "<i4"), ("y", "<f8")])
BINARY = (pa.binary(), pa.large_binary(), pa.binary_view())
TEXT = (pa.string(), pa.large_string(), pa.string_view())
STAMP = 1_600_000_000_123


@pytest.mark.parametrize(
    "array",
    [
        np.array([b"a", b"bc"]),
        np.array([b"abc", b"def"], "V3"),
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.arange(5),
        np.arange(5, dtype=">i4"),
        np.arange(12.0, dtype=np.float32).reshape(2, 2, 3),
        np.arange(10)[::3],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([True, False]),
        np.array(["2020-01-01"], "M8[s]"),
        POINTS,
        POINTS.astype([("x", ">i4"), ("y", ">f8")]),
        POINTS.view(np.recarray),
        np.zeros((3, 0), np.uint8),
        np.zeros(0),
        np.frombuffer(b"abcd", "S2"),
    ],
    ids=str,
)
def test_numpy(array: np.ndarray) -> None:
    little = array.astype(array.dtype.newbyteorder("<"))
    assert is_array(array)
    assert packed_of("values", array).items() == [little[at : at + 1].tobytes() for at in range(len(array))]


def test_a_column_is_a_view_where_it_can_be() -> None:
    array = np.arange(10)
    assert np.shares_memory(packed_of("values", array).data, array)
    assert np.shares_memory(packed_of("values", array[3:6]).data, array)
    arrow = pa.array([b"abc", b"de"])
    assert packed_of("values", arrow).data.ctypes.data == arrow.buffers()[2].address
    numbers = pa.array(array)
    assert packed_of("values", numbers).data.ctypes.data == numbers.buffers()[1].address


def test_padding_is_zero() -> None:
    pair = np.dtype([("x", "u1"), ("y", ">i2")], align=True)
    kind = np.dtype([("a", "u1"), ("b", "<f8"), ("c", pair, (2,))], align=True)
    rows = [(1, 2.5, [(3, 4), (5, 6)]), (7, 8.5, [(9, 10), (11, 12)])]
    zeros = bytes(2 * kind.itemsize)
    expected = np.frombuffer(zeros, kind).copy()
    dirty = np.frombuffer(b"\xff" * len(zeros), kind).copy()
    for array in (expected, dirty):
        for field in ("a", "b"):
            array[field] = [row[kind.names.index(field)] for row in rows]
        array["c"]["x"] = [[item[0] for item in row[2]] for row in rows]
        array["c"]["y"] = [[item[1] for item in row[2]] for row in rows]
    assert dirty.tobytes() != expected.tobytes()
    items = packed_of("values", dirty).items()
    assert items == packed_of("values", expected).items()
    stored = np.frombuffer(items[1], kind.newbyteorder("<"))
    assert stored[["a", "b"]].tolist() == [(7, 8.5)]
    assert stored["c"].tolist() == [[(9, 10), (11, 12)]]
    assert packed_of("values", np.stack([dirty, dirty])).items() == [b"".join(items)] * 2


@settings(deadline=None)
@given(items=st.lists(st.text(max_size=6), max_size=20), kind=st.sampled_from(("", "<U7", ">U9")))
def test_text_of_numpy_is_utf8(items: list[str], kind: str) -> None:
    array = np.array(items, kind or str)
    stored = [item.rstrip("\0").encode() for item in items]
    assert packed_of("values", array).items() == stored
    assert packed_of("values", array[::-2]).items() == stored[::-2]


@pytest.mark.parametrize("kind", ["<U7", ">U7"])
@pytest.mark.parametrize("letter", ["x", "é", "\U0001f40c"])
def test_text_of_numpy_makes_no_object_for_each(
    monkeypatch: pytest.MonkeyPatch, kind: str, letter: str
) -> None:
    """When the column is made, whatever it is made of is still there."""
    blocks: list[int] = []

    class Watched(Packed):
        def __init__(self, *columns: Any) -> None:
            blocks.append(sys.getallocatedblocks())
            super().__init__(*columns)

    for module in (arrays, packed):
        monkeypatch.setattr(module, "Packed", Watched)
    count = 50_000
    array = np.array([f"{letter}{number}" for number in range(count)], kind)
    before = sys.getallocatedblocks()
    column = packed_of("values", array)
    assert max(blocks) - before < count / 10
    assert column.items()[-1] == f"{letter}{count - 1}".encode()
    packed_of("values", array.tolist())
    assert max(blocks) - before > count * 0.9, "it would have been noticed; other threads free some, too"


@settings(deadline=None)
@given(items=st.lists(st.binary(max_size=6), max_size=20), kind=st.sampled_from(("", "S9")))
def test_keys_of_numpy_are_what_send_would_get(items: list[bytes], kind: str) -> None:
    array = np.array(items, kind or bytes)
    for keys in (array, array[::-2]):
        assert packed_of("keys", keys).items() == keys.tolist()
        partitioner = Partitioner("crc32")
        places = places_of(packed_of("keys", keys), partitioner, 7, (), 7).tolist()
        assert places == [7 if not key else partitioner.place(key, 7, ()) for key in keys.tolist()]


def test_keys_in_full_width_are_a_view() -> None:
    array = np.array([b"ab", b"cd"])
    assert np.shares_memory(packed_of("keys", array).data, array)


def test_text_that_is_none() -> None:
    for text in ("\ud800", "ok\udfff"):
        with pytest.raises(InvalidArgumentError, match=r"values\[1\] is str .* which UTF-8 cannot hold"):
            packed_of("values", np.array(["ok", text]))


def test_text_of_numpys_other_kind() -> None:
    if hasattr(np.dtypes, "StringDType"):  # from numpy 2 on
        array = np.array(["a", "é"], np.dtypes.StringDType())
        assert packed_of("values", array).items() == [b"a", "é".encode()]
        missing = np.array(["a", None], np.dtypes.StringDType(na_object=None))
        assert packed_of("values", missing).items() == [b"a", None]
        assert packed_of("values", array[:0]).items() == []


@settings(deadline=None)
@given(
    items=st.lists(st.one_of(st.none(), st.text(max_size=6)), max_size=20),
    kind=st.sampled_from((*BINARY, *TEXT)),
    cuts=st.lists(st.integers(0, 20), max_size=3),
    start=st.integers(0, 5),
)
def test_arrow(items: list[str | None], kind: Any, cuts: list[int], start: int) -> None:
    stored = [None if item is None else item.encode() for item in items]
    array = pa.array(stored if kind in BINARY else items, kind)
    assert packed_of("values", array).items() == stored
    assert packed_of("values", array.slice(start, 4)).items() == stored[start : start + 4]
    edges = [0, *sorted(min(cut, len(items)) for cut in cuts), len(items)]
    chunks = pa.chunked_array([array.slice(low, high - low) for low, high in pairwise(edges)], kind)
    assert packed_of("values", chunks).items() == stored


def test_other_kinds_of_arrow() -> None:
    fixed = pa.array([b"ab", None, b"cd"], pa.binary(2))
    assert packed_of("values", fixed).items() == [b"ab", None, b"cd"]
    assert packed_of("values", fixed.slice(2)).items() == [b"cd"]
    assert packed_of("values", pa.chunked_array([fixed.slice(2), fixed.slice(0, 1)])).width == 2
    assert packed_of("values", pa.array(["x", "y", None, "x"]).dictionary_encode()).items() == [
        b"x", b"y", None, b"x",
    ]  # fmt: skip
    of_views = pa.DictionaryArray.from_arrays(
        pa.array([1, None, 0, 1]), pa.array(["y", "x"], pa.string_view())
    )
    for column in (of_views, pa.chunked_array([of_views])):
        assert packed_of("values", column).items() == [b"x", None, b"y", b"x"]
    assert packed_of("values", pa.chunked_array([], of_views.type)).items() == []
    assert packed_of("values", pa.nulls(2)).items() == [None, None]
    assert packed_of("values", pa.chunked_array([], pa.string())).items() == []


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5),
        np.arange(5, dtype=np.uint16),
        np.linspace(0, 1, 5),
        np.linspace(0, 1, 5, dtype=np.float16),
        np.arange(5).astype("M8[us]"),
        np.arange(5).astype("m8[s]"),
        np.arange(5) % 2 == 0,
    ],
    ids=lambda array: str(array.dtype),
)
def test_numbers_are_the_bytes_that_numpy_has(array: np.ndarray) -> None:
    items, kind = packed_of("values", array).items(), pa.array(array).type
    arrow = pa.array(array)
    assert packed_of("values", arrow).items() == items
    assert packed_of("values", arrow.slice(2, 2)).items() == items[2:4]
    assert packed_of("values", pa.chunked_array([arrow[:3], arrow[3:]])).items() == items
    with_null = pa.concat_arrays([arrow, pa.nulls(1, kind)])
    assert packed_of("values", with_null).items() == [*items, None]
    assert packed_of("values", pa.chunked_array([], kind)).items() == []


def test_bytes_behind_a_null_are_left_out() -> None:
    validity = pa.py_buffer(bytes([0b101]))
    offsets = np.array([0, 2, 4, 6])
    for kind in (pa.binary(), pa.string(), pa.large_binary(), pa.large_string()):
        number = np.int64 if kind in (pa.large_binary(), pa.large_string()) else np.int32
        ends = pa.py_buffer(offsets.astype(number))
        array = pa.Array.from_buffers(kind, 3, [validity, ends, pa.py_buffer(b"aabbcc")])
        column = packed_of("values", array)
        assert column.items() == [b"aa", None, b"cc"]
        assert column.ends().tolist() == [0, 2, 2, 4]


class Shown:
    """Shows itself as Arrow, and in no other way."""

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return pa.array(["a", None]).__arrow_c_array__(requested_schema)


def test_what_shows_itself_as_arrow_is_a_column() -> None:
    assert is_array(Shown())
    assert stored(Shown(), None) == stored(Shown(), "str") == [b"a", None]


def test_series_show_themselves_as_arrow() -> None:
    assert packed_of("values", pl.Series(["a", None, "longer than twelve"])).items() == [
        b"a", None, b"longer than twelve",
    ]  # fmt: skip
    assert packed_of("values", pd.Series(["a", "b"], dtype=pd.ArrowDtype(pa.string()))).items() == [
        b"a",
        b"b",
    ]
    assert packed_of("values", pl.Series(["a", "b", "a"], dtype=pl.Categorical)).items() == [b"a", b"b", b"a"]
    for series in (pl.Series([1.0, 2.5]), pd.Series([1.0, 2.5])):
        assert packed_of("values", series).items() == packed_of("values", np.array([1.0, 2.5])).items()


def stored(column: Any, serializer: str | None) -> list[bytes | None]:
    columns: Any = columns_of(
        column, None, None, None, serializers=(None, serializer_of("value_serializer", serializer))
    )
    return columns.values.items() if columns.packed else columns.values


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None]),
        pa.chunked_array([["a"], [None]]),
        pl.Series(["a", None]),
        pd.Series(["a", None], dtype="string"),
        pd.Series(["a", None], dtype=object),
        pd.Series(["a", np.nan], dtype=object),
        pd.Series(["a", None], dtype="category"),
        pd.Series(["a", None], dtype=pd.ArrowDtype(pa.string())),
        pd.Categorical(["a", None]),
        pd.Index(["a", None]),
        pd.array(["a", None]),
    ],
    ids=lambda column: f"{type(column).__name__}-{getattr(column, 'dtype', '')}",
)
def test_what_is_missing_is_null(column: Any) -> None:
    assert stored(column, None) == stored(column, "str") == [b"a", None]
    assert stored(column, "json") == [b'"a"', None]
    assert stored(column, "msgpack") == [b"\xa1a", None]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None]),
        pl.Series([1, None]),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([1, pd.NA], dtype=object),
        pd.array([1, None]),
    ],
    ids=lambda column: type(column).__name__,
)
def test_numbers_that_are_missing_are_null(column: Any) -> None:
    assert stored(column, None) == [(1).to_bytes(8, "little"), None]
    assert stored(column, "json") == [b"1", None]
    assert stored(column, "msgpack") == [b"\x01", None]


def test_nan_is_a_number_in_a_column_of_floats() -> None:
    numbers = np.array([1.5, np.nan])
    for column in (numbers, pd.Series(numbers), pd.Index(numbers), pl.Series(numbers), pa.array(numbers)):
        assert stored(column, None) == [number.tobytes() for number in numbers]
        assert stored(column, "msgpack") == list(map(msgpack.encode, numbers.tolist()))
        with pytest.raises(SerializationError, match=r"values\[1\]=nan"):
            stored(column, "json")


@pytest.mark.parametrize("kind", ["M8[D]", "M8[s]", "M8[ms]", "M8[us]"])
def test_times_of_numpy_are_pythons_for_a_serializer(kind: str) -> None:
    column = np.array(["2020-01-02", "NaT"], kind)
    assert stored(column, "json") == [json.encode(column.tolist()[0]), None]
    assert stored(column, "json")[0].startswith(b'"2020-01-02')


@pytest.mark.parametrize(
    "column",
    [
        np.array(["2020-01-02"], "M8[ns]"),
        np.array([["2020-01-02"]], "M8[ns]"),
        np.array([5], "m8[ns]"),
        np.array(["20200-01-02"], "M8[s]"),
    ],
    ids=lambda column: str(column.dtype),
)
def test_times_that_are_none_of_pythons_are_refused(column: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"values has .*give column.astype\('[mM]8\[us\]'\)"):
        stored(column, "json")


def stamped(unit: str, when: str = "2020-01-02") -> Any:
    """One item with a time in a field of a field, and one in which it is missing."""
    kind = np.dtype([("n", "i4"), ("at", [("took", "m8[ms]"), ("when", f"M8[{unit}]")])])
    return np.array([(1, (5, when)), (2, (5, "NaT"))], kind)


def test_times_in_fields_are_pythons_for_a_serializer() -> None:
    first, second = map(json.decode, stored(stamped("us"), "json"))
    assert (first, second) == ([1, ["PT0.005S", "2020-01-02T00:00:00"]], [2, ["PT0.005S", None]])


@pytest.mark.parametrize(
    "column",
    [
        stamped("ns"),
        stamped("ns").reshape(2, 1),
        stamped("s", "20200-01-02"),
        stamped("ns").view(np.recarray),
    ],
)
def test_fields_with_times_that_are_none_of_pythons_are_refused(column: Any) -> None:
    told = r"values\['at'\]\['when'\] has datetime64\[n?s\],.* give M8\[us\] in that field"
    with pytest.raises(InvalidArgumentError, match=told):
        stored(column, "json")
    assert len(stored(column, None)) == 2, "without a serializer it is its bytes"


@pytest.mark.parametrize("serializer", [None, "json", "msgpack", "str", "pickle"])
def test_what_pandas_says_is_missing_is_null_in_a_list_too(serializer: str | None) -> None:
    one, _ = stored(["a", None], serializer)
    for items in (["a", pd.NA, pd.NaT, None], ("a", pd.NA, pd.NaT, None)):
        assert stored(items, serializer) == [one, None, None, None]
    if serializer is not None:
        assert stored(np.array(["a", pd.NA], object), serializer) == [one, None]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([b"a", None], object), r"object and shape \(2,\).*column.tolist\(\)"),
        (np.array(b"a"), r"shape \(\)"),
        (np.array([["a"]]), "give an array of bytes"),
        (np.ma.masked_array([1, 2], [True, False]), "masked array.*filled"),
        (pl.Series([object(), object()], dtype=pl.Object), r"Python objects.*column.to_list\(\)"),
        (np.zeros(2, np.longdouble), r"other machines.*astype\('f8'\)"),
        (np.zeros(2, [("a", np.clongdouble, (2,))]), "complex.*other machines"),
        (pa.array([Decimal(1)]), r"Arrow array of decimal.*column.cast\('string'\)"),
        (pa.array([["a"]]), "Arrow array of list.*value_serializer='json'"),
        (pa.array([{"a": 1}]), "struct.*value_serializer='json'"),
        (pa.array([b"a" * 16], pa.uuid()), r"uuid.*column.cast\(column.type.storage_type\)"),
    ],
)
def test_what_is_no_column(values: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"values is .*{message}"):
        packed_of("values", values)
    with pytest.raises(InvalidArgumentError, match=message):
        column_of("values", values, None)


class Names:
    """What has names as a dict has them, and is none."""

    def keys(self) -> list[str]:
        return ["a"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())


@pytest.mark.parametrize("serializer", [None, "json", "str", "pickle"])
@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"price": [1.0], "shop": ["a"]}),
        pl.DataFrame({"price": [1.0], "shop": ["a"]}),
        pa.table({"price": [1.0], "shop": ["a"]}),
        pa.record_batch({"price": [1.0], "shop": ["a"]}),
        {"price": [1.0]},
        Names(),
    ],
    ids=lambda table: type(table).__name__,
)
def test_a_table_is_no_column(table: Any, serializer: str | None) -> None:
    serializers = (serializer_of("key_serializer", serializer), serializer_of("value_serializer", serializer))
    message = "a sequence of" if isinstance(table, dict | Names) else r"give one column of it, .*\['price'\]"
    for name, columns in (
        ("values", (table, None)),
        ("keys", (["v"], table)),
        ("keys", (np.array(["v"]), table)),
    ):
        with pytest.raises(InvalidArgumentError, match=f"{name} is .*{message}"):
            columns_of(*columns, None, None, serializers=serializers)
    for columns in ((table, None), (None, table)):
        with pytest.raises(InvalidArgumentError, match=r"(headers|timestamps_ms) is "):
            columns_of([], None, *columns, serializers=serializers)


@pytest.mark.parametrize(
    "stamps",
    [
        np.array([STAMP, STAMP + 1]),
        np.array([[STAMP, 0], [STAMP + 1, 0]])[:, 0],
        np.array([STAMP, STAMP + 1], ">u8"),
        np.array([STAMP, STAMP + 1], "M8[ms]"),
        np.array([STAMP * 1_000, STAMP * 1_000 + 1_999], "M8[us]"),
        pa.array([STAMP, STAMP + 1]),
        pa.array([STAMP, STAMP + 1], pa.timestamp("ms", tz="UTC")),
        pa.chunked_array([[STAMP], [STAMP + 1]], pa.timestamp("ms")),
        pl.Series([STAMP, STAMP + 1]),
        pd.Series([STAMP, STAMP + 1]),
        pd.DatetimeIndex(np.array([STAMP, STAMP + 1], "M8[ms]"), tz="UTC"),
    ],
    ids=str,
)
def test_timestamps(stamps: Any) -> None:
    assert times_of(stamps, 2).tolist() == [STAMP, STAMP + 1]


def test_one_timestamp_for_all_may_be_numpys() -> None:
    for values in ([b"v"] * 2, np.ones(2)):
        found: Any = columns_of(values, None, None, np.int64(STAMP), serializers=(None, None))
        assert found.timestamps == STAMP


SECONDS = STAMP // 1_000


@pytest.mark.parametrize(
    "seconds",
    [SECONDS, [SECONDS], np.array([SECONDS]), pa.array([SECONDS]), np.int64(SECONDS)],
    ids=lambda each: type(each).__name__,
)
def test_seconds_are_warned_of(seconds: Any) -> None:
    for values in ([b"v"], np.ones(1)):
        with pytest.warns(UserWarning, match="timestamps_ms of early 1970: for seconds give milliseconds"):
            found: Any = columns_of(values, None, None, seconds, serializers=(None, None))
        assert np.atleast_1d(found.timestamps).tolist() == [SECONDS]


@pytest.mark.parametrize(
    "early",
    [0, 5, 10**9 - 1, 2**32, [7], np.array([SECONDS], "M8[ms]"), pa.array([SECONDS], pa.timestamp("ms"))],
    ids=lambda each: type(each).__name__,
)
def test_what_is_early_on_purpose_is_not_warned_of(early: Any) -> None:
    columns_of([b"v"], None, None, early, serializers=(None, None))


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        (np.array([1.0, 2.0]), r"a numpy array of float64.*int64\[2\].*datetime64"),
        (np.array([True, False]), "bool"),
        (np.array([[1], [2]]), r"shape \(2, 1\)"),
        (np.array([1, -2]), r"timestamps_ms\[1\] is -2"),
        (np.array([1, 2**63], np.uint64), r"timestamps_ms\[1\] is 9223372036854775808"),
        (np.array([0, "NaT"], "M8[ms]"), r"timestamps_ms\[1\] is NaT"),
        (np.array([1, 2, 3]), "3 timestamps_ms for 2 values"),
        (pa.array([1, None]), "1 nulls"),
        (pa.array(["a", "b"]), "timestamps_ms is"),
    ],
)
def test_what_is_no_timestamp(stamps: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        times_of(stamps, 2)


def test_headers_as_batches_have_them() -> None:
    headers = [(("name", b"a"), ("other", None)), (), (("name", b""),)]
    batch = ColumnBatch(TopicPartition("t", 0), decode(encode([b"v"] * 3, headers=headers)), 0, Decoding())
    frames = (batch.to_arrow(), pa.table(batch.to_arrow()), batch.to_pandas(), batch.to_polars())
    for column in (*(frame["headers"] for frame in frames), batch.headers):
        for values in ([b"v"] * 3, np.ones(3)):
            found: Any = columns_of(values, None, column, None, serializers=(None, None))
            assert list(found.headers) == headers


def test_lists_need_neither_numpy_nor_pyarrow() -> None:
    script = """
import sys
from tailrace.producer.columns import columns_of
columns_of([b"a", "b"], ["k", None], None, [1, 2], serializers=(None, None))
import tailrace.producer.producer, tailrace.consumer.consumer
assert not {"numpy", "pyarrow"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
