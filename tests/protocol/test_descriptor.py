"""Descriptors: every span in bounds, whatever a peer sends."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.protocol.columns import encode
from tailrace.protocol.descriptor import (
    ALIGNMENT,
    Descriptor,
    decode_descriptor,
    descriptor_frame,
    frames_of,
    room_for,
)
from tailrace.protocol.errors import MalformedRequestError
from tailrace.protocol.limits import (
    ARENA_BYTES_MAX,
    DESCRIPTOR_BYTES_MAX,
    FETCH_SLOT_BYTES_FIRST,
    FETCH_SLOT_BYTES_MAX,
    FRAMES_PER_MESSAGE_MAX,
    MIB,
)

lengths = st.lists(st.integers(1, 10_000), min_size=1, max_size=20)


@given(st.integers(0, 1_000), lengths)
def test_payloads_lie_one_after_the_other(line: int, sizes: list[int]) -> None:
    start = line * ALIGNMENT
    frames = frames_of(Descriptor(start, sizes))
    frame = descriptor_frame(frames)
    assert frame is not None
    spans = decode_descriptor(frame).spans(0, start + room_for(sizes))
    assert [end - begin for begin, end in spans] == sizes
    assert all(begin % ALIGNMENT == 0 for begin, _ in spans)
    assert spans[0][0] == start
    assert all(0 <= after - end < ALIGNMENT for (_, end), (after, _) in pairwise(spans))


def test_payload_frames_are_no_descriptor() -> None:
    assert descriptor_frame([]) is None
    assert descriptor_frame([b"a batch", b"another"]) is None
    assert descriptor_frame([b"", b"x", b"y"]) is None


@pytest.mark.parametrize(
    ("start", "sizes"),
    [(0, [64]), (64, [1_000]), (65, [1]), (960, [65]), (64, [1, 1, 1, 900])],
    ids=["the token", "past the end", "unaligned", "the end of one", "the last one"],
)
def test_outside_of_the_arena(start: int, sizes: list[int]) -> None:
    with pytest.raises(MalformedRequestError, match="descriptor"):
        Descriptor(start, sizes).spans(64, 1_024)


@pytest.mark.parametrize(
    ("start", "sizes"),
    [
        (-64, [1]),
        (0, []),
        (0, [0]),
        (0, [-1]),
        (0, [ARENA_BYTES_MAX + 1]),
        (2**63, [1]),
        (0, [1] * (FRAMES_PER_MESSAGE_MAX + 1)),
    ],
)
def test_lies_do_not_decode(start: int, sizes: list[int]) -> None:
    frame = frames_of(Descriptor(start, sizes))[1]
    with pytest.raises(MalformedRequestError, match="not a descriptor"):
        decode_descriptor(frame)


@given(st.binary(max_size=100))
def test_noise(frame: bytes) -> None:
    try:
        spans = decode_descriptor(frame).spans(64, 1_000)
    except MalformedRequestError:
        return
    assert all(64 <= start < end <= 1_000 for start, end in spans)


def test_too_long() -> None:
    with pytest.raises(MalformedRequestError, match="at most"):
        decode_descriptor(bytes(DESCRIPTOR_BYTES_MAX + 1))


def test_records_of_round_sizes_fill_a_slot() -> None:
    """What their batches have besides must not leave a quarter of it empty."""
    size = len(encode([bytes(MIB)], [b"key"], [1], [[("name", b"value")]]))
    assert room_for([size]) <= FETCH_SLOT_BYTES_FIRST
    assert room_for([size] * 4) <= FETCH_SLOT_BYTES_MAX
