"""Where to start reading: rpk's offset grammar, as far as it needs no groups. Pure.

    start  end  N  +N  -N        the beginning, the end, an offset, N after the beginning, the last N
    @MS  @DATE  @-1h             the first record at or after a time
    FROM:TO                      any of the first line on either side, or none: `10:20`, `:end`, `-5:`

`TO` is exclusive. Every number is taken a partition.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from .units import parse_duration_ms

_PLACE: Final = re.compile(r"start|end|[+-]?[0-9]{1,18}")
_OF_TIMES: Final = re.compile(r".*:@|@.*:(start|end)?$")
"""A range with a time on a side; the colons within a time are followed by digits."""
_FORMS: Final = "start, end, N, +N, -N, @milliseconds, @2024-01-31T12:00, @-1h, or a range such as 10:20"


@dataclass(frozen=True)
class Place:
    """A place in a partition: `offset` from its start, from its end, or as it is."""

    base: str
    """`start`, `end` or `offset`."""
    offset: int = 0

    def resolve(self, start: int, end: int) -> int:
        """The offset in a partition that holds `start` up to `end`, and never outside of that."""
        origin = {"start": start, "end": end, "offset": 0}[self.base]
        return min(max(origin + self.offset, start), end)


@dataclass(frozen=True)
class OffsetRange:
    """What to read: from a place or a time (milliseconds since 1970), to a place or without end."""

    first: Place
    timestamp: int | None = None
    last: Place | None = None


def parse_offsets(text: str, now_ms: int) -> OffsetRange:
    """A range of the grammar above. Raises ValueError."""
    if _OF_TIMES.match(text):
        raise ValueError(f"{text!r}: a range is of offsets, such as 10:20, -5: or :end, not of times")
    if text.startswith("@"):
        return OffsetRange(Place("end"), timestamp=_timestamp(text[1:], now_ms))
    first, colon, last = text.partition(":")
    return OffsetRange(
        _place(first) if first or not colon else Place("start"), last=_place(last) if last else None
    )


def _place(text: str) -> Place:
    if not _PLACE.fullmatch(text):
        raise ValueError(f"{text!r} is no place to read from: write {_FORMS}")
    if text in ("start", "end"):
        return Place(text)
    base = {"+": "start", "-": "end"}.get(text[0], "offset")
    return Place(base, int(text))


def _timestamp(text: str, now_ms: int) -> int:
    try:
        if text.startswith("-"):
            return max(0, now_ms - parse_duration_ms(text[1:]))
        if text.isdecimal():
            return int(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{'@' + text!r} is no time: write {_FORMS}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp() * 1000))
