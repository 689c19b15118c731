"""Batches that are damaged or made to deceive: CorruptBatchError or a whole decode, nothing else."""

import random
from typing import Any

import pytest

from tailrace.protocol.batch import MAGIC_COLUMNS, parse_header
from tailrace.protocol.columns import encode
from tailrace.protocol.compression import Compression
from tailrace.protocol.decode import Batch, decode
from tailrace.protocol.errors import CorruptBatchError

VALUES = [b"one", None, b"", b"three" * 9]
KEYS = [b"k", b"", None, b"key"]
HEADERS = [[("a", b"1"), ("é", None)], [], [("b", b"")], []]
BATCHES = {
    "plain": encode(VALUES, KEYS, [5, 6, 4, 9], HEADERS),
    "fixed": encode([b"12345678"] * 300, [b"k"] * 300, 5),
    **{
        codec.name: encode(VALUES * 20, KEYS * 20, list(range(80)), HEADERS * 20, compression=codec)
        for codec in Compression
    },
}


def everything_in(batch: Batch) -> list[Any]:
    """Decode every column, so that no error can hide in one."""
    count = batch.count
    columns = [batch.values, batch.keys, batch.timestamps, batch.headers, list(batch.offsets)]
    assert [len(column) for column in columns] == [count] * 5
    assert len(batch.records("t", 0)) == count
    batch.to_arrow().validate(full=True)
    return columns


@pytest.mark.parametrize("name", ["plain", "ZSTD"])
def test_truncation_at_every_byte(name: str) -> None:
    batch = BATCHES[name]
    for length in range(len(batch)):
        with pytest.raises(CorruptBatchError):
            decode(batch[:length])


@pytest.mark.parametrize("name", ["plain", "LZ4"])
def test_truncation_that_the_envelope_hides(name: str, sealed: Any) -> None:
    batch = BATCHES[name]
    header = parse_header(batch)
    for length in range(61, len(batch)):
        with pytest.raises(CorruptBatchError):
            decode(
                sealed(
                    batch[61:length],
                    header.record_count,
                    attributes=header.attributes,
                    timestamps=(header.base_timestamp, header.max_timestamp),
                )
            )


@pytest.mark.parametrize("name", BATCHES)
def test_flipped_bytes_do_not_pass_the_crc(name: str) -> None:
    batch = BATCHES[name]
    intact = everything_in(decode(batch))
    source = random.Random(name)
    for _ in range(300):
        damaged = bytearray(batch)
        place = source.randrange(len(batch))
        damaged[place] ^= source.randrange(1, 256)
        try:
            decoded = decode(damaged)
        except CorruptBatchError:
            continue
        assert place < 8 or 12 <= place < 16, "only base offset and leader epoch lie outside every check"
        assert everything_in(decoded)[:4] == intact[:4]


@pytest.mark.parametrize("name", BATCHES)
def test_mutations_under_a_crc_that_holds(name: str, sealed: Any) -> None:
    batch = BATCHES[name]
    header = parse_header(batch)
    source = random.Random(name)
    outcomes = set()
    for _ in range(400):
        body = bytearray(batch[61:])
        for _ in range(source.choice((1, 1, 2, 8))):
            body[source.randrange(len(body))] = source.choice((0, 1, 127, 128, 255, source.randrange(256)))
        forged = sealed(
            bytes(body),
            source.choice((header.record_count, header.record_count, header.record_count - 1)),
            attributes=header.attributes,
            timestamps=(header.base_timestamp, header.max_timestamp),
        )
        try:
            everything_in(decode(forged))
            outcomes.add("whole")
        except CorruptBatchError:
            outcomes.add("refused")
    assert "refused" in outcomes


def test_random_bodies(sealed: Any) -> None:
    source = random.Random(4)
    for _ in range(2_000):
        forged = sealed(
            source.choice((b"", bytes(3))) + source.randbytes(source.randrange(120)),
            source.choice((1, 2, 3, 1_000_000)),
            magic=source.choice((2, MAGIC_COLUMNS)),
            attributes=source.choice((0, 1, 2, 3, 4, 8, 0x100)),
        )
        try:
            everything_in(decode(forged))
        except CorruptBatchError:
            continue
