"""The buffers of a column, both ways: offsets, bitmaps and the values between two offsets.

The layout is Arrow's: int32 offsets [n + 1] from 0, little endian; bitmaps least significant bit first.
Everything here is C-built calls over whole columns; nothing runs a line of Python for each record.
"""

import struct
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from io import BytesIO
from itertools import accumulate, chain, islice, repeat
from operator import add, mul, sub
from typing import Any, Final, NamedTuple

from .errors import BatchTooLargeError, CorruptBatchError
from .limits import BATCH_BODY_BYTES_MAX, KIB

ALIGNMENT: Final = 8


class PackedItems:
    """A column of `count` items that is laid out as the body has it.

    `offsets` are int32 from 0 to `size`, `data` bytes-like objects of together `size` bytes; nulls are of
    length 0. `validity` is None where there are no nulls.
    """

    __slots__ = ("count", "data", "nulls", "offsets", "size", "validity")

    def __init__(
        self,
        count: int,
        offsets: bytes,
        data: Sequence[Any],
        size: int,
        *,
        validity: bytes | None = None,
        nulls: int = 0,
    ) -> None:
        self.count = count
        self.offsets = offsets
        self.data = data
        self.size = size
        self.validity = validity
        self.nulls = nulls

    def __len__(self) -> int:
        return self.count

    def lengths(self) -> list[int]:
        """The length of every item."""
        ends = struct.unpack(f"<{self.count + 1}i", self.offsets)
        return list(map(sub, ends[1:], ends))


class PackedTimestamps(NamedTuple):
    """Timestamps as the body has them: the first, the largest, and all as int64; no `data`: all are equal."""

    first: int
    largest: int
    data: bytes = b""


def pack_timestamps(stamps: Sequence[int], starts: Sequence[int], count: int) -> PackedTimestamps:
    """Timestamps of `count` records: each of `stamps` is of the records from its start to before the next.

    What is done is per stamp, not per record. Raises struct.error for what is no int64.
    """
    first = stamps[0]
    if stamps.count(first) == len(stamps):
        return PackedTimestamps(first, first)
    lengths = map(sub, chain(islice(starts, 1, None), (count,)), starts)
    return PackedTimestamps(first, max(stamps), b"".join(map(mul, map(_TIMESTAMP.pack, stamps), lengths)))


_TIMESTAMP: Final = struct.Struct("<q")
_DIGITS_OF_FLAGS: Final = bytes.maketrans(b"\x00\x01", b"01")
_FLAGS_OF_DIGITS: Final = bytes.maketrans(b"01", b"\x00\x01")

_OFFSET_BYTES: Final = 4
_ONE: Final = struct.pack("<i", 1)
_INT32_MAX: Final = 2**31 - 1

_EVEN_COUNT_MAX: Final = 16 * KIB
"""Items up to which the offsets of a fixed-width column come from a cache (up to 128 KiB an entry)."""
_EVEN_WIDTH_MAX: Final = 4 * KIB
_EVEN_RUN: Final = 256
"""Items of a fixed width that one compiled struct unpacks."""


def padding(length: int) -> int:
    """How many zero bytes follow a buffer of this length."""
    return -length % ALIGNMENT


def pack_offsets(lengths: Sequence[int]) -> tuple[bytes, int]:
    """The offsets of items of these lengths, and where the last one ends. `lengths` must not be empty.

    Raises BatchTooLargeError before an offset could pass a body's bound, and so int32.
    """
    count = len(lengths)
    width = lengths[0]
    if count <= _EVEN_COUNT_MAX and width <= _EVEN_WIDTH_MAX and lengths.count(width) == count:
        return _even_offsets(width, count.bit_length())[: 4 * (count + 1)], count * width
    ends = list(accumulate(lengths, initial=0))
    if ends[-1] > BATCH_BODY_BYTES_MAX:
        raise BatchTooLargeError(f"a column of {ends[-1]} bytes, at most {BATCH_BODY_BYTES_MAX} a batch")
    return struct.pack(f"<{count + 1}i", *ends), ends[-1]


class Runs:
    """The offsets of `count` items, of `size` bytes together, which come in runs that are counted already.

    Items of one width cost nothing, all others the 4 bytes each that they take in the body.
    """

    __slots__ = ("_parts", "count", "size")

    def __init__(self) -> None:
        self.count = 0
        self.size = 0
        self._parts: list[range | bytes] = []

    def add(self, bounds: Sequence[int]) -> None:
        """More items: where each begins and the last one ends, from any number on. Together below 2^31 bytes.

        Either all of them are added, or none, if a signal handler raises meanwhile.
        """
        count, size = len(bounds) - 1, bounds[-1] - bounds[0]
        merges, last = self.extends(bounds), self._parts[-1] if self._parts else None
        part: range | bytes
        if merges:
            assert isinstance(last, range)
            part = range(last.start, last.stop + size, last.step)
        elif isinstance(bounds, range):
            part = range(self.size + bounds.step, self.size + size + 1, bounds.step)
        else:
            part = _shifted(bounds[1:], self.size - bounds[0])
        # Not a call from here on: signal handlers come at calls.
        if merges:
            self._parts[-1] = part
        else:
            self._parts += [part]
        self.count += count
        self.size += size

    def extends(self, bounds: Sequence[int]) -> bool:
        """Are they of the width of those before?"""
        last = self._parts[-1] if self._parts else None
        return isinstance(bounds, range) and isinstance(last, range) and last.step == bounds.step

    def offsets(self) -> bytes:
        """int32[count + 1], from 0."""
        if len(self._parts) == 1 and isinstance(self._parts[0], range):
            even = even_offsets(self.count, self._parts[0].step)
            if even is not None:
                return even
        parts = [each if isinstance(each, bytes) else _int32s(each) for each in self._parts]
        return b"".join((bytes(_OFFSET_BYTES), *parts))


def _shifted(numbers: Sequence[int], by: int) -> bytes:
    """The numbers as int32, each moved by as much: in one addition, since none of the sums is negative."""
    if numbers[-1] > _INT32_MAX:
        return _int32s(list(map(add, numbers, repeat(by))))
    packed = _int32s(numbers)
    if not by:
        return packed
    ones = int.from_bytes(_ONE * len(numbers), "little")
    return (int.from_bytes(packed, "little") + by * ones).to_bytes(len(packed), "little")


def _int32s(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}i", *numbers)


def unpack_offsets(body: bytes, start: int, count: int, data_length: int, what: str) -> list[int]:
    """`count + 1` offsets, checked: from 0, never descending, to the end of the data."""
    offsets = list(struct.unpack_from(f"<{count + 1}i", body, start))
    if offsets[0] != 0 or offsets[-1] != data_length or sorted(offsets) != offsets:
        raise CorruptBatchError(f"{what} offsets do not ascend from 0 to {data_length}")
    return offsets


def check_offsets(body: bytes, start: int, count: int, data_length: int, what: str) -> list[int]:
    """Check like `unpack_offsets`. Returns them only if that was the way to do it, else an empty list."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return unpack_offsets(body, start, count, data_length, what)
    offsets = numpy.frombuffer(body, "<i4", count + 1, start)
    if offsets[0] != 0 or offsets[-1] != data_length or (offsets[1:] < offsets[:-1]).any():
        return unpack_offsets(body, start, count, data_length, what)
    return []


def even_width(body: bytes, start: int, count: int, data_length: int) -> int:
    """The width that all items have, if that can be seen at a glance at their offsets; else 0."""
    width, rest = divmod(data_length, count)
    if rest or not 0 < width <= _EVEN_WIDTH_MAX or count > _EVEN_COUNT_MAX:
        return 0
    size = 4 * (count + 1)
    return width if body[start : start + size] == _even_offsets(width, count.bit_length())[:size] else 0


def even_offsets(count: int, width: int) -> bytes | None:
    """The offsets of `count` items of `width` bytes, if they are among those that are kept."""
    if count > _EVEN_COUNT_MAX or width > _EVEN_WIDTH_MAX:
        return None
    return _even_offsets(width, count.bit_length())[: 4 * (count + 1)]


@lru_cache(maxsize=32)
def _even_offsets(width: int, bits: int) -> bytes:
    """The first `2**bits` offsets: enough for a count of so many bits, and less than twice what it needs.

    So a width that never came before costs a column no more than its own size.
    """
    if width == 0:
        return bytes(4 << bits)
    return struct.pack(f"<{1 << bits}i", *range(0, width << bits, width))


def even_items(body: bytes, start: int, count: int, width: int) -> list[bytes | None]:
    """The `count` items of `width` bytes each from `start` on."""
    runs, rest = divmod(count, _EVEN_RUN)
    items: list[bytes | None] = []
    if runs:
        run = _run_of(width)
        stop = start + runs * run.size
        items += chain.from_iterable(run.iter_unpack(memoryview(body)[start:stop]))
        start = stop
    stream = BytesIO(body)
    stream.seek(start)
    items += map(stream.read, repeat(width, rest))
    return items


@lru_cache(maxsize=128)
def _run_of(width: int) -> struct.Struct:
    return struct.Struct(f"{width}s" * _EVEN_RUN)


def items_between(body: bytes, start: int, offsets: Sequence[int]) -> list[bytes | None]:
    """The items whose offsets from `start` are given."""
    stream = BytesIO(body)
    stream.seek(start)
    return list(map(stream.read, map(sub, offsets[1:], offsets)))


def pack_bitmap(flags: Iterable[bool]) -> bytes:
    """A bitmap of at least one flag."""
    digits = bytes(flags).translate(_DIGITS_OF_FLAGS)
    return int(digits[::-1], 2).to_bytes((len(digits) + 7) // 8, "little")


def check_bitmap(bitmap: bytes, count: int, what: str) -> None:
    """The bitmap of `count` flags has its length, and the bits after the last one are 0."""
    if len(bitmap) != (count + 7) // 8 or (count % 8 and bitmap[-1] >> count % 8):
        raise CorruptBatchError(f"{what} validity: {len(bitmap)} bytes do not hold {count} bits")


def unpack_bitmap(bitmap: bytes, count: int) -> bytes:
    """One byte, 0 or 1, for each of `count` flags of a bitmap that was checked."""
    bits = int.from_bytes(bitmap, "little")
    return f"{bits:0{count}b}"[::-1].encode().translate(_FLAGS_OF_DIGITS)


_NULLS: Final[dict[int, None]] = {0: None}


def with_nulls(flags: bytes, items: list[bytes | None]) -> list[bytes | None]:
    """The items, None where the flag is 0."""
    return list(map(_NULLS.get, flags, items))
