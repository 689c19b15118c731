"""The codecs: what they give back, and that no input makes them allocate past the bound."""

import gzip
import random
import resource
import struct
from typing import Any

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.protocol import compression as compression_module
from tailrace.protocol.columns import encode
from tailrace.protocol.compression import (
    Compression,
    compress,
    compression_named,
    decompress,
    decompress_rows,
)
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import CorruptBatchError, InvalidArgumentError
from tailrace.protocol.limits import BATCH_BODY_BYTES_MAX, MIB

CODECS = [codec for codec in Compression if codec is not Compression.NONE]
OVER = BATCH_BODY_BYTES_MAX + 1


def rows_of(codec: Compression, data: bytes) -> bytes:
    """What Kafka's clients put on the wire."""
    match codec:
        case Compression.GZIP:
            return bytes(cramjam.gzip.compress(data, level=1))
        case Compression.SNAPPY:
            return bytes(cramjam.snappy.compress_raw(data))
        case Compression.LZ4:
            return bytes(cramjam.lz4.compress(data))
        case _:
            return bytes(cramjam.zstd.compress(data, level=1))


def xerial(*blocks: bytes) -> bytes:
    framed = (
        struct.pack(">i", len(block)) + block
        for block in map(bytes, map(cramjam.snappy.compress_raw, blocks))
    )
    return b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + b"".join(framed)


def test_numbers_are_kafkas() -> None:
    assert [(codec.name, int(codec)) for codec in Compression] == [
        ("NONE", 0), ("GZIP", 1), ("SNAPPY", 2), ("LZ4", 3), ("ZSTD", 4),
    ]  # fmt: skip


def test_codec_by_name() -> None:
    assert compression_named(None) is compression_named("none") is Compression.NONE
    assert compression_named("lz4") is compression_named("LZ4") is Compression.LZ4
    for name in ("lzma", "", 3):
        if name != "":
            with pytest.raises(InvalidArgumentError, match="it is one of none, gzip, snappy, lz4, zstd"):
                compression_named(name)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CODECS), st.binary(min_size=1, max_size=300), st.integers(1, 400))
def test_round_trip(codec: Compression, piece: bytes, times: int) -> None:
    body = piece * times
    assert decompress(codec, compress(codec, body), len(body)) == body
    assert decompress_rows(codec, rows_of(codec, body)) == body


@pytest.mark.parametrize("codec", CODECS)
def test_size_must_be_the_declared_one(codec: Compression) -> None:
    body = random.Random(2).randbytes(50) * 100
    packed = compress(codec, body)
    for size in (0, 1, len(body) - 1, len(body) + 1, 2 * len(body)):
        with pytest.raises(CorruptBatchError):
            decompress(codec, packed, size)
    for wrong in (b"", packed[:-1], packed[:5], b"\xff" * 40):
        with pytest.raises(CorruptBatchError):
            decompress(codec, wrong, len(body))


@pytest.mark.parametrize("size", [OVER, 2**32, 2**63, 2**64 - 1])
def test_declared_sizes_are_bounded(sealed: Any, size: int) -> None:
    body = bytes(3) + struct.pack("<Q", size) + compress(Compression.ZSTD, bytes(100))
    with pytest.raises(CorruptBatchError, match="at most"):
        decode(sealed(body, 1, attributes=int(Compression.ZSTD)))


def test_compressed_body_without_its_size(sealed: Any) -> None:
    for length in range(11):
        with pytest.raises(CorruptBatchError):
            decode(sealed(bytes(length), 1, attributes=int(Compression.LZ4)))


@pytest.mark.parametrize("codec", CODECS)
def test_rows_that_are_damaged(codec: Compression) -> None:
    packed = rows_of(codec, random.Random(3).randbytes(50) * 100)
    for wrong in (packed[:-1], packed[: len(packed) // 2], b"\xff" * 40):
        with pytest.raises(CorruptBatchError):
            decompress_rows(codec, wrong)


@pytest.mark.parametrize("codec", CODECS)
def test_rows_of_many_sizes(codec: Compression) -> None:
    """Above and below the first guess, and at the bound."""
    for size in (0, 1, 65_536, 65_537, 3 * MIB, BATCH_BODY_BYTES_MAX):
        rows = decompress_rows(codec, rows_of(codec, bytes(size)))
        assert len(rows) == size


def test_concatenated_members_and_frames() -> None:
    assert decompress_rows(Compression.GZIP, gzip.compress(b"a") + gzip.compress(b"b")) == b"ab"
    for codec in (Compression.LZ4, Compression.ZSTD):
        assert decompress_rows(codec, rows_of(codec, b"a") + rows_of(codec, b"b")) == b"ab"


def test_xerial_framing() -> None:
    assert decompress_rows(Compression.SNAPPY, xerial(b"one" * 50, b"two", b"")) == b"one" * 50 + b"two"
    assert decompress_rows(Compression.SNAPPY, xerial()) == b""
    for cut in range(17, 30):
        with pytest.raises(CorruptBatchError):
            decompress_rows(Compression.SNAPPY, xerial(b"one" * 50)[:cut])
    for length in (-1, 0, 2**31 - 1):
        wrong = bytearray(xerial(b"one"))
        struct.pack_into(">i", wrong, 16, length)
        with pytest.raises(CorruptBatchError, match="block"):
            decompress_rows(Compression.SNAPPY, wrong)


def bombs() -> dict[str, tuple[Compression, bytes]]:
    zeros = bytes(256 * MIB)
    block = bytes(cramjam.snappy.compress_raw(zeros[: 32 * MIB]))
    framed = struct.pack(">i", len(block)) + block
    return {
        "gzip": (Compression.GZIP, rows_of(Compression.GZIP, zeros)),
        "lz4": (Compression.LZ4, rows_of(Compression.LZ4, zeros)),
        "zstd": (Compression.ZSTD, rows_of(Compression.ZSTD, zeros)),
        "snappy": (Compression.SNAPPY, rows_of(Compression.SNAPPY, zeros[: 65 * MIB])),
        "snappy length": (Compression.SNAPPY, b"\xff\xff\xff\xff\x0f" + bytes(10)),
        "xerial": (Compression.SNAPPY, b"\x82SNAPPY\x00" + bytes(8) + framed * 3),
        # a frame that declares a window of 128 MiB
        "zstd window": (Compression.ZSTD, b"\x28\xb5\x2f\xfd\x00\x88\x29\x00\x00hello"),
    }


def test_bombs_are_refused_within_the_bound() -> None:
    prepared = bombs()
    for name, (codec, bomb) in prepared.items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            rows = decompress_rows(codec, bomb)
        except CorruptBatchError:
            assert name != "zstd window"
        else:
            assert (name, rows) == ("zstd window", b"hello")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        assert grown < 3 * BATCH_BODY_BYTES_MAX


def test_bodies_are_not_read_past_the_declared_size() -> None:
    for codec in CODECS:
        with pytest.raises(CorruptBatchError):
            decompress(codec, compress(codec, bytes(32 * MIB)), 1_000)


def test_every_codec_of_a_whole_batch() -> None:
    values = [b'{"id": %d, "name": "tailrace"}' % number for number in range(500)]
    sizes = {}
    for codec in CODECS:
        batch = encode(values, [b"key"] * 500, compression=codec)
        assert decode(batch).values == values
        sizes[codec] = len(batch)
    assert max(sizes.values()) < len(encode(values, [b"key"] * 500)) / 2


def test_levels_exist() -> None:
    assert 1 <= compression_module.GZIP_LEVEL <= 9
    assert 1 <= compression_module.ZSTD_LEVEL <= 19
