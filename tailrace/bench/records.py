"""The values that are sent: made ahead of time, so that making them is not what is measured.

    marked value := stamp:int64 run:uint32 producer:uint32 sequence:uint64 filler     (little endian)

`stamp` is when the record was to be sent, in nanoseconds of CLOCK_MONOTONIC, which all processes of a
machine share. Sequences count each producer's records from 0. Values without marks are filler.

There are some fillers, which take turns: number (sequence + producer) % count is that of a record. So what a
marked value holds follows from its marks.
"""

import struct
from collections.abc import Sequence
from itertools import repeat
from operator import add
from random import Random
from string import ascii_uppercase
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("<qIIQ")
HEADER_BYTES: Final = _HEADER.size
_LETTERS: Final = bytes(ascii_uppercase.encode()[byte % 26] for byte in range(256))
"""Makes letters of bytes."""


class Marks(NamedTuple):
    """The headers of some records, in columns; `places` are theirs among the values that were looked at."""

    stamps: Sequence[int]
    runs: Sequence[int]
    producers: Sequence[int]
    sequences: Sequence[int]
    places: Sequence[int]


NO_MARKS: Final = Marks((), (), (), (), ())


class Values:
    """The values of one producer: capital letters at random, as kafka-producer-perf-test sends them."""

    def __init__(self, *, record_bytes: int, count: int, run: int, producer: int, marked: bool) -> None:
        self._run = run
        self._producer = producer
        self._marked = marked
        self._fillers = fillers_of(record_bytes - HEADER_BYTES if marked else record_bytes, count)
        self._twice = 2 * self._fillers

    def next(self, count: int, first: int, stamp: int) -> Sequence[bytes]:
        """`count` values, at most as many as were made, whose sequences begin at `first`."""
        if not self._marked:
            return self._fillers if count == len(self._fillers) else self._fillers[:count]
        start = (first + self._producer) % len(self._fillers)
        sequences = range(first, first + count)
        heads = map(_HEADER.pack, repeat(stamp), repeat(self._run), repeat(self._producer), sequences)
        return list(map(add, heads, self._twice[start : start + count]))


def marks_of(values: Sequence[bytes | None], record_bytes: int) -> Marks:
    """The headers of the values that have the size of ours."""
    whole = [value for value in values if value is not None and len(value) == record_bytes]
    if not whole:
        return NO_MARKS
    places: Sequence[int] = range(len(values))
    if len(whole) < len(values):
        places = [place for place, value in enumerate(values) if value and len(value) == record_bytes]
    rows = struct.iter_unpack(f"{_HEADER.format}{record_bytes - HEADER_BYTES}x", b"".join(whole))
    stamps, runs, producers, sequences = zip(*rows, strict=True)
    return Marks(stamps, runs, producers, sequences, places)


def keys_of(count: int, distinct: int) -> list[bytes] | None:
    """Keys for `count` records in a row, of so many different ones; None for no keys."""
    if not distinct:
        return None
    return [b"key-%d" % (number % distinct) for number in range(count)]


def key_bytes_max(distinct: int) -> int:
    """How long the longest of so many different keys is; 0 without any."""
    return len(b"key-%d" % (distinct - 1)) if distinct else 0


def fillers_of(size: int, count: int) -> list[bytes]:
    """So many, always the same ones."""
    text = Random(0).randbytes(size * count).translate(_LETTERS)
    return [text[start : start + size] for start in range(0, size * count, size)] if size else [b""] * count
