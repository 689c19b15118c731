"""A payload in parts: bytes that lie in several places and travel as one.

Small things are joined where that is cheaper; large ones are never copied before they are written to where
they travel from.
"""

from collections.abc import Sequence
from typing import TypeAlias

from .crc import Buffer


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
