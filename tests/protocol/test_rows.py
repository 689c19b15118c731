"""Rows of magic 2: batches that aiokafka and kafka-python encoded, and rows that do not hold."""

import warnings
from collections.abc import Callable
from typing import Any

import aiokafka.record.default_records as aiokafka_records
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.protocol.batch import MAGIC_ROWS, parse_header, stamp, with_producer
from tailrace.protocol.compression import Compression
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import CorruptBatchError
from tailrace.protocol.parts import Parts

with warnings.catch_warnings():  # it reads its own resources in a deprecated way
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka.record.default_records as kafka_python_records

BUILDERS: dict[str, Callable[..., Any]] = {
    "aiokafka, C": aiokafka_records._DefaultRecordBatchBuilderCython,  # type: ignore[attr-defined]
    "aiokafka, Python": aiokafka_records._DefaultRecordBatchBuilderPy,
    "kafka-python": kafka_python_records.DefaultRecordBatchBuilder,
}
BASE = 1_700_000_000_000
Row = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def build(library: str, rows: list[Row], codec: Compression = Compression.NONE, offsets: Any = None) -> bytes:
    builder = BUILDERS[library](2, int(codec), False, 5, 6, 7, 1 << 24)
    for place, (timestamp, key, value, headers) in enumerate(rows):
        assert (
            builder.append(place if offsets is None else offsets[place], timestamp, key, value, headers)
            is not None
        )
    return bytes(builder.build())


NULLABLE = st.none() | st.binary(max_size=200)
ROWS: st.SearchStrategy[list[Row]] = st.lists(
    st.tuples(
        st.integers(0, 2**45),
        NULLABLE,
        NULLABLE,
        st.lists(st.tuples(st.text(max_size=8), NULLABLE), max_size=3),
    ),
    min_size=1,
    max_size=20,
)


@pytest.mark.parametrize("library", BUILDERS)
@settings(max_examples=60, deadline=None)
@given(rows=ROWS, codec=st.sampled_from(Compression), repeat=st.integers(1, 20))
def test_rows_of_kafkas_clients(library: str, rows: list[Row], codec: Compression, repeat: int) -> None:
    rows = rows * repeat
    batch = build(library, rows, codec)
    header = parse_header(batch)
    assert header.magic == MAGIC_ROWS
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (5, 6, 7)
    assert header.max_timestamp == max(row[0] for row in rows)

    decoded = decode(batch)
    assert decoded.timestamps == [row[0] for row in rows]
    assert decoded.keys == [row[1] for row in rows]
    assert decoded.values == [row[2] for row in rows]
    assert decoded.headers == [tuple(row[3]) for row in rows]
    assert list(decoded.offsets) == list(range(len(rows)))


@pytest.mark.parametrize("library", BUILDERS)
@pytest.mark.parametrize("codec", Compression)
def test_every_library_with_every_codec(library: str, codec: Compression) -> None:
    """Large and alike enough that each codec is really used; more than one of xerial's 32 KiB blocks."""
    rows: list[Row] = [(BASE + place, b"key", b"%06d " % place * 30, [("h", b"x")]) for place in range(1_000)]
    batch = build(library, rows, codec)
    assert parse_header(batch).compression is codec
    decoded = decode(batch)
    assert decoded.values == [row[2] for row in rows]
    assert decoded.timestamps == [row[0] for row in rows]
    assert decoded.headers == [(("h", b"x"),)] * 1_000


def test_stamped_rows_and_another_producer() -> None:
    batch = bytearray(build("aiokafka, C", [(BASE, b"k", b"v", [])] * 3))
    stamp(memoryview(batch), 1_000, 4)
    decoded = decode(with_producer(Parts([bytes(batch)]), 1, 2, 3).joined())
    assert list(decoded.offsets) == [1_000, 1_001, 1_002]
    assert (decoded.header.producer_id, decoded.header.leader_epoch) == (1, 4)
    assert [record.offset for record in decoded.records("t", 0)] == [1_000, 1_001, 1_002]


def test_compacted_rows_keep_their_offsets() -> None:
    batch = build("aiokafka, C", [(BASE, b"k", b"v", [])] * 3, offsets=[2, 3, 9])
    decoded = decode(batch)
    assert list(decoded.offsets) == [2, 3, 9]
    assert decoded.last_offset == 9
    assert [record.offset for record in decoded.records("t", 0)] == [2, 3, 9]


def test_log_append_time(sealed: Any) -> None:
    rows = build("aiokafka, C", [(BASE, None, b"v", []), (BASE + 5, None, b"w", [])])[61:]
    batch = sealed(rows, 2, magic=2, attributes=8, timestamps=(BASE, BASE + 99))
    assert decode(batch).timestamps == [BASE + 99] * 2


def zigzag(number: int) -> bytes:
    number = number << 1 ^ number >> 63
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def row(*fields: bytes | int) -> bytes:
    body = b"\x00" + b"".join(zigzag(field) if isinstance(field, int) else field for field in fields)
    return zigzag(len(body)) + body


GOOD = row(0, 0, 1, b"k", 1, b"v", 1, 1, b"h", -1)


def test_a_row_by_hand(sealed: Any) -> None:
    batch = decode(sealed(GOOD, 1, magic=2, timestamps=(7, 7)))
    assert batch.records("t", 0)[0] == decode(
        build("kafka-python", [(7, b"k", b"v", [("h", None)])])
    ).records("t", 0)[0]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "count", "last_delta"),
    [
        (b"", 1, 0),
        (GOOD, 2, 1),
        (GOOD + b"\x00", 1, 0),
        (GOOD + GOOD, 2, 1),  # the same offset twice
        (row(0, 1, -1, -1, 0) + row(0, 0, -1, -1, 0), 2, 1),
        (row(0, -1, -1, -1, 0), 1, 0),
        (row(0, 2, -1, -1, 0), 1, 1),
        (row(0, 0, -2, -1, 0), 1, 0),
        (row(0, 0, -1, -2, 0), 1, 0),
        (row(0, 0, 2, b"k", -1, 0), 1, 0),
        (row(0, 0, 2**31, -1, 0), 1, 0),
        (row(0, 0, -1, 2**60, 0), 1, 0),
        (row(0, 0, -1, -1, -1), 1, 0),
        (row(0, 0, -1, -1, 1), 1, 0),
        (row(0, 0, -1, -1, 2**31), 1, 0),
        (row(0, 0, -1, -1, 1, -1, -1), 1, 0),  # a header without a key
        (row(0, 0, -1, -1, 1, 1, b"\xff", -1), 1, 0),
        (row(0, 0, -1, -1, 0, 0), 1, 0),  # a byte too many
        (row(2**62, 0, -1, -1, 0) + row(2**62, 1, -1, -1, 0), 2, 1),  # past int64 with the base below
        (b"\x00", 1, 0),
        (b"\x01", 1, 0),
        (zigzag(-7), 1, 0),
        (zigzag(2**40) + GOOD, 1, 0),
        (b"\xff" * 12, 1, 0),
        (b"\x80" * 5, 1, 0),
        (row(b"\xff" * 10 + b"\x01", 0, -1, -1, 0), 1, 0),
    ],
)
def test_rows_that_do_not_hold(sealed: Any, body: bytes, count: int, last_delta: int) -> None:
    with pytest.raises(CorruptBatchError):
        decode(sealed(body, count, magic=2, last_delta=last_delta, timestamps=(2**62, 2**62)))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (zigzag(-7) + GOOD, "a row of -7 bytes where"),
        (zigzag(len(GOOD)) + GOOD[1:], "a row of 12 bytes where 11 are left"),
        (row(0, 0, -3, -1, 0), "a field of -3 bytes"),
        (row(0, 0, 5, b"k", -1, 0), "a field of 5 bytes where 3 are left"),
        (b"\x80" * 2_000_000, "more than ten bytes"),
        # the rows can be read one after the other, but the first says that it reaches into the second
        (zigzag(len(GOOD) + 1) + GOOD[1:] + row(0, 1, -1, -1, 0), "a row of 13 bytes ends -2 bytes off"),
    ],
    ids=["negative row", "long row", "negative field", "long field", "endless varint", "overlapping rows"],
)
def test_rows_are_refused_at_the_first_lie(sealed: Any, body: bytes, complaint: str) -> None:
    with pytest.raises(CorruptBatchError, match=complaint):
        decode(sealed(body, 2, magic=2))


def test_truncation_at_every_byte(sealed: Any) -> None:
    rows = build("aiokafka, C", [(BASE, b"k", b"value" * 30, [("h", b"1")])] * 3)[61:]
    for length in range(len(rows)):
        with pytest.raises(CorruptBatchError):
            decode(sealed(rows[:length], 3, magic=2, timestamps=(BASE, BASE)))


def test_headers_are_bounded(sealed: Any) -> None:
    """Two bytes on the wire become a tuple of 56 and more: the whole batch has one allowance."""
    many = 400_000
    body = b"".join(row(0, place, -1, -1, many, b"\x00\x01" * many) for place in range(3))
    with pytest.raises(CorruptBatchError, match="headers in a row"):
        decode(sealed(body, 3, magic=2))
