"""The partitions of keys that lie in one buffer: the hashes of `partitioner`, over whole columns.

Needs numpy, and is imported only where keys come as arrays.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Final, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from tailrace.protocol.packed import Bytes, Packed

from .partitioner import KeyHash, Partitioner, murmur2

Hashes: TypeAlias = NDArray[np.uint32]
Places: TypeAlias = NDArray[np.uint16]

_WIDTH_MAX: Final = 64
"""Bytes of the longest key up to which columns are hashed byte by byte; beyond, key by key."""


def places_of(
    keys: Packed, partitioner: Partitioner, count: int, available: Sequence[int], sticky: int
) -> Places:
    """Each key's partition of `count`; `sticky` for what counts as no key."""
    key_hash = partitioner.key_hash
    if key_hash is None:
        chosen = map(partitioner.choose, keys.items(), repeat(count), repeat(available))
        return np.fromiter(chosen, np.uint16, len(keys))
    places: Places = (hashes_of(keys, key_hash) % np.uint32(count)).astype(np.uint16)
    absent = _absent(keys, partitioner.empty_is_key)
    if absent is not None:
        places[absent] = sticky
    return places


def _absent(keys: Packed, empty_is_key: bool) -> Any:
    """Which of them count as no key; None for none, and `...` for all."""
    if keys.offsets is None:
        return ... if not keys.width and not empty_is_key else None
    if not empty_is_key:  # nulls are empty, too
        return keys.offsets[1:] == keys.offsets[:-1]
    return None if keys.valid is None else ~keys.valid


def hashes_of(keys: Packed, key_hash: KeyHash) -> Hashes:
    """The hash of every key; of nulls, that of the empty one."""
    count = len(keys)
    if keys.offsets is None:
        if keys.width > _WIDTH_MAX:
            return _one_by_one(keys, key_hash)
        return _BY_ROWS[key_hash](keys.data.reshape(count, keys.width))
    lengths = np.diff(keys.offsets)
    if int(lengths.max(initial=0)) > _WIDTH_MAX:
        return _one_by_one(keys, key_hash)
    found = np.zeros(count, np.uint32)
    starts = keys.offsets[:-1]
    for length in np.flatnonzero(np.bincount(lengths)).tolist():
        which = np.flatnonzero(lengths == length)
        rows = keys.data.take(starts.take(which)[:, None] + np.arange(length))
        found[which] = _BY_ROWS[key_hash](rows)
    return found


def _one_by_one(keys: Packed, key_hash: KeyHash) -> Hashes:
    items = Packed(keys.data, keys.count, keys.width, keys.offsets).items()
    return np.fromiter(map(key_hash, items), np.uint32, len(keys))  # type: ignore[arg-type]


def crc32_rows(rows: Bytes) -> Hashes:
    """CRC-32 of each row of uint8[n, width].

    CRCs of one length differ from each other by what each byte contributes at its place: one look-up a byte.
    """
    count, width = rows.shape
    found = np.full(count, crc32(bytes(width)), np.uint32)
    for place in range(width):
        found ^= _contributions(width - 1 - place).take(rows[:, place])
    return found


@lru_cache(maxsize=_WIDTH_MAX)
def _contributions(following: int) -> Hashes:
    """By how much a byte that `following` bytes come after changes the CRC of zeros."""
    zeros = crc32(bytes(1 + following))
    return np.array([crc32(bytes((byte,)) + bytes(following)) ^ zeros for byte in range(256)], np.uint32)


def murmur2_rows(rows: Bytes) -> Hashes:
    """`murmur2` of each row of uint8[n, width]."""
    count, width = rows.shape
    whole = width & ~3
    multiplier = np.uint32(0x5BD1E995)
    value = np.full(count, 0x9747B28C ^ width, np.uint32)
    for word in np.ascontiguousarray(rows[:, :whole]).reshape(count, whole).view("<u4").T:
        mixed = word * multiplier
        mixed ^= mixed >> np.uint32(24)
        mixed *= multiplier
        value *= multiplier
        value ^= mixed
    if width > whole:
        for place in range(whole, width):
            value ^= rows[:, place].astype(np.uint32) << np.uint32(8 * (place - whole))
        value *= multiplier
    value ^= value >> np.uint32(13)
    value *= multiplier
    value ^= value >> np.uint32(15)
    return value & np.uint32(0x7FFFFFFF)


_BY_ROWS: Final[dict[KeyHash, Callable[[Bytes], Hashes]]] = {crc32: crc32_rows, murmur2: murmur2_rows}
