"""CRC-32C (Castagnoli) over parts and over views of a batch.

google-crc32c takes only `bytes`. Views are fed to it in chunks that stay in the processor's cache,
so that a check costs no second buffer of the batch's size, which might be taken from the system anew.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Final, TypeAlias

from google_crc32c import extend, value

from .limits import KIB

Buffer: TypeAlias = bytes | bytearray | memoryview

extend_bytes: Final[Callable[[int, bytes], int]] = extend
"""`crc32c_extended` for `bytes`, in one call in C."""
_CHUNK_BYTES: Final = 64 * KIB


def crc32c_of_parts(parts: Iterable[Buffer]) -> int:
    """The CRC-32C of the parts as if they were joined."""
    return reduce(crc32c_extended, parts, 0)


def crc32c_from(buffer: Buffer, start: int) -> int:
    """The CRC-32C of `buffer[start:]`."""
    view = memoryview(buffer)
    if len(view) - start <= _CHUNK_BYTES:
        return int(value(bytes(view[start:])))
    return crc32c_extended(0, view[start:])


def crc32c_extended(crc: int, part: Buffer) -> int:
    """The CRC-32C of what has `crc`, with one more part behind it."""
    if type(part) is bytes:
        return int(extend(crc, part))
    view = memoryview(part)
    chunks = (bytes(view[at : at + _CHUNK_BYTES]) for at in range(0, len(view), _CHUNK_BYTES))
    return reduce(extend, chunks, crc)
