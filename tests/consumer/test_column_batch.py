"""What `batches()` hands over, as arrays and frames: the same records, and views of what was fetched."""

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailrace.consumer import Consumer
from tailrace.consumer.column_batch import ColumnBatch
from tailrace.consumer.decoding import Decoding
from tailrace.producer import Producer
from tailrace.protocol.columns import encode
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.read_columns import Columns
from tailrace.protocol.record import TopicPartition

from .conftest import Feeder

NAME = TopicPartition("t", 0)
LONG = [b"longer than twelve bytes: %03d" % number for number in range(100)]


def handed_over(data: bytes, start: int = 0, **decoding: Any) -> ColumnBatch:
    return ColumnBatch(NAME, decode(data), start, Decoding(**decoding))


def memory_of(batch: ColumnBatch) -> Any:
    """What the batch's columns lie in."""
    body = batch._batch.body
    assert isinstance(body, Columns)
    return np.frombuffer(body.body, np.uint8)


def inside(batch: ColumnBatch, address: int) -> bool:
    whole = memory_of(batch)
    return 0 <= address - whole.ctypes.data < len(whole)


def test_numpy_from_the_first_record_on() -> None:
    data = encode([b"%03d" % number for number in range(10)], [b"k"] * 10)
    batch = handed_over(data, 4, value=int)
    array = batch.to_numpy("S3")
    assert array.tolist() == [b"%03d" % number for number in range(4, 10)]
    assert batch.to_numpy(column="key").tolist() == [b"k"] * 6
    assert np.shares_memory(array, memory_of(batch))
    assert batch.values == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("value", [b"a longer one", None])
def test_numpy_does_not_look_at_what_was_cut_off(value: bytes | None) -> None:
    data = encode([value, b"ab", b"cd"], [b"long", b"k", b"l"])
    batch = handed_over(data, 1)
    assert batch.to_numpy("S2").tolist() == [b"ab", b"cd"]
    assert batch.to_numpy(column="key").tolist() == [b"k", b"l"]
    with pytest.raises(InvalidArgumentError, match="values"):
        handed_over(data, 0).to_numpy()


@pytest.mark.parametrize("start", [0, 1])
def test_numpy_does_not_look_at_what_was_sifted_out(start: int) -> None:
    batch, rejected = handed_over(encode([b"0", b"none", b"2", b"3"])).sifted(None, int)
    assert len(rejected) == 1
    assert (
        ColumnBatch(NAME, batch._batch, start, Decoding()).to_numpy("S1").tolist()
        == [b"0", b"2", b"3"][start:]
    )


def test_pandas_has_views() -> None:
    data = encode(LONG, LONG[::-1], list(range(100)))
    batch = handed_over(data, 1)
    frame = batch.to_pandas()
    assert frame["value"].tolist() == LONG[1:]
    assert frame["offset"].tolist() == list(range(1, 100))
    assert frame["timestamp"][1] == pd.Timestamp(2, unit="ms", tz="UTC")
    for name in ("timestamp", "key", "value"):
        for buffer in pa.array(frame[name]).buffers():
            assert buffer is None or inside(batch, buffer.address), name


def test_pandas_through_parquet(tmp_path: Path) -> None:
    headers = [(("name", b"a"), ("other", None)), ()]
    frame = handed_over(encode(LONG[:2], [b"k", None], [1, 2], headers)).to_pandas()
    frame.to_parquet(tmp_path / "records")
    read = pd.read_parquet(tmp_path / "records", dtype_backend="pyarrow")
    assert read.equals(frame)
    assert read["headers"][0][1] == {"key": "other", "value": None}


def test_polars_has_views_of_what_is_long() -> None:
    data = encode(LONG, [b"k", None] * 50, list(range(100)))
    batch = handed_over(data, 1)
    frame = batch.to_polars()
    assert frame["value"].to_list() == LONG[1:]
    assert frame["key"].to_list() == [None, *([b"k", None] * 49)]
    assert frame["timestamp"].dtype == pl.Datetime("ms", "UTC")
    viewed = frame["value"].to_arrow(compat_level=pl.CompatLevel.newest())
    assert viewed.type == pa.binary_view()
    assert any(inside(batch, buffer.address) for buffer in viewed.buffers()[2:])


def test_frames_of_records_without_anything() -> None:
    batch = handed_over(encode([None, None]))
    assert batch.to_pandas()["value"].isna().all()
    assert batch.to_polars()["value"].null_count() == 2


def test_what_was_sifted() -> None:
    data = encode([b"1", b"x", b"3"], timestamps=[1, 2, 3])
    batch, rejected = handed_over(data, 0).sifted(None, int)
    assert len(rejected) == 1
    assert batch.to_numpy("S1").tolist() == [b"1", b"3"]
    assert batch.to_pandas()["value"].tolist() == [b"1", b"3"]
    whole, _ = handed_over(data, 1).sifted(None, None)
    assert np.shares_memory(whole.to_numpy(), memory_of(whole))
    assert whole.to_numpy().tolist() == whole.to_arrow().column("value").to_pylist() == [b"x", b"3"]


def test_columns_are_decoded_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = handed_over(encode(LONG, LONG, list(range(100))))
    asked: list[str] = []
    for name in ("values", "keys", "timestamps", "headers"):
        made = getattr(batch._batch.body, name)
        monkeypatch.setattr(
            batch._batch.body, name, lambda name=name, made=made: asked.append(name) or made()
        )
    assert len(batch) == 100
    batch.to_numpy()
    batch.to_arrow()
    assert asked == []
    assert batch.timestamps[0] == 0
    assert batch.values[0] == batch.values[0] == LONG[0]
    assert asked == ["timestamps", "values"]


@pytest.mark.parametrize("missing", ["numpy", "pandas", "polars"])
def test_the_error_says_what_to_install(missing: str) -> None:
    extra = "arrow" if missing == "numpy" else missing
    script = f"""
import sys
sys.modules["{missing}"] = None
from tailrace.consumer.column_batch import ColumnBatch
from tailrace.consumer.decoding import Decoding
from tailrace.protocol.columns import encode
from tailrace.protocol.decode import decode
from tailrace.protocol.read_columns import Columns
batch = ColumnBatch(None, decode(encode([b"v", b"long"])), 0, Decoding())
assert batch.values == [b"v", b"long"]
try:
    batch.to_{missing}()
except ImportError as error:
    assert 'pip install "tailrace[{extra}]"' in str(error), error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("broken", ["numpy", "pyarrow", "pandas", "polars"])
def test_what_is_there_and_fails_is_not_said_to_be_missing(broken: str, tmp_path: Path) -> None:
    """As after Ctrl-C in the middle of an import: what was loaded before cannot be loaded again."""
    (tmp_path / f"{broken}.py").write_text("raise ImportError('half of it is loaded')")
    method = "to_arrow" if broken == "pyarrow" else f"to_{broken}"
    script = f"""
import sys
from tailrace.consumer.column_batch import ColumnBatch
from tailrace.consumer.decoding import Decoding
from tailrace.protocol.columns import encode
from tailrace.protocol.decode import decode
batch = ColumnBatch(None, decode(encode([b"v"])), 0, Decoding())
sys.path.insert(0, {str(tmp_path)!r})
try:
    batch.{method}()
except ImportError as error:
    assert str(error) == "half of it is loaded", error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(items=st.lists(st.binary(max_size=20), min_size=1, max_size=20))
def test_arrays_through_a_cluster_are_the_lists(feeder: Feeder, items: list[bytes]) -> None:
    topic = feeder.topic()
    fixed = np.array([item.ljust(20, b".") for item in items])
    keys = np.arange(len(items), dtype=np.float64)
    with Producer(feeder.cluster.bootstrap_servers) as producer:
        sent = producer.send_many(topic, fixed, keys, timestamps_ms=np.arange(len(items)))
        producer.flush()
        more = producer.send_many(topic, pa.array([*items, None]), timestamps_ms=5)
    assert [(place.base_offset, place.record_count) for place in sent.result()] == [(0, len(items))]
    assert more.result()[0].base_offset == len(items)
    servers = feeder.cluster.bootstrap_servers
    with Consumer(
        topic, bootstrap_servers=servers, auto_offset_reset="earliest", consumer_timeout_ms=10_000
    ) as consumer:
        batches = consumer.batches()
        first, second = next(batches), next(batches)
    array, doubles = first.to_numpy("S20"), first.to_numpy("f8", "key")
    frame = first.to_arrow()
    assert second.values == [*items, None]
    with pytest.raises(InvalidArgumentError, match="null"):
        second.to_numpy()
    assert first.timestamps == list(range(len(items)))
    del first, second, consumer, batches
    gc.collect()
    assert array.tolist() == frame.column("value").to_pylist() == fixed.tolist()
    assert doubles.tolist() == keys.tolist()
