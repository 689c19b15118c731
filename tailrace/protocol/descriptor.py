"""Where payloads lie in a client's arena: what travels in place of the payload frames on the local path.

    message    := header, (payload* | empty frame, descriptor)
    descriptor := msgpack array: start u64, [length u32]

A payload is never empty, so that an empty frame cannot be one.
The payloads lie one after the other from `start` on, each beginning at a multiple of ALIGNMENT. In a
request that asks for batches the one length is that of the slot that they may be put into.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final, TypeVar

import msgspec

from .errors import MalformedRequestError
from .limits import ARENA_BYTES_MAX, DESCRIPTOR_BYTES_MAX, FRAMES_PER_MESSAGE_MAX

ALIGNMENT: Final = 64
"""A cache line; what Arrow recommends, too."""


class Descriptor(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of an arena: `start`, and the lengths of the payloads that lie there."""

    start: Annotated[int, msgspec.Meta(ge=0, le=ARENA_BYTES_MAX)]
    lengths: Annotated[
        list[Annotated[int, msgspec.Meta(ge=1, le=ARENA_BYTES_MAX)]],
        msgspec.Meta(min_length=1, max_length=FRAMES_PER_MESSAGE_MAX),
    ]

    def spans(self, first: int, end: int) -> list[tuple[int, int]]:
        """Start and end of each payload.

        Raises MalformedRequestError unless all of it is aligned and lies between `first` and `end`.
        """
        if self.start % ALIGNMENT or self.start < first:
            raise MalformedRequestError(f"a descriptor that starts at {self.start}")
        spans = list(zip(self._starts(), self._ends(), strict=True))
        if spans[-1][1] > end:
            raise MalformedRequestError(f"a descriptor of bytes up to {spans[-1][1]}, there are {end}")
        return spans

    def _starts(self) -> Iterator[int]:
        at = self.start
        for length in self.lengths:
            yield at
            at += aligned(length)

    def _ends(self) -> Iterator[int]:
        return map(int.__add__, self._starts(), self.lengths)


F = TypeVar("F", bytes, memoryview)

_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Descriptor)


def aligned(size: int) -> int:
    """`size`, rounded up to ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def room_for(lengths: Sequence[int]) -> int:
    """Bytes that payloads of these lengths take."""
    return sum(map(aligned, lengths))


def frames_of(descriptor: Descriptor) -> tuple[bytes, bytes]:
    """What travels behind the header in place of payload frames."""
    return b"", _encode(descriptor)


def descriptor_frame(frames: Sequence[F]) -> F | None:
    """The descriptor's frame, if these are not payload frames."""
    return frames[1] if len(frames) == 2 and not len(frames[0]) else None


def decode_descriptor(frame: bytes | memoryview) -> Descriptor:
    """Raises MalformedRequestError."""
    if len(frame) > DESCRIPTOR_BYTES_MAX:
        raise MalformedRequestError(f"a descriptor of {len(frame)} bytes, at most {DESCRIPTOR_BYTES_MAX}")
    try:
        return _decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequestError(f"not a descriptor: {error}") from None
