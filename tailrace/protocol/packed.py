"""Columns of bytes that lie in one buffer, as numpy and Arrow have them: cut, shared out, put into a body.

Needs numpy, and is imported only where there are such columns. Nothing here makes an object for each item,
but `items`. A column is a view of memory that may be the application's; `owned` is a copy.
"""

import sys
from collections.abc import Sequence
from itertools import accumulate, repeat
from operator import is_not, length_hint
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .buffers import PackedItems, PackedTimestamps, even_items, even_offsets, items_between, with_nulls
from .errors import BatchTooLargeError
from .limits import BATCH_BODY_BYTES_MAX, KIB

Bytes: TypeAlias = NDArray[np.uint8]
Integers: TypeAlias = NDArray[np.int64]
Indexes: TypeAlias = NDArray[np.intp]
Flags: TypeAlias = NDArray[np.bool_]

_GATHERED_WIDTH_MAX: Final = 64
"""Mean bytes of an item up to which one index a byte is cheaper than one object an item."""
_ENCODED_CHARACTERS: Final = 128 * KIB
"""So many are encoded together: all that is done with them happens in the processor's caches."""


class Packed:
    """`count` items in `data`: of `width` bytes each, or item i from `offsets[i]` to `offsets[i + 1]`.

    Offsets are int32 or int64. `valid` tells what is not null, and comes with offsets only; None: everything.
    Nulls are of length 0.
    """

    __slots__ = ("count", "data", "offsets", "valid", "width")

    def __init__(
        self,
        data: Bytes,
        count: int,
        width: int = 0,
        offsets: NDArray[Any] | None = None,
        valid: Flags | None = None,
    ) -> None:
        self.data = data
        self.count = count
        self.width = width
        self.offsets = offsets
        self.valid = valid

    def __len__(self) -> int:
        return self.count

    def ends(self) -> Integers:
        """Where each item ends, counted from the start of the first; that start, 0, comes first."""
        if self.offsets is None:
            return np.arange(self.count + 1, dtype=np.int64) * self.width
        return self.offsets.astype(np.int64) - int(self.offsets[0])

    def cut(self, start: int, stop: int) -> "Packed":
        """The items from `start` to before `stop`, as a view."""
        stop = min(stop, self.count)
        if self.offsets is None:
            return Packed(self.data[start * self.width : stop * self.width], stop - start, self.width)
        valid = None if self.valid is None else self.valid[start:stop]
        return Packed(self.data, stop - start, 0, self.offsets[start : stop + 1], valid)

    def own(self) -> Bytes:
        """The bytes of its items, and no others; a view."""
        if self.offsets is None:
            return self.data
        return self.data[int(self.offsets[0]) : int(self.offsets[-1])]

    def owned(self) -> "Packed":
        """A copy that takes the memory of its items, and no more."""
        data = self.own().copy()
        if self.offsets is None:
            return Packed(data, self.count, self.width)
        valid = None if self.valid is None else self.valid.copy()
        return Packed(data, self.count, 0, (self.offsets - self.offsets[0]).astype(np.int32), valid)

    def items(self) -> list[bytes | None]:
        """An object for each."""
        data = self.own().tobytes()
        if self.offsets is None:
            return list(even_items(data, 0, self.count, self.width)) if self.width else [b""] * self.count
        items = items_between(data, 0, self.ends().tolist())
        return list(items) if self.valid is None else with_nulls(self.valid.tobytes(), items)

    def take(self, indexes: Indexes) -> "Packed":
        """The items at these indexes, copied."""
        if self.offsets is None:
            rows = self.data.reshape(self.count, self.width).take(indexes, axis=0)
            return Packed(rows.reshape(-1), len(indexes), self.width)
        valid = None if self.valid is None else self.valid.take(indexes)
        if "pyarrow" in sys.modules:
            data, offsets = self._taken_by_arrow(indexes)
        elif len(self.own()) <= self.count * _GATHERED_WIDTH_MAX:
            data, offsets = self._gathered(indexes)
        else:
            items = self.items()
            return packed_items([items[index] for index in indexes.tolist()])
        return Packed(data, len(indexes), 0, offsets, valid)

    def _taken_by_arrow(self, indexes: Indexes) -> tuple[Bytes, NDArray[Any]]:
        import pyarrow as pa

        assert self.offsets is not None
        kind = pa.binary() if self.offsets.dtype == np.int32 else pa.large_binary()
        buffers = [None, pa.py_buffer(self.offsets), pa.py_buffer(self.data)]
        taken = pa.Array.from_buffers(kind, self.count, buffers).take(pa.array(indexes))
        _, ends, data = taken.buffers()
        offsets = np.frombuffer(ends, self.offsets.dtype, len(indexes) + 1)
        return np.frombuffer(data if data is not None else b"", np.uint8), offsets

    def _gathered(self, indexes: Indexes) -> tuple[Bytes, Integers]:
        assert self.offsets is not None
        starts = self.offsets[:-1].take(indexes)
        lengths = self.offsets[1:].take(indexes) - starts
        ends = np.zeros(len(indexes) + 1, np.int64)
        np.cumsum(lengths, out=ends[1:])
        places = np.repeat(starts - ends[:-1], lengths)
        places += np.arange(len(places))
        return self.data.take(places), ends


def packed_items(items: Sequence[bytes | None]) -> Packed:
    """A list as one buffer."""
    valid: Flags | None = None
    try:
        lengths = list(map(len, items))  # type: ignore[arg-type]
    except TypeError:  # there are nulls, whose hint is 0
        lengths = list(map(length_hint, items))
        valid = np.fromiter(map(is_not, items, repeat(None)), np.bool_, len(items))
    offsets = np.fromiter(accumulate(lengths, initial=0), np.int64, len(items) + 1)
    data = np.frombuffer(b"".join(filter(None, items)), np.uint8)
    return Packed(data, len(items), 0, offsets, valid)


def packed_texts(texts: Sequence[str]) -> Packed | None:
    """A list of text as UTF-8 in one buffer: many are encoded at once, with NULs to tell them apart again.

    None if they cannot be told apart (there is a NUL in one of them), or if one is no text, or none that
    UTF-8 can hold.
    """
    count = len(texts)
    ends = np.zeros(count + 1, np.int64)
    parts = []
    end = 0
    try:
        step = max(1, count * _ENCODED_CHARACTERS // max(1, sum(map(len, texts))))
        for start in range(0, count, step):
            some = texts[start : start + step]
            text = "\0".join(some).encode()
            separators = np.flatnonzero(np.frombuffer(text, np.uint8) == 0)
            if len(separators) != len(some) - 1:
                return None
            stop = start + len(some)
            np.add(separators, end - np.arange(len(separators)), out=ends[start + 1 : stop])
            end += len(text) - len(separators)
            ends[stop] = end
            parts.append(text.replace(b"\0", b""))
    except (TypeError, UnicodeEncodeError):
        return None
    return Packed(np.frombuffer(b"".join(parts), np.uint8), count, 0, ends)


def nulls(count: int) -> Packed:
    """So many of them."""
    return Packed(np.zeros(0, np.uint8), count, 0, np.zeros(count + 1, np.int32), np.zeros(count, np.bool_))


def body_items(parts: Sequence[Packed]) -> PackedItems:
    """The items of all parts in a row, as a batch's body has them.

    Raises BatchTooLargeError before an offset could pass a body's bound, and so int32.
    """
    count = sum(part.count for part in parts)
    data = [part.own() for part in parts]
    size = sum(map(len, data))
    if size > BATCH_BODY_BYTES_MAX:
        raise BatchTooLargeError(f"a column of {size} bytes, at most {BATCH_BODY_BYTES_MAX} a batch")
    validity, missing = _validity(parts)
    offsets = None
    width = parts[0].width
    if all(part.offsets is None and part.width == width for part in parts):
        offsets = even_offsets(count, width)
    if offsets is None:
        offsets = _offsets(parts, count)
    return PackedItems(count, offsets, data, size, validity=validity, nulls=missing)


def _offsets(parts: Sequence[Packed], count: int) -> bytes:
    offsets = np.zeros(count + 1, "<i4")
    at = 0
    for part in parts:
        np.add(part.ends(), offsets[at], out=offsets[at : at + part.count + 1], casting="unsafe")
        at += part.count
    return offsets.tobytes()


def _validity(parts: Sequence[Packed]) -> tuple[bytes | None, int]:
    """The bitmap of all parts, and the number of nulls; no bitmap if there are none."""
    if all(part.valid is None for part in parts):
        return None, 0
    valid = np.concatenate(
        [np.ones(part.count, np.bool_) if part.valid is None else part.valid for part in parts]
    )
    missing = len(valid) - int(np.count_nonzero(valid))
    return (np.packbits(valid, bitorder="little").tobytes() if missing else None), missing


def body_timestamps(parts: Sequence[tuple[int, int | Integers]]) -> PackedTimestamps:
    """The timestamps of all parts in a row: of each its records, and one for all or one for each."""
    first = parts[0][1]
    if isinstance(first, int) and all(isinstance(stamp, int) and stamp == first for _, stamp in parts):
        return PackedTimestamps(first, first)
    stamps = np.concatenate(
        [np.full(count, stamp, np.int64) if isinstance(stamp, int) else stamp for count, stamp in parts]
    )
    largest = int(stamps.max())
    if largest == int(stamps.min()):
        return PackedTimestamps(largest, largest)
    return PackedTimestamps(int(stamps[0]), largest, stamps.astype("<i8", copy=False).tobytes())
