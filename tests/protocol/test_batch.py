"""The envelope: its bytes, its checks, and what is changed in place."""

import struct
from collections.abc import Callable

import google_crc32c
import pytest

from tailrace.protocol import limits
from tailrace.protocol.batch import (
    ALL_KEYS,
    HEADER_BYTES,
    MAGIC_COLUMNS,
    MAGIC_ROWS,
    BatchHeader,
    check_crc,
    parse_header,
    stamp,
    with_producer,
)
from tailrace.protocol.columns import encode
from tailrace.protocol.compression import Compression
from tailrace.protocol.crc import crc32c_from, crc32c_of_parts
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import BatchTooLargeError, CorruptBatchError, InvalidArgumentError
from tailrace.protocol.parts import Parts

# Two records: key "a", value "one"; no key, value null, one header. Written out by hand from the grammar.
GOLDEN = bytes.fromhex(
    "0000000000000000"  # base offset 0
    "0000011c"  # 284 bytes follow
    "ffffffff"  # no leader epoch yet
    "54"  # magic: columns
    "ef13ae36"  # CRC-32C
    "0000"  # attributes: not every record has a key
    "00000001"  # last offset delta
    "0000018bcfe56800"  # base timestamp 1700000000000
    "0000018bcfe56805"  # max timestamp, 5 ms later
    "0000000000000007"  # producer id
    "0002"  # producer epoch
    "00000009"  # base sequence
    "00000002"  # record count
    "000000"  # padding to 64
    "0c00" "0000" "00000000"  # 12 buffers
    "01000000" "0c000000"  # key offsets, 12 bytes
    "02000000" "01000000"  # key data, 1 byte
    "03000000" "01000000"  # key validity
    "04000000" "0c000000"  # value offsets
    "05000000" "03000000"  # value data
    "06000000" "01000000"  # value validity
    "07000000" "10000000"  # timestamps
    "08000000" "0c000000"  # header counts
    "09000000" "08000000"  # header key offsets
    "0a000000" "02000000"  # header key data
    "0b000000" "08000000"  # header value offsets
    "0c000000" "01000000"  # header value data
    "00000000" "01000000" "01000000" "00000000"  # key offsets 0 1 1
    "61" "00000000000000"  # "a"
    "01" "00000000000000"  # the first has a key
    "00000000" "03000000" "03000000" "00000000"  # value offsets 0 3 3
    "6f6e65" "0000000000"  # "one"
    "01" "00000000000000"  # the first has a value
    "0068e5cf8b010000" "0568e5cf8b010000"  # timestamps
    "00000000" "00000000" "01000000" "00000000"  # headers before each record: 0 0, 1 in all
    "00000000" "02000000"  # header key offsets
    "c3a9" "000000000000"  # "é"
    "00000000" "01000000"  # header value offsets
    "78" "00000000000000"  # "x"
)  # fmt: skip


def test_golden_batch() -> None:
    batch = encode(
        [b"one", None],
        [b"a", None],
        [1_700_000_000_000, 1_700_000_000_005],
        [[], [("é", b"x")]],
        producer_id=7,
        producer_epoch=2,
        base_sequence=9,
    )
    assert batch.hex() == GOLDEN.hex()
    decoded = decode(GOLDEN)
    assert decoded.values == [b"one", None]
    assert decoded.keys == [b"a", None]
    assert decoded.timestamps == [1_700_000_000_000, 1_700_000_000_005]
    assert decoded.headers == [(), (("é", b"x"),)]


def test_header_fields() -> None:
    header = parse_header(GOLDEN)
    assert header == BatchHeader(
        base_offset=0,
        length=284,
        leader_epoch=-1,
        magic=MAGIC_COLUMNS,
        crc=0xEF13AE36,
        attributes=0,
        last_offset_delta=1,
        base_timestamp=1_700_000_000_000,
        max_timestamp=1_700_000_000_005,
        producer_id=7,
        producer_epoch=2,
        base_sequence=9,
        record_count=2,
    )
    assert header.size == len(GOLDEN)
    assert header.last_offset == 1
    assert header.compression is Compression.NONE
    assert header.attributes == 0
    assert not header.log_append_time


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda batch: memoryview(bytearray(batch))])
def test_any_buffer_is_read(kind: Callable[[bytes], bytes | bytearray | memoryview]) -> None:
    batch = kind(GOLDEN)
    header = parse_header(batch)
    check_crc(batch, header)
    assert decode(batch).values == [b"one", None]


def test_attribute_bits() -> None:
    assert parse_header(encode([b"v"], [b"k"])).attributes == ALL_KEYS
    assert parse_header(encode([b"v"], [None])).attributes == 0
    compressed = encode([b"v" * 1_000], [b"k"], compression=Compression.ZSTD)
    assert parse_header(compressed).attributes == ALL_KEYS | Compression.ZSTD


def test_stamp_lies_outside_the_crc() -> None:
    batch = bytearray(GOLDEN)
    stamp(memoryview(batch), 2**40, 77)
    header = parse_header(batch)
    check_crc(batch, header)
    assert (header.base_offset, header.leader_epoch, header.last_offset) == (2**40, 77, 2**40 + 1)
    assert batch[16:] == GOLDEN[16:]
    assert list(decode(batch).offsets) == [2**40, 2**40 + 1]


def test_with_producer_changes_three_fields_and_the_crc() -> None:
    stamped = bytearray(GOLDEN)
    stamp(memoryview(stamped), 5, 6)
    batch = with_producer(Parts([bytes(stamped)]), 2**50, 12, 345).joined()
    header = parse_header(batch)
    check_crc(batch, header)
    expected = parse_header(stamped)._replace(producer_id=2**50, producer_epoch=12, base_sequence=345)
    assert header._replace(crc=0) == expected._replace(crc=0)
    assert decode(batch).values == [b"one", None]


@pytest.mark.parametrize("producer", [(2**63, 0, 0), (0, 2**15, 0), (0, 0, 2**31)])
def test_producer_numbers_that_do_not_fit(producer: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidArgumentError):
        with_producer(Parts([GOLDEN]), *producer)
    with pytest.raises(InvalidArgumentError):
        encode([b"v"], producer_id=producer[0], producer_epoch=producer[1], base_sequence=producer[2])


def changed(offset: int, layout: str, number: int) -> bytes:
    batch = bytearray(GOLDEN)
    struct.pack_into(layout, batch, offset, number)
    return bytes(batch)


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        GOLDEN[: HEADER_BYTES - 1],
        GOLDEN[:-1],
        GOLDEN + b"\x00",
        changed(8, ">i", -1),
        changed(8, ">i", 2**31 - 1),
        changed(16, ">b", 1),
        changed(16, ">b", -128),
        changed(21, ">H", 5),
        changed(21, ">H", 7),
        changed(23, ">i", 0),
        changed(23, ">i", -1),
        changed(57, ">i", 0),
        changed(57, ">i", -1),
        changed(57, ">i", 3),
        changed(0, ">q", -1),
        changed(0, ">q", 2**63 - 1),
    ],
)
def test_header_that_does_not_hold(batch: bytes) -> None:
    with pytest.raises(CorruptBatchError):
        parse_header(batch)


def test_header_over_its_bounds() -> None:
    many = bytearray(GOLDEN)
    struct.pack_into(">i", many, 23, limits.BATCH_RECORDS_MAX)
    struct.pack_into(">i", many, 57, limits.BATCH_RECORDS_MAX + 1)
    with pytest.raises(CorruptBatchError, match="records"):
        parse_header(many)
    with pytest.raises(BatchTooLargeError):
        parse_header(bytes(limits.BATCH_BYTES_MAX + 1))


@pytest.mark.parametrize("place", range(17, len(GOLDEN), 13))
def test_every_bit_behind_the_magic_is_under_the_crc(place: int) -> None:
    batch = bytearray(GOLDEN)
    batch[place] ^= 1 << place % 8
    with pytest.raises(CorruptBatchError):
        check_crc(batch, BatchHeader._make(struct.unpack_from(">qiibIHiqqqhii", batch)))


def test_crc_is_castagnolis_over_parts_and_chunks() -> None:
    assert crc32c_of_parts([b"12345", b"", b"6789"]) == 0xE3069283
    assert crc32c_of_parts([]) == 0
    data = bytes(range(256)) * 4_096
    assert crc32c_from(data, 0) == google_crc32c.value(data)
    assert crc32c_from(memoryview(bytearray(data)), 21) == google_crc32c.value(data[21:])


def test_rows_and_columns_have_different_magic() -> None:
    assert MAGIC_ROWS == 2
    assert parse_header(encode([b""])).magic == MAGIC_COLUMNS == 0x54
