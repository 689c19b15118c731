"""Batches as Arrow record batches: the same records, and a view wherever it can be one."""

import subprocess
import sys
from typing import Any

import aiokafka.record.default_records as kafka_records
import pyarrow as pa
import pytest

from tailrace.protocol.columns import encode
from tailrace.protocol.compression import Compression
from tailrace.protocol.decode import Batch, decode
from tailrace.protocol.read_columns import Columns

VALUES = [b"one", None, b"", b"three"]
KEYS = [b"k", b"", None, b"key"]
TIMESTAMPS = [5, 6, 4, 9]
HEADERS = [(("a", b"1"), ("é", None)), (), (("b", b""),), ()]


def check(batch: Batch) -> pa.RecordBatch:
    table = batch.to_arrow()
    table.validate(full=True)
    assert table.schema.names == ["offset", "timestamp", "key", "value", "headers"]
    assert table.column("offset").to_pylist() == list(batch.offsets)
    assert table.column("timestamp").cast(pa.int64()).to_pylist() == batch.timestamps
    assert table.column("key").to_pylist() == batch.keys
    assert table.column("value").to_pylist() == batch.values
    headers = [
        tuple((pair["key"], pair["value"]) for pair in pairs) for pairs in table.column("headers").to_pylist()
    ]
    assert headers == batch.headers
    return table


@pytest.mark.parametrize("codec", Compression)
def test_every_column(codec: Compression) -> None:
    batch = decode(encode(VALUES * 30, KEYS * 30, TIMESTAMPS * 30, HEADERS * 30, compression=codec))
    table = check(batch)
    assert table.schema.field("timestamp").type == pa.timestamp("ms", tz="UTC")


def test_absent_columns() -> None:
    table = check(decode(encode([b"a", b"b"], timestamps=7)))
    assert table.column("key").null_count == 2


def test_plain_columns_are_views_of_the_batch() -> None:
    batch = decode(encode([b"value-1", b"value-2"], KEYS[:2], [1, 2]))
    assert isinstance(batch.body, Columns)
    whole = pa.py_buffer(batch.body.body)
    table = check(batch)
    for name in ("timestamp", "key", "value"):
        for buffer in table.column(name).buffers():
            if buffer is not None:
                assert whole.address <= buffer.address < whole.address + whole.size, name
                assert buffer.address % 8 == 0


def test_the_view_outlives_the_batch() -> None:
    column = decode(encode([b"value-%d" % number for number in range(1_000)])).to_arrow().column("value")
    assert column[999].as_py() == b"value-999"


def test_rows() -> None:
    builder: Any = kafka_records.DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for place, (key, value) in enumerate(zip(KEYS, VALUES, strict=True)):
        builder.append(place, TIMESTAMPS[place], key, value, list(HEADERS[place]))
    check(decode(bytes(builder.build())))


def test_without_pyarrow_the_error_says_what_to_install() -> None:
    script = """
import sys
sys.modules["pyarrow"] = None
from tailrace.protocol.columns import encode
from tailrace.protocol.decode import decode
batch = decode(encode([b"v"]))
assert batch.values == [b"v"]
try:
    batch.to_arrow()
except ImportError as error:
    assert 'pip install "tailrace[arrow]"' in str(error), error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", script], check=True)
