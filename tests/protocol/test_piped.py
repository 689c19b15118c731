"""Messages in a pipe: as they were, or refused. A peer may write anything into one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.protocol.errors import MalformedRequestError
from tailrace.protocol.limits import PIPED_BYTES_MAX, PIPED_PARTS_MAX
from tailrace.protocol.piped import pack, unpack

HEADERS = st.binary(min_size=1, max_size=200)
FRAMES = st.lists(st.binary(max_size=200), max_size=PIPED_PARTS_MAX - 1)
MESSAGES = st.lists(st.tuples(HEADERS, FRAMES), max_size=20)


def packed(messages: list[tuple[bytes, list[bytes]]]) -> bytes:
    return b"".join(pack(header, frames) or pytest.fail("too large") for header, frames in messages)


def head_bytes(parts: int) -> int:
    return 1 + 2 * parts


@given(MESSAGES)
def test_round_trip(messages: list[tuple[bytes, list[bytes]]]) -> None:
    assert unpack(packed(messages)) == messages


@given(HEADERS, FRAMES)
def test_any_buffer_is_a_frame(header: bytes, frames: list[bytes]) -> None:
    as_bytes = pack(header, frames)
    assert as_bytes == pack(header, [bytearray(frame) for frame in frames])
    assert as_bytes == pack(header, [memoryview(frame) for frame in frames])


@pytest.mark.parametrize("parts", [1, 2, PIPED_PARTS_MAX])
def test_the_largest_message(parts: int) -> None:
    frames = [b"f"] * (parts - 1)
    room = PIPED_BYTES_MAX - head_bytes(parts) - len(frames)
    largest = pack(b"h" * room, frames)
    assert largest is not None
    assert len(largest) == PIPED_BYTES_MAX
    assert unpack(largest) == [(b"h" * room, frames)]
    assert pack(b"h" * (room + 1), frames) is None
    assert pack(b"h" * room, [*frames[:-1], b"ff"] if frames else [b""]) is None


def test_the_most_parts() -> None:
    assert pack(b"h", [b""] * (PIPED_PARTS_MAX - 1)) is not None
    assert pack(b"h", [b""] * PIPED_PARTS_MAX) is None


def test_a_part_longer_than_a_length_can_say() -> None:
    assert pack(b"h", [bytes(1 << 16)]) is None
    assert pack(bytes(1 << 20), []) is None


@given(MESSAGES.filter(bool), st.data())
def test_truncated(messages: list[tuple[bytes, list[bytes]]], data: st.DataObject) -> None:
    """Whole messages, or none at all."""
    sizes = [len(packed([message])) for message in messages]
    cut = data.draw(st.integers(0, sum(sizes)))
    ends = {sum(sizes[:count]): count for count in range(len(sizes) + 1)}
    if cut in ends:
        assert unpack(packed(messages)[:cut]) == messages[: ends[cut]]
    else:
        with pytest.raises(MalformedRequestError):
            unpack(packed(messages)[:cut])


def refused_or_faithful(data: bytes) -> None:
    """No messages, or messages that are these very bytes."""
    try:
        messages = unpack(data)
    except MalformedRequestError:
        return
    assert all(header for header, _ in messages)
    assert packed(messages) == data


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    refused_or_faithful(data)


@given(MESSAGES.filter(bool), st.data())
def test_one_byte_changed(messages: list[tuple[bytes, list[bytes]]], data: st.DataObject) -> None:
    changed = bytearray(packed(messages))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    refused_or_faithful(bytes(changed))


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        bytes([PIPED_PARTS_MAX + 1]) + bytes(100),
        b"\xff" * 100,
        b"\1",
        b"\1\1",
        b"\1\0\0",
        b"\2\0\0\1\0f",
        b"\1\2\0h",
        b"\1\1\0h\0",
    ],
    ids=["no parts", "many parts", "ff", "a count", "half a length", "empty", "no header", "short", "rest"],
)
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        unpack(data)
