"""A builder of native batches that shares no code with the encoder, so that it can also build wrong ones."""

import struct
from collections.abc import Mapping
from typing import Protocol

import google_crc32c
import pytest


class NativeBatch(Protocol):
    def __call__(
        self,
        buffers: Mapping[int, bytes],
        count: int,
        *,
        attributes: int = 0,
        last_delta: int | None = None,
        timestamps: tuple[int, int] = (0, 0),
        base_offset: int = 0,
        ascending: bool = True,
    ) -> bytes: ...


class Sealed(Protocol):
    def __call__(
        self,
        body: bytes,
        count: int,
        *,
        magic: int = 0x54,
        attributes: int = 0,
        last_delta: int | None = None,
        timestamps: tuple[int, int] = (0, 0),
        base_offset: int = 0,
    ) -> bytes: ...


def seal(
    body: bytes,
    count: int,
    *,
    magic: int = 0x54,
    attributes: int = 0,
    last_delta: int | None = None,
    timestamps: tuple[int, int] = (0, 0),
    base_offset: int = 0,
) -> bytes:
    """Any bytes after a header of 61 bytes, with a CRC that holds."""
    last_delta = count - 1 if last_delta is None else last_delta
    back = struct.pack(">Hiqqqhii", attributes, last_delta, *timestamps, -1, -1, -1, count) + body
    return struct.pack(">qiibI", base_offset, len(back) + 9, -1, magic, google_crc32c.value(back)) + back


def build_columns(buffers: Mapping[int, bytes]) -> bytes:
    """A directory and its buffers."""
    directory = struct.pack("<HHI", len(buffers), 0, 0)
    directory += b"".join(struct.pack("<B3xI", kind, len(buffer)) for kind, buffer in buffers.items())
    return directory + b"".join(buffer + bytes(-len(buffer) % 8) for buffer in buffers.values())


@pytest.fixture(scope="session")
def sealed() -> Sealed:
    return seal


@pytest.fixture(scope="session")
def native() -> NativeBatch:
    def build(
        buffers: Mapping[int, bytes],
        count: int,
        *,
        attributes: int = 0,
        last_delta: int | None = None,
        timestamps: tuple[int, int] = (0, 0),
        base_offset: int = 0,
        ascending: bool = True,
    ) -> bytes:
        ordered = dict(sorted(buffers.items(), reverse=not ascending))
        return seal(
            bytes(3) + build_columns(ordered),
            count,
            attributes=attributes,
            last_delta=last_delta,
            timestamps=timestamps,
            base_offset=base_offset,
        )

    return build
