"""A payload in parts: bytes that lie in several places and travel as one.

Small things are joined where that is cheaper; large ones are never copied before they are written to where
they travel from.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

from .crc import Buffer
from .limits import KIB

SMALL_PART_BYTES: Final = 4 * KIB
"""Parts that are smaller than this on average are joined: a copy costs less than each part by itself."""
JOINED_BYTES: Final = 32 * KIB
"""Small items are joined to parts of this size, which stay in caches, and in the allocator's own memory."""


class Parts:
    """`size` bytes, one part after the other. Nothing in them changes while they are in use."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self.parts = parts
        self.size = sum(map(len, parts))

    def __len__(self) -> int:
        return self.size

    def joined(self) -> bytes:
        """All of them in a row: a copy, unless there is one and it is `bytes`."""
        return b"".join(self.parts)


Payload: TypeAlias = Buffer | Parts


def parts_of(payload: Payload) -> Sequence[Buffer]:
    """What to write one after the other."""
    return payload.parts if isinstance(payload, Parts) else (payload,)


def joined(payload: Payload) -> Buffer:
    """The payload as one buffer."""
    return payload.joined() if isinstance(payload, Parts) else payload


def in_parts(items: Sequence[Any], length: int) -> Iterator[bytes]:
    """Bytes-like items of `length` bytes together, in parts that are made when they are asked for."""
    return _large(items) if length >= SMALL_PART_BYTES * len(items) else _joined(items, length)


def ascii_in_parts(texts: Sequence[Any], length: int) -> list[bytes]:
    """Texts of ASCII, `length` characters together, as bytes: an object a part, not one a text.

    Raises TypeError if there is anything else among them.
    """
    step = _step(len(texts), length)
    return ["".join(texts[start : start + step]).encode() for start in range(0, len(texts), step)]


def _joined(items: Sequence[Any], length: int) -> Iterator[bytes]:
    """In parts of about JOINED_BYTES."""
    step = _step(len(items), length)
    for start in range(0, len(items), step):
        yield b"".join(items[start : start + step])


def _step(count: int, length: int) -> int:
    """How many of `count` items, which have `length` bytes together, are about JOINED_BYTES."""
    return max(1, count * JOINED_BYTES // max(1, length))


def _large(items: Sequence[Any]) -> Iterator[bytes]:
    """Bytes as they are; of what else there is, and could change, copies in parts of JOINED_BYTES."""
    for item in items:
        if type(item) is bytes:
            yield item
        else:
            view = memoryview(item)
            for start in range(0, len(view), JOINED_BYTES):
                yield bytes(view[start : start + JOINED_BYTES])
