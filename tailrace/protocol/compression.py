"""The four codecs, bounded. Numbers are Kafka's (attribute bits 0-2 of a batch).

A native body declares its size, so each codec is used in its leanest framing that needs none of its own:

    GZIP    RFC 1952          SNAPPY  raw block
    LZ4     raw block         ZSTD    RFC 8878 frame

Rows (magic 2) follow what Kafka's clients put on the wire, where no size is declared:

    GZIP    RFC 1952, members concatenated       SNAPPY  raw block, or xerial's framing of raw blocks
    LZ4     frames (LZ4F)                        ZSTD    frames

xerial := 0x82 "SNAPPY" 0x00, version i32, compatible version i32, (length i32, raw block)*, big endian.
Nothing here allocates more than BATCH_BODY_BYTES_MAX for an output, whatever the input says.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

import cramjam

from .crc import Buffer
from .errors import CorruptBatchError, InvalidArgumentError
from .limits import BATCH_BODY_BYTES_MAX, KIB
from .similar import did_you_mean


class Compression(IntEnum):
    """Kafka's numbers of the codecs."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


GZIP_LEVEL: Final = 1
"""On JSON a thirteenth of the time of level 6, for a seventh more bytes."""
ZSTD_LEVEL: Final = 1

_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES: Final = 16
_GUESS_BYTES_MIN: Final = 64 * KIB
_GUESS_RATIO: Final = 8
_OUTPUT_FULL: Final = "failed to write whole buffer"
"""How cramjam reports an output that is too small: the text of Rust's `ErrorKind::WriteZero`."""

_COMPRESSORS: Final[dict[Compression, Callable[[bytes], Any]]] = {
    Compression.GZIP: lambda body: cramjam.gzip.compress(body, level=GZIP_LEVEL),
    Compression.SNAPPY: cramjam.snappy.compress_raw,
    Compression.LZ4: lambda body: cramjam.lz4.compress_block(body, store_size=False),
    Compression.ZSTD: lambda body: cramjam.zstd.compress(body, level=ZSTD_LEVEL),
}


def compression_named(name: str | None) -> Compression:
    """The codec of a user's option: None, "none", "gzip", "snappy", "lz4", "zstd".

    Raises InvalidArgumentError for any other name.
    """
    try:
        return Compression[(name or "none").upper()]
    except (KeyError, AttributeError):
        known = [codec.name.lower() for codec in Compression]
        hint = did_you_mean(name, known) if isinstance(name, str) else ""
        raise InvalidArgumentError(
            f"compression_type is {name!r}; it is one of {', '.join(known)}{hint}"
        ) from None


def compress(codec: Compression, body: bytes) -> bytes:
    """A native body, compressed. `codec` must not be NONE."""
    return bytes(_COMPRESSORS[codec](body))


def decompress(codec: Compression, data: Buffer, size: int) -> bytes:
    """The native body of exactly `size` bytes. Raises CorruptBatchError."""
    if size > BATCH_BODY_BYTES_MAX:
        raise CorruptBatchError(f"a body of {size} bytes uncompressed, at most {BATCH_BODY_BYTES_MAX}")
    output = bytearray(size)
    try:
        match codec:
            case Compression.LZ4:
                written = cramjam.lz4.decompress_block_into(data, output, output_len=size)
            case Compression.SNAPPY:
                written = cramjam.snappy.decompress_raw_into(data, output)
            case Compression.GZIP:
                written = cramjam.gzip.decompress_into(data, output)
            case _:
                written = cramjam.zstd.decompress_into(data, output)
    except cramjam.DecompressionError as error:
        raise CorruptBatchError(f"{codec.name.lower()} body: {error}") from None
    if written != size:
        raise CorruptBatchError(f"{codec.name.lower()} body of {written} bytes, {size} declared")
    return bytes(output)


def decompress_rows(codec: Compression, data: Buffer) -> bytes:
    """The rows of a magic 2 batch. Raises CorruptBatchError."""
    match codec:
        case Compression.SNAPPY:
            return _snappy_rows(memoryview(data))
        case Compression.LZ4:
            return _guessed(codec, cramjam.lz4.decompress_into, data)
        case Compression.GZIP:
            return _guessed(codec, cramjam.gzip.decompress_into, data)
        case _:
            return _guessed(codec, cramjam.zstd.decompress_into, data)


def _guessed(codec: Compression, decompress_into: Callable[[Buffer, bytearray], int], data: Buffer) -> bytes:
    """Decompress into a buffer of a guessed size, of four times that if it overflows, up to the bound."""
    size = min(max(_GUESS_BYTES_MIN, _GUESS_RATIO * len(data)), BATCH_BODY_BYTES_MAX)
    while True:
        output = bytearray(size)
        try:
            return bytes(memoryview(output)[: decompress_into(data, output)])
        except cramjam.DecompressionError as error:
            if _OUTPUT_FULL not in str(error):
                raise CorruptBatchError(f"{codec.name.lower()} rows: {error}") from None
        if size == BATCH_BODY_BYTES_MAX:
            raise CorruptBatchError(f"{codec.name.lower()} rows of more than {size} bytes")
        size = min(4 * size, BATCH_BODY_BYTES_MAX)


def _snappy_rows(data: memoryview) -> bytes:
    if bytes(data[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        return _snappy_block(data, BATCH_BODY_BYTES_MAX)
    blocks: list[bytes] = []
    room = BATCH_BODY_BYTES_MAX
    at = _XERIAL_HEADER_BYTES
    while at < len(data):
        if at + 4 > len(data):
            raise CorruptBatchError("snappy rows: a block's length is cut off")
        (length,) = struct.unpack_from(">i", data, at)
        at += 4
        if not 0 < length <= len(data) - at:
            raise CorruptBatchError(f"snappy rows: a block of {length} bytes where {len(data) - at} are left")
        blocks.append(_snappy_block(data[at : at + length], room))
        room -= len(blocks[-1])
        at += length
    return b"".join(blocks)


def _snappy_block(block: memoryview, room: int) -> bytes:
    try:
        size = cramjam.snappy.decompress_raw_len(block)
        if size > room:
            raise CorruptBatchError(f"snappy rows of more than {BATCH_BODY_BYTES_MAX} bytes")
        output = bytearray(size)
        written = cramjam.snappy.decompress_raw_into(block, output)
    except cramjam.DecompressionError as error:
        raise CorruptBatchError(f"snappy rows: {error}") from None
    return bytes(memoryview(output)[:written])
