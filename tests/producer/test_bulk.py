"""`send_many` puts every record where `send` would, in order, in batches within their bounds."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import mul
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.producer.accumulator import Accumulator
from tailrace.producer.batch import RECORD_OVERHEAD_BYTES, UNSTAMPED, Batch
from tailrace.producer.bulk import accept, pieces_of
from tailrace.producer.columns import PIECE_RECORDS, Records, columns_of
from tailrace.producer.delivery import ManyDelivery
from tailrace.producer.partitioner import Partitioner
from tailrace.protocol.cluster import PartitionInfo, TopicConfig, TopicInfo
from tailrace.protocol.compression import Compression
from tailrace.protocol.parts import joined

BATCH_BYTES = 300
PARTITIONER = Partitioner("crc32")

records = st.lists(
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


def accumulator_and_topic(partitions: int) -> tuple[Accumulator, TopicInfo]:
    accumulator = Accumulator(
        batch_bytes=BATCH_BYTES,
        record_bytes_max=1_000,
        memory_bytes=1 << 20,
        linger_s=0,
        delivery_timeout_s=120,
        max_block_s=0,
        compresses=True,
        wake=lambda: None,
    )
    infos = tuple(PartitionInfo((1,), 1, 0, 0, (1,)) for _ in range(partitions))
    return accumulator, TopicInfo(bytes(16), "t", TopicConfig(), infos)


def rows(batch: Batch) -> list[tuple[object, ...]]:
    """A sealed batch as records."""
    count = batch.count
    starts, stamps = batch.outcome.starts, batch.outcome.stamps
    times = [stamps[sum(start <= at for start in starts) - 1] for at in range(count)]
    keys = batch.keys or [None] * count
    headers = batch.headers or [()] * count
    return list(zip(batch.values, keys, times, map(tuple, headers), strict=True))


@given(
    sent=records,
    partitions=st.integers(1, 3),
    before=st.integers(0, 3),
    columns=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_every_record_goes_where_it_belongs(
    sent: list[tuple[bytes | None, bytes | None, int, list[tuple[str, bytes | None]]]],
    partitions: int,
    before: int,
    columns: tuple[bool, bool, bool],
) -> None:
    with_keys, with_times, with_headers = columns
    accumulator, info = accumulator_and_topic(partitions)
    topic = accumulator.open_topic(info, 0)
    for number in range(before):
        accumulator.append(topic, number % partitions, b"before", None, headers=None, timestamp_ms=0, size=30)
    given_columns = columns_of(
        [value for value, _, _, _ in sent],
        [key for _, key, _, _ in sent] if with_keys else None,
        [headers for _, _, _, headers in sent] if with_headers else None,
        [stamp for _, _, stamp, _ in sent] if with_times else 9,
        serializers=(None, None),
    )
    delivery = ManyDelivery(accept(accumulator, topic, None, PARTITIONER, given_columns))
    batches, _ = accumulator.collect(1e9, lambda *_: True)
    assert len(delivery) == len(sent)

    expected = [
        (
            value,
            key if with_keys else None,
            stamp if with_times else 9,
            tuple(headers) if with_headers else (),
        )
        for value, key, stamp, headers in sent
    ]
    found: list[list[tuple[object, ...]]] = [[] for _ in range(partitions)]
    for batch in batches:
        assert batch.size <= BATCH_BYTES or batch.count == 1
        found[batch.partition] += [row for row in rows(batch) if row[0] != b"before"]
    keyed = [row for row in expected if row[1]]
    for partition in range(partitions):
        assert [row for row in found[partition] if row[1]] == [
            row for row in keyed if crc32(row[1] or b"") % partitions == partition
        ]
        following = iter(expected)
        assert all(row in following for row in found[partition]), "in their order, with keys or without"
    everything = [row for records in found for row in records]
    assert sorted(map(repr, everything)) == sorted(map(repr, expected))
    if partitions == 1:
        assert found[0] == expected
    assert accumulator.used_bytes == sum(batch.size for batch in batches)


texts = st.one_of(st.text(max_size=60), st.text(st.characters(codec="ascii"), max_size=60))


@given(calls=st.lists(st.lists(texts, max_size=20), max_size=5), keyed=st.booleans(), before=st.booleans())
def test_text_is_what_its_bytes_are(calls: list[list[str]], keyed: bool, before: bool) -> None:
    """Batch for batch, whatever shares them."""

    def batches_of(calls: Sequence[Sequence[str | bytes]]) -> list[tuple[int, bytes]]:
        accumulator, info = accumulator_and_topic(3)
        topic = accumulator.open_topic(info, 0)
        if before:
            accumulator.append(topic, 0, b"before", None, headers=None, timestamp_ms=0, size=30)
        for values in calls:
            keys = [b"%d" % (place % 5) for place in range(len(values))] if keyed else None
            accept(
                accumulator,
                topic,
                None,
                PARTITIONER,
                columns_of(values, keys, None, 9, serializers=(None, None)),
            )
        batches, _ = accumulator.collect(1e9, lambda *_: True)
        for batch in batches:
            batch.encode(Compression.NONE, UNSTAMPED)
        return [(batch.partition, joined(batch.frame())) for batch in batches]

    assert batches_of(calls) == batches_of([[text.encode() for text in values] for values in calls])


def sizes_of(columns: Records) -> list[int]:
    return [after - before for before, after in pairwise(columns.ends())]


@given(
    sizes=st.one_of(
        st.lists(st.integers(0, 400), max_size=100),
        st.builds(mul, st.lists(st.integers(0, 400), max_size=1), st.integers(0, 100)),
    ),
    memory=st.integers(1, 2_000),
)
def test_pieces_are_all_records_in_order_and_within_memory(sizes: Sequence[int], memory: int) -> None:
    columns = columns_of([b"x" * size for size in sizes], None, None, None, serializers=(None, None))
    assert columns.larger_than(0) == max(sizes, default=0)
    pieces = list(pieces_of(columns, memory))
    assert [size for piece in pieces for size in sizes_of(piece)] == sizes
    for piece in pieces:
        assert piece.memory <= memory or piece.record_count == 1
        assert piece.memory == sum(sizes_of(piece)) + RECORD_OVERHEAD_BYTES * piece.record_count


@pytest.mark.parametrize("at", [0, 1_023, 1_024, 2_047, 2_999])
def test_a_record_that_is_too_large_is_found_wherever_it_is(at: int) -> None:
    values = [b"x" * (number % 3) for number in range(3_000)]
    values[at] = bytes(4_001)
    columns = columns_of(values, None, None, None, serializers=(None, None))
    assert columns.larger_than(4_000) == 4_001
    assert columns.larger_than(4_001) == 0
    assert columns_of([b"1234"] * 9, None, None, None, serializers=(None, None)).larger_than(4) == 0


def test_a_list_that_changes_later_does_not_matter() -> None:
    for values in ([b"a", b"bcd"], ["a", "bcd"], ["ä", "bcd"]):
        columns: Any = columns_of(values, None, None, None, serializers=(None, None))
        before = list(columns.values)
        values.reverse()
        assert columns.values == before


def test_a_piece_has_a_bounded_number_of_records() -> None:
    columns = columns_of([b""] * (PIECE_RECORDS + 1), None, None, None, serializers=(None, None))
    assert [piece.record_count for piece in pieces_of(columns, 1 << 30)] == [PIECE_RECORDS, 1]
