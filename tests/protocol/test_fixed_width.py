"""Columns of one width as numpy arrays: views of the batch, or an error that says why not."""

import gc
from typing import Any

import aiokafka.record.default_records as kafka_records
import numpy as np
import pytest

from tailrace.protocol.columns import encode
from tailrace.protocol.compression import Compression
from tailrace.protocol.decode import Batch, decode
from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.read_columns import Columns

NUMBERS = np.arange(100, dtype="<i8")
VALUES: list[bytes | None] = [number.tobytes() for number in NUMBERS]
POINT = np.dtype([("x", "<i4"), ("y", "<f4")])


def batch_of(values: list[bytes | None], keys: list[bytes | None] | None = None, **options: Any) -> Batch:
    return decode(encode(values, keys, **options))


@pytest.mark.parametrize("codec", Compression)
def test_numbers(codec: Compression) -> None:
    batch = batch_of(VALUES, VALUES[::-1], compression=codec)
    assert batch.to_numpy("i8").tolist() == NUMBERS.tolist()
    assert batch.to_numpy(np.int64, "key").tolist() == NUMBERS[::-1].tolist()


@pytest.mark.parametrize("dtype", ["i8", "M8[ms]", "S8", "V8", POINT, ("u2", 4), ("<f4", (2, 1))])
def test_every_kind_is_a_view(dtype: Any) -> None:
    batch = decode(encode(VALUES, timestamps=list(range(100))))
    assert isinstance(batch.body, Columns)
    array = batch.to_numpy(dtype)
    assert np.shares_memory(array, np.frombuffer(batch.body.body, np.uint8))
    assert len(array) == 100
    assert array.tobytes() == NUMBERS.tobytes()
    assert array.flags.aligned
    assert not array.flags.writeable


def test_the_default_is_the_bytes_as_they_are() -> None:
    array = batch_of([b"ab\0", b"\0\0\0"]).to_numpy()
    assert array.dtype == "V3"
    assert array.tolist() == [b"ab\0", b"\0\0\0"]


@pytest.mark.parametrize("width", [0, 1, 5_000])
def test_any_width(width: int) -> None:
    array = batch_of([b"x" * width] * 3).to_numpy()
    assert array.shape == (3,)
    assert array.tobytes() == b"x" * width * 3


def test_a_view_outlives_the_batch() -> None:
    array = batch_of(VALUES * 100).to_numpy("i8")
    gc.collect()
    assert array[-1] == 99


def test_rows_are_copied() -> None:
    builder: Any = kafka_records.DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for place, value in enumerate(VALUES):
        builder.append(place, 5, None, value, [])
    batch = decode(bytes(builder.build()))
    assert batch.to_numpy("i8").tolist() == NUMBERS.tolist()
    with pytest.raises(InvalidArgumentError, match="some keys are null"):
        batch.to_numpy("i8", "key")


@pytest.mark.parametrize(
    ("batch", "arguments", "message"),
    [
        (batch_of([b"a", b"abc"]), (), r"values of 1 to 3 bytes.*use .values or .to_arrow\(\)"),
        (batch_of([b"a", None]), (), "some values are null"),
        (batch_of([b"a"], [None]), (None, "key"), "no record of the batch has a key"),
        (batch_of([b"a", b"b"], [b"k", None]), (None, "key"), "some keys are null"),
        (batch_of(VALUES), ("i4",), "values have 8 bytes each, dtype int32 has 4"),
        (
            batch_of(VALUES),
            (object,),
            "dtype object has no bytes of its own, it refers to objects: use .values",
        ),
        (batch_of(VALUES), (object,), "dtype object"),
        (batch_of(VALUES), ("nonsense",), "dtype='nonsense'"),
        (batch_of(VALUES), ("M8",), r"dtype='M8' has no unit: give one, such as 'M8\[ms\]'"),
        (batch_of(VALUES), (None, "header"), "column='header'; it is 'value' or 'key'"),
    ],
)
def test_what_is_no_array(batch: Batch, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        batch.to_numpy(*arguments)
