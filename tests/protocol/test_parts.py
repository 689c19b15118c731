"""Payloads in parts: the same bytes as joined ones, whichever way they were made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.protocol.batch import HEADER_BYTES, check_crc, parse_header, with_producer
from tailrace.protocol.columns import encode, encode_parts
from tailrace.protocol.compression import Compression
from tailrace.protocol.crc import crc32c_of_parts
from tailrace.protocol.decode import decode
from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.limits import KIB
from tailrace.protocol.parts import JOINED_BYTES, Parts, joined, parts_of

LARGE = [bytes([number]) * (100 * KIB + number) for number in range(5)]
SMALL = [b"%0100d" % number for number in range(3_000)]


def room_for(size: int) -> memoryview:
    return memoryview(bytearray(b"\xff" * size))


def test_parts_and_buffers_are_both_payloads() -> None:
    parts = Parts([b"ab", memoryview(b"c"), b""])
    assert len(parts) == 3
    assert joined(parts) == b"abc"
    assert list(parts_of(parts)) == [b"ab", b"c", b""]
    assert joined(b"abc") == b"abc"
    assert list(parts_of(b"abc")) == [b"abc"]
    assert crc32c_of_parts(parts.parts) == crc32c_of_parts([b"abc"])


@given(
    values=st.lists(st.one_of(st.none(), st.binary(max_size=40)), min_size=1, max_size=50),
    keyed=st.booleans(),
    times=st.booleans(),
    spare=st.integers(-20, 20),
)
def test_in_a_room_a_batch_is_the_same(
    values: list[bytes | None], keyed: bool, times: bool, spare: int
) -> None:
    columns = (values, values[::-1] if keyed else None, list(range(len(values))) if times else 5)
    expected = encode(*columns)
    room = room_for(len(expected) + spare)
    batch = encode_parts(*columns, room=room)
    assert joined(batch) == expected
    assert len(batch) == len(expected)
    written = bytes(room[: len(expected)])
    assert (written == expected) == (spare >= 0)
    assert set(bytes(room[len(expected) :])) <= {0xFF}


@pytest.mark.parametrize("values", [LARGE, SMALL])
def test_many_bytes_in_a_room(values: list[bytes]) -> None:
    expected = encode(values)
    assert decode(expected).values == values
    assert joined(encode_parts(values, room=room_for(len(expected)))) == expected


def test_large_bytes_are_not_copied() -> None:
    batch = encode_parts(LARGE)
    assert isinstance(batch, Parts)
    for value in LARGE:
        assert any(part is value for part in batch.parts)
    assert all(len(part) < 8 * KIB for part in batch.parts if part not in LARGE)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_what_can_change_is_copied(kind: type[bytearray] | type[memoryview]) -> None:
    own = [bytearray(value) for value in LARGE]
    batch = encode_parts([kind(value) for value in own])
    assert isinstance(batch, Parts)
    for value in own:
        value[:] = bytes(len(value))
    assert decode(batch.joined()).values == LARGE
    assert max(map(len, batch.parts)) <= JOINED_BYTES


@pytest.mark.parametrize("values", [LARGE, SMALL, [b"v"]])
@pytest.mark.parametrize("roomy", [False, True])
def test_another_producer_of_a_batch_in_parts(values: list[bytes], roomy: bool) -> None:
    room = room_for(len(encode(values))) if roomy else None
    batch = with_producer(encode_parts(values, room=room), 2**40, 3, 77)
    assert batch.joined() == encode(values, producer_id=2**40, producer_epoch=3, base_sequence=77)
    check_crc(batch.joined(), parse_header(batch.joined()))
    assert len(batch.parts[0]) >= HEADER_BYTES


@pytest.mark.parametrize("codec", [Compression.LZ4, Compression.ZSTD])
def test_compressed_in_a_room(codec: Compression) -> None:
    room = room_for(len(encode(SMALL)))
    assert joined(encode_parts(SMALL, compression=codec, room=room)) == encode(SMALL, compression=codec)


@pytest.mark.parametrize("wrong", ["text" * KIB, memoryview(b"12345678").cast("H"), 5])
@pytest.mark.parametrize("roomy", [False, True])
def test_what_is_no_bytes_is_named_also_with_a_room(wrong: object, roomy: bool) -> None:
    room = room_for(512 * KIB) if roomy else None
    for values in ([b"v", wrong], [*SMALL, wrong], [*LARGE, wrong]):
        with pytest.raises(InvalidArgumentError):
            encode_parts(values, room=room)  # type: ignore[arg-type]
