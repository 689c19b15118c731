"""`send_many` with arrays puts into batches what it does with lists of the same records."""

import sys
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.producer.accumulator import Accumulator
from tailrace.producer.batch import Batch
from tailrace.producer.bulk import accept, pieces_of
from tailrace.producer.columns import PACKED_TEXT_CHARACTERS_MAX, PACKED_TEXTS_MIN, Columns, columns_of
from tailrace.producer.delivery import ManyDelivery
from tailrace.producer.packed_columns import PackedColumns
from tailrace.producer.partitioner import Partitioner
from tailrace.producer.topics import TopicBuffers
from tailrace.protocol.cluster import PartitionInfo, TopicConfig, TopicInfo
from tailrace.protocol.compression import Compression
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import BatchTooLargeError, BufferFullError, InvalidArgumentError
from tailrace.protocol.parts import joined

BATCH_BYTES = 300
PARTITIONER = Partitioner("crc32")
Row = tuple[bytes | None, bytes | None, int, tuple[Any, ...]]

rows_of_any_length = st.lists(
    st.tuples(
        st.one_of(st.none(), st.binary(max_size=60)),
        st.one_of(st.none(), st.binary(max_size=3)),
        st.integers(0, 5),
        st.lists(st.tuples(st.text(max_size=3), st.one_of(st.none(), st.binary(max_size=3))), max_size=2),
    ),
    max_size=60,
)


@pytest.fixture(scope="module", autouse=True)
def _few_count_as_many() -> Iterator[None]:
    """How large few values are is kept, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tailrace.producer.batch.RUN_RECORDS_MIN", 1)
        yield


def opened(partitions: int, *, compresses: bool, memory: int = 1 << 20) -> tuple[Accumulator, TopicBuffers]:
    accumulator = Accumulator(
        batch_bytes=BATCH_BYTES,
        record_bytes_max=1_000,
        memory_bytes=memory,
        linger_s=0,
        delivery_timeout_s=120,
        max_block_s=0,
        compresses=compresses,
        wake=lambda: None,
    )
    infos = tuple(PartitionInfo((1,), 1, 0, 0, (1,)) for _ in range(partitions))
    return accumulator, accumulator.open_topic(TopicInfo(bytes(16), "t", TopicConfig(), infos), 0)


def collected(accumulator: Accumulator) -> list[Batch]:
    return accumulator.collect(1e9, lambda *_: True)[0]


def stored(batch: Batch) -> list[Row]:
    if batch.encoded is None:
        batch.encode(Compression.NONE, batch.stamp)
    read = decode(joined(batch.frame()))
    return list(zip(read.values, read.keys, read.timestamps, map(tuple, read.headers), strict=True))


def columns(values: Any, keys: Any = None, headers: Any = None, times: Any = 9) -> Any:
    return columns_of(values, keys, headers, times, serializers=(None, None))


@settings(deadline=None)
@given(
    sent=rows_of_any_length,
    partitions=st.integers(1, 3),
    wanted=st.sampled_from((None, 0)),
    with_columns=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    compresses=st.booleans(),
)
def test_the_same_as_with_lists(
    sent: list[tuple[Any, ...]],
    partitions: int,
    wanted: int | None,
    with_columns: tuple[bool, bool, bool],
    compresses: bool,
) -> None:
    with_keys, with_times, with_headers = with_columns
    values = [value for value, _, _, _ in sent]
    keys = [key for _, key, _, _ in sent] if with_keys else None
    headers = [row for _, _, _, row in sent] if with_headers else None
    times = [stamp for _, _, stamp, _ in sent] if with_times else 9
    lists = columns(values, keys, headers, times)
    arrays = columns(
        pa.array(values, pa.binary()),
        None if keys is None else pa.array(keys, pa.string() if not any(keys) else pa.binary()),
        headers,
        np.array(times) if with_times and sent else times,
    )
    assert isinstance(lists, Columns)
    assert isinstance(arrays, PackedColumns)
    assert (arrays.record_count, arrays.memory, arrays.larger_than(0)) == (
        len(sent),
        lists.memory,
        lists.larger_than(0),
    )
    assert list(arrays.ends()) == list(lists.ends())
    found: list[list[list[Row]]] = []
    for given_columns in (lists, arrays):
        accumulator, topic = opened(partitions, compresses=compresses)
        spans = accept(accumulator, topic, wanted, PARTITIONER, given_columns)
        assert len(ManyDelivery(spans)) == len(sent)
        batches = collected(accumulator)
        assert accumulator.used_bytes == sum(batch.size for batch in batches)
        assert [batch.count for batch in batches] == [len(stored(batch)) for batch in batches]
        found.append([[batch.partition, *stored(batch)] for batch in batches])
    assert found[0] == found[1]


@pytest.mark.parametrize("compresses", [False, True])
@pytest.mark.parametrize("keyed", [False, True])
def test_arrays_may_change_once_they_are_sent(compresses: bool, keyed: bool) -> None:
    values = np.arange(200, dtype=np.int64)
    keys = values % 7
    stamps = values + 5
    expected = [
        (value.tobytes(), key.tobytes() if keyed else None, int(stamp), ())
        for value, key, stamp in zip(values, keys, stamps, strict=True)
    ]
    accumulator, topic = opened(2, compresses=compresses)
    accept(accumulator, topic, None, PARTITIONER, columns(values, keys if keyed else None, times=stamps))
    for array in (values, keys, stamps):
        array[:] = 0
    batches = collected(accumulator)
    assert sorted(row for batch in batches for row in stored(batch)) == sorted(expected)


def test_what_an_open_batch_keeps_is_no_more_than_its_records() -> None:
    accumulator, topic = opened(50, compresses=False)
    accept(accumulator, topic, None, PARTITIONER, columns(np.zeros((1_000, 50), np.uint8), np.arange(1_000)))
    parts = [part for batch in topic.open for part in batch.parts]
    assert parts
    for part in parts:
        assert part.keys is not None
        for column in (part.values, part.keys):
            base = column.data if column.data.base is None else column.data.base
            assert base.nbytes == column.count * column.width


def test_records_of_both_kinds_keep_their_order() -> None:
    accumulator, topic = opened(1, compresses=False)
    rows: list[bytes] = []
    for number in range(0, 60, 6):
        accumulator.append(topic, 0, b"%02d" % number, None, headers=None, timestamp_ms=9, size=30)
        accept(accumulator, topic, None, PARTITIONER, columns(np.array([b"%02d" % (number + 1)] * 2)))
        accept(accumulator, topic, 0, PARTITIONER, columns(pa.array([b"%02d" % (number + 2)])))
        accept(accumulator, topic, 0, PARTITIONER, columns([b"%02d" % (number + 3)]))
        rows += [b"%02d" % (number + more) for more in (0, 1, 1, 2, 3)]
    batches = collected(accumulator)
    assert [row[0] for batch in batches for row in stored(batch)] == rows
    assert accumulator.used_bytes == sum(batch.size for batch in batches)


@settings(deadline=None)
@given(widths=st.lists(st.integers(0, 400), max_size=60), memory=st.integers(1, 2_000))
def test_pieces_are_all_records_in_order_and_within_memory(widths: Sequence[int], memory: int) -> None:
    values = [bytes([at % 256]) * width for at, width in enumerate(widths)]
    pieces = list(pieces_of(columns(pa.array(values, pa.binary())), memory))
    assert all(isinstance(piece, PackedColumns) for piece in pieces)
    assert [item for piece in pieces for item in piece.values.items()] == values  # type: ignore[attr-defined]
    assert all(piece.memory <= memory or piece.record_count == 1 for piece in pieces)


def test_memory_that_is_full_after_some() -> None:
    accumulator, topic = opened(1, compresses=False, memory=10_000)
    with pytest.raises(BufferFullError) as caught:
        accept(accumulator, topic, None, PARTITIONER, columns(np.arange(1_000)))
    assert 0 < caught.value.accepted < 1_000
    assert sum(batch.count for batch in collected(accumulator)) == caught.value.accepted


def test_a_record_that_is_too_large_is_refused_before_any() -> None:
    accumulator, topic = opened(1, compresses=False)
    with pytest.raises(BatchTooLargeError, match="a record of 1008 bytes"):
        accept(accumulator, topic, None, PARTITIONER, columns(np.zeros((2, 1_000), np.uint8), np.arange(2)))
    assert not collected(accumulator)


def test_an_interrupted_part_leaves_no_trace() -> None:
    accumulator, topic = opened(1, compresses=False)
    accept(accumulator, topic, None, PARTITIONER, columns(np.arange(2)))
    batch = topic.open[0]
    columns(np.arange(3)).pour(batch, 5, kept=True)
    batch.packed = 2
    batch.torn = True
    batch.mend()
    assert batch.length == 2
    assert len(stored(collected(accumulator)[0])) == 2


german = st.lists(st.text(st.sampled_from("aß€😀\0"), max_size=9), max_size=40)


def test_many_texts_are_what_their_bytes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record for record. Those with a NUL among them, too."""
    monkeypatch.setattr("tailrace.producer.columns.PACKED_TEXTS_MIN", 1)
    check_many_texts()


@settings(deadline=None)
@given(calls=st.lists(german, max_size=4))
def check_many_texts(calls: list[list[str]]) -> None:
    def records_of(calls: Sequence[Sequence[str | bytes]]) -> list[Row]:
        accumulator, topic = opened(1, compresses=False)
        for values in calls:
            accept(accumulator, topic, None, PARTITIONER, columns(values))
        return [row for batch in collected(accumulator) for row in stored(batch)]

    assert records_of(calls) == records_of([list(map(str.encode, texts)) for texts in calls])


def test_no_object_is_made_for_each_of_many_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Grüße"] * PACKED_TEXTS_MIN
    made = columns(texts)
    assert isinstance(made, PackedColumns)
    assert made.values.items() == [text.encode() for text in texts]
    assert isinstance(columns(texts[1:]), Columns), "a few are not worth a batch of their own"
    assert isinstance(columns(["plain"] * len(texts)), Columns)
    assert isinstance(columns(texts, ["key"] * len(texts)), Columns), "few go to each partition"
    assert isinstance(columns(["ü" * PACKED_TEXT_CHARACTERS_MAX] * len(texts)), PackedColumns)
    assert isinstance(columns(["ü" * (PACKED_TEXT_CHARACTERS_MAX + 1)] * len(texts)), Columns)
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert isinstance(columns(texts), Columns), "numpy is used, but not imported for that"
    monkeypatch.delitem(sys.modules, "numpy")
    assert isinstance(columns(texts), Columns)


def test_text_that_no_utf8_can_hold_is_told_with_its_place() -> None:
    texts = ["Grüße"] * PACKED_TEXTS_MIN
    texts[17] += "\ud800"
    with pytest.raises(
        InvalidArgumentError, match=r"values\[17\] is str 'Grüße.ud800', which UTF-8 cannot hold"
    ):
        columns(texts)


def test_values_that_a_callable_has_shared_out_are_whole() -> None:
    turns = count()
    partitioner = Partitioner(lambda key, partitions, available: next(turns) % len(partitions))
    values = [b"x" * (number % 7) for number in range(200)]
    accumulator, topic = opened(2, compresses=False)
    accept(accumulator, topic, None, partitioner, columns(values))
    found: list[list[bytes | None]] = [[], []]
    for batch in collected(accumulator):
        found[batch.partition] += [row[0] for row in stored(batch)]
    assert found == [values[::2], values[1::2]]


def test_lists_and_arrays_side_by_side() -> None:
    arrays = columns(np.array([b"a", b"b"]), ["k", None], times=[1, 2])
    assert arrays.keys.items() == [b"k", None]
    lists = columns(["a", b"b"], np.array([b"k", b"l"]), times=np.array([1, 2]))
    assert lists == Columns([b"a", b"b"], [b"k", b"l"], None, [1, 2], range(0, 5, 2), range(3))


def test_arrays_are_looked_at_where_they_lie() -> None:
    values, keys, times = np.arange(4), np.array([b"a", b"b", b"c", b"d"]), np.arange(4) + 10**12
    made = columns(values, keys, times=times)
    for column, given_array in ((made.values.data, values), (made.keys.data, keys), (made.timestamps, times)):
        assert np.shares_memory(column, given_array)


def test_serializers_are_applied_to_arrays_one_by_one() -> None:
    serializers = (str.encode, lambda number: b"%d" % number)
    made = columns_of(np.array([1, 2]), pa.array(["a", "b"]), None, None, serializers=serializers)
    assert made == Columns([b"1", b"2"], [b"a", b"b"], None, None, range(0, 5, 2), range(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keys": np.arange(3)}, "3 keys for 2 values"),
        ({"keys": ["a"]}, "1 keys for 2 values"),
        ({"headers": [[]]}, "1 headers for 2 values"),
        ({"times": np.arange(3)}, "3 timestamps_ms for 2 values"),
        ({"times": [1, -1]}, r"timestamps_ms\[1\] is -1"),
        ({"times": -1}, "timestamps_ms is -1"),
        ({"keys": np.array([b"a", 1], object)}, r"keys is .*object.*tolist"),
        ({"times": np.array([1.5, 2])}, "float64"),
    ],
)
def test_what_does_not_fit(arguments: dict[str, Any], message: str) -> None:
    for values in (np.arange(2), [b"a", b"b"]):
        with pytest.raises(InvalidArgumentError, match=message):
            columns(values, **arguments)


@pytest.mark.parametrize("before", [0, 1])
def test_who_is_interrupted_leaves_no_room_for_other_records(
    before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator, topic = opened(1, compresses=False)
    accept(accumulator, topic, None, PARTITIONER, columns(np.arange(before)))

    def interrupted(batch: Batch, part: PackedColumns) -> None:
        batch.parts.append(part)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "add_part", interrupted)
        with pytest.raises(KeyboardInterrupt):
            accept(accumulator, topic, None, PARTITIONER, columns(np.arange(3)))
    assert topic.open[0].room == 0
    accumulator.append(topic, 0, b"later", None, headers=None, timestamp_ms=9, size=30)
    batches = collected(accumulator)
    values = [row[0] for batch in batches for row in stored(batch)]
    assert values == [number.tobytes() for number in np.arange(before)] + [b"later"]
    assert accumulator.used_bytes == sum(batch.size for batch in batches)
