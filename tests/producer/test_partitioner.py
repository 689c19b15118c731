"""Partitioners give what librdkafka's, Java's and kafka-python's give."""

import warnings
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.producer.partitioner import Partitioner, Rotation, murmur2
from tailrace.protocol.errors import InvalidArgumentError

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # its compression codecs, as it loads
    from kafka.partitioner import murmur2 as murmur2_of_kafka_python


# Kafka's UtilsTest.testMurmur2, signed as Java has it.
@pytest.mark.parametrize(
    ("key", "java_hash"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_javas(key: bytes, java_hash: int) -> None:
    assert murmur2(key) == java_hash & 0x7FFFFFFF


@given(st.binary(max_size=64))
def test_murmur2_is_kafka_pythons(key: bytes) -> None:
    assert murmur2(key) == murmur2_of_kafka_python(key) & 0x7FFFFFFF


def test_crc32_is_zlibs_and_an_empty_key_is_none() -> None:
    partitioner = Partitioner("crc32")
    assert partitioner.key_hash is zlib.crc32
    assert not partitioner.empty_is_key
    # The check value of CRC-32/ISO-HDLC, which librdkafka's rd_crc32 computes.
    assert partitioner.key_hash(b"123456789") == 0xCBF43926


def test_murmur2_takes_an_empty_key_for_a_key() -> None:
    partitioner = Partitioner("murmur2")
    assert partitioner.key_hash is murmur2
    assert partitioner.empty_is_key
    assert murmur2(b"") == murmur2_of_kafka_python(b"") & 0x7FFFFFFF


def test_a_callable_is_asked_with_all_and_available_partitions() -> None:
    asked: list[tuple[bytes | None, list[int], list[int]]] = []

    def last(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
        asked.append((key, list(partitions), list(available)))
        return partitions[-1]

    partitioner = Partitioner(last)
    assert partitioner.choose(b"k", 3, [0, 2]) == 2
    assert partitioner.choose(None, 2, []) == 1
    assert asked == [(b"k", [0, 1, 2], [0, 2]), (None, [0, 1], [0, 1])]


@pytest.mark.parametrize("chosen", [3, -1, None, "0", True])
def test_a_callable_that_names_no_partition_is_told_so(chosen: object) -> None:
    partitioner = Partitioner(lambda key, partitions, available: chosen)  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidArgumentError, match="partitions are 0 to 2"):
        partitioner.choose(b"k", 3, [])


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(InvalidArgumentError, match="did you mean 'murmur2'"):
        Partitioner("murmur")


def test_rotation_visits_what_is_available_evenly() -> None:
    rotation = Rotation(5)
    assert sorted(rotation.turn(4, []) for _ in range(8)) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sorted(rotation.turn(4, [1, 3]) for _ in range(6)) == [1, 1, 1, 3, 3, 3]
