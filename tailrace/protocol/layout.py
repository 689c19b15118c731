"""Where the columns of a native body lie: its directory, whose grammar stands in columns.py. Reading.

No length is trusted. What can be told from the lengths alone is checked once for all batches that have as
many records and the same directory, as those of one producer often do.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from .buffers import padding
from .columns import (
    DIRECTORY_ENTRY,
    DIRECTORY_HEAD,
    HEADER_KEYS,
    HEADER_VALUES,
    KEYS,
    VALUES,
    BinaryKinds,
    Kind,
)
from .errors import CorruptBatchError
from .limits import BATCH_HEADERS_MAX

_LAST_KIND: Final = max(Kind)
_KINDS: Final = len(Kind)
_KEY_KINDS: Final = frozenset((Kind.KEY_OFFSETS, Kind.KEY_DATA, Kind.KEY_VALIDITY))
_HEADER_KINDS: Final = frozenset(kind for kind in Kind if kind.name.startswith("HEADER_"))


class Span(NamedTuple):
    """Where a buffer lies in the body. `length` is without its padding."""

    start: int
    length: int

    @property
    def end(self) -> int:
        """Where its padding begins."""
        return self.start + self.length


class BinarySpans(NamedTuple):
    """Where a column of bytes or nulls lies. `name` is for people."""

    offsets: Span
    data: Span
    validity: Span | None
    name: str


class HeaderSpans(NamedTuple):
    """Where the headers of all records lie, in a row, `total` of them."""

    counts: Span
    total: int
    names: BinarySpans
    values: BinarySpans


class Layout(NamedTuple):
    """Where everything lies in a body of `end` bytes; None: it does without. `paddings` are in between."""

    end: int
    paddings: tuple[slice, ...]
    keys: BinarySpans | None
    values: BinarySpans
    timestamps: Span | None
    headers: HeaderSpans | None
    offset_deltas: Span | None


def layout_of(body: bytes, count: int) -> Layout:
    """The layout of a body of `count` records.

    Raises CorruptBatchError unless its columns are of known kinds, ascending, each of the length that it
    must have and padded with zeros, to the body's end.
    """
    if len(body) < DIRECTORY_HEAD.size:
        raise CorruptBatchError("the column directory is cut off")
    entries = DIRECTORY_HEAD.unpack_from(body)[0]
    layout = _layout(body[: DIRECTORY_HEAD.size + entries * DIRECTORY_ENTRY.size], count)
    if layout.end != len(body):
        raise CorruptBatchError(f"columns of {layout.end} bytes in a body of {len(body)}")
    for between in layout.paddings:
        if any(body[between]):
            raise CorruptBatchError(f"a column that ends at {between.start} is not padded with zeros")
    return layout


@lru_cache(maxsize=64)
def _layout(directory: bytes, count: int) -> Layout:
    spans, paddings, end = _spans(directory)
    timestamps = deltas = None
    if Kind.TIMESTAMPS in spans:
        timestamps = _sized(spans, Kind.TIMESTAMPS, 8 * count)
    if Kind.OFFSET_DELTAS in spans:
        deltas = _sized(spans, Kind.OFFSET_DELTAS, 4 * count)
    return Layout(
        end,
        paddings,
        keys=None if spans.keys().isdisjoint(_KEY_KINDS) else _binary(spans, KEYS, count),
        values=_binary(spans, VALUES, count),
        timestamps=timestamps,
        headers=None if spans.keys().isdisjoint(_HEADER_KINDS) else _headers(spans, count),
        offset_deltas=deltas,
    )


def _spans(directory: bytes) -> tuple[dict[int, Span], tuple[slice, ...], int]:
    """The buffers by kind, the padding between them, and where the last one ends."""
    entries, *reserved = DIRECTORY_HEAD.unpack_from(directory)
    end = DIRECTORY_HEAD.size + entries * DIRECTORY_ENTRY.size
    if any(reserved) or entries > _KINDS or end != len(directory):
        raise CorruptBatchError(f"a column directory of {entries} entries that does not fit")
    spans: dict[int, Span] = {}
    paddings = []
    last_kind = 0
    for kind, zeros, length in DIRECTORY_ENTRY.iter_unpack(directory[DIRECTORY_HEAD.size :]):
        if not last_kind < kind <= _LAST_KIND or any(zeros):
            raise CorruptBatchError(f"column kind {kind} after {last_kind}")
        spans[kind] = Span(end, length)
        stop = end + length
        last_kind, end = kind, stop + padding(length)
        if stop < end:
            paddings.append(slice(stop, end))
    return spans, tuple(paddings), end


def _binary(spans: Mapping[int, Span], kinds: BinaryKinds, count: int) -> BinarySpans:
    return BinarySpans(
        _sized(spans, kinds.offsets, 4 * (count + 1)),
        _sized(spans, kinds.data, None),
        None if kinds.validity is None else spans.get(kinds.validity),
        kinds.data.name,
    )


def _headers(spans: Mapping[int, Span], count: int) -> HeaderSpans:
    counts = _sized(spans, Kind.HEADER_COUNTS, 4 * (count + 1))
    total = _sized(spans, Kind.HEADER_KEY_OFFSETS, None).length // 4 - 1
    if not 0 < total <= BATCH_HEADERS_MAX:
        raise CorruptBatchError(f"header columns for {total} headers, 1 to {BATCH_HEADERS_MAX} a batch")
    return HeaderSpans(
        counts, total, _binary(spans, HEADER_KEYS, total), _binary(spans, HEADER_VALUES, total)
    )


def _sized(spans: Mapping[int, Span], kind: Kind, length: int | None) -> Span:
    """The span of a column that must be there, of this length if one is given."""
    span = spans.get(kind)
    if span is None or (length is not None and span.length != length):
        found = "is missing" if span is None else f"has {span.length} bytes, not {length}"
        raise CorruptBatchError(f"column {kind.name} {found}")
    return span
