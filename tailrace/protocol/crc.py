"""CRC-32C (Castagnoli) over parts and over views of a batch.

google-crc32c takes only `bytes`. Views are fed to it in chunks that stay in the processor's cache,
so that a check costs no second buffer of the batch's size.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Final, TypeAlias

from google_crc32c import extend, value

from .limits import KIB

Buffer: TypeAlias = bytes | bytearray | memoryview

_CHUNK_BYTES: Final = 256 * KIB


def crc32c_of_parts(parts: Iterable[bytes]) -> int:
    """The CRC-32C of the parts as if they were joined."""
    return reduce(extend, parts, 0)


def crc32c_from(buffer: Buffer, start: int) -> int:
    """The CRC-32C of `buffer[start:]`."""
    view = memoryview(buffer)
    if len(view) - start <= _CHUNK_BYTES:
        return int(value(bytes(view[start:])))
    chunks = (bytes(view[at : at + _CHUNK_BYTES]) for at in range(start, len(view), _CHUNK_BYTES))
    return crc32c_of_parts(chunks)
