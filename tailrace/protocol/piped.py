"""Small messages in a pipe, one after the other: what travels there in place of a message's frames.

    piped := parts u8, [length u16], header, payload*        `parts` lengths; little-endian

A write of at most PIPED_BYTES_MAX is not broken up by the kernel (pipe(7), PIPE_BUF), so that who reads all
that is there reads whole messages. Pure.
"""

import struct
from collections.abc import Sequence
from typing import Final

from .errors import MalformedRequestError
from .limits import PIPED_BYTES_MAX, PIPED_PARTS_MAX

_HEADS: Final = [struct.Struct(f"<B{parts}H") for parts in range(PIPED_PARTS_MAX + 1)]
"""By the number of parts."""


def pack(header: bytes, frames: Sequence[bytes | bytearray | memoryview]) -> bytes | None:
    """The message, if it is small enough for a pipe, else None."""
    parts = 1 + len(frames)
    if parts > PIPED_PARTS_MAX:
        return None
    head, lengths = _HEADS[parts], (len(header), *map(len, frames))
    if head.size + sum(lengths) > PIPED_BYTES_MAX:
        return None
    return b"".join((head.pack(parts, *lengths), header, *frames))


def unpack(data: bytes) -> list[tuple[bytes, list[bytes]]]:
    """The messages, each as (header, payload frames). Raises MalformedRequestError unless all are whole."""
    messages: list[tuple[bytes, list[bytes]]] = []
    at, end = 0, len(data)
    try:
        while at < end:
            head = _HEADS[data[at]]
            _, *lengths = head.unpack_from(data, at)
            at += head.size
            parts = []
            for length in lengths:
                parts.append(data[at : at + length])
                at += length
            header, *frames = parts
            if not header or at > end:
                raise MalformedRequestError(f"a piped message that ends at {at} of {end} bytes")
            messages.append((header, frames))
    except (IndexError, ValueError, struct.error) as error:
        raise MalformedRequestError(f"not a piped message: {error}") from None
    return messages
