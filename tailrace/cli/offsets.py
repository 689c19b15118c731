"""Where to start reading: rpk's offset grammar, as far as it needs no groups. Pure.

    start  end  N  +N  -N        the beginning, the end, an offset, N after the beginning, the last N
    @MS  @DATE  @-1h             the first record at or after a time
    FROM:TO                      any of the first line on either side, or none: `10:20`, `:end`, `-5:`
    @FROM:TO                     a time on either side: `@-2h:-1h`, `@2024-01-31:2024-02-01`, `@-1d:end`;
                                 TO may be a time after FROM: `@2024-01-31T12:00:+30m`

`TO` is exclusive. Every number is taken a partition.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from .units import parse_duration_ms

_PLACE: Final = re.compile(r"start|end|[+-]?[0-9]{1,18}")
_DATE: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK: Final = r"[0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:[.][0-9]+)?)?)?(?:Z|[+-][0-9]{2}:[0-9]{2})?"
_TIME: Final = rf"{_DATE}(?:[T ]{_CLOCK})?|-[0-9]+[a-z]+|[0-9]+"
_TIMES: Final = re.compile(rf"@({_TIME})(?::@?({_TIME}|[+][0-9]+[a-z]+|end)?)?")
"""A time, or two; the first is as long as it can be, since there are colons within."""
_FORM: Final = re.compile(_TIME)
_TIME_FORMS: Final = "milliseconds, 2024-01-31T12:00 (UTC), or -1h"
_FORMS: Final = (
    "start, end, N, +N, -N, @milliseconds, @2024-01-31T12:00, @-1h, or a range such as 10:20 or @-2h:-1h"
)


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
    """What to read: from a place or a time (milliseconds since 1970), to one of these or without end."""

    first: Place
    timestamp: int | None = None
    last: Place | None = None
    last_timestamp: int | None = None


def parse_offsets(text: str, now_ms: int) -> OffsetRange:
    """A range of the grammar above. Raises ValueError."""
    if "@" in text:
        return _times(text, now_ms)
    first, colon, last = text.partition(":")
    begin = _place(first) if first or not colon else Place("start")
    end = _place(last) if last else None
    if end is not None and begin.base == end.base and end.offset < begin.offset:
        raise ValueError(f"{text!r} ends before it begins")
    return OffsetRange(begin, last=end)


def parse_time(text: str, now_ms: int) -> int:
    """Milliseconds since 1970 of a time of the grammar above, with its `@` or without. Raises ValueError."""
    time = text.removeprefix("@")
    if not _FORM.fullmatch(time):
        raise ValueError(f"{text!r} is no time: write {_TIME_FORMS}")
    return _timestamp(time, now_ms)


def _place(text: str) -> Place:
    if not _PLACE.fullmatch(text):
        raise ValueError(f"{text!r} is no place to read from: write {_FORMS}")
    if text in ("start", "end"):
        return Place(text)
    base = {"+": "start", "-": "end"}.get(text[0], "offset")
    return Place(base, int(text))


def _times(text: str, now_ms: int) -> OffsetRange:
    match = _TIMES.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time: write {_FORMS}")
    first = _timestamp(match.group(1), now_ms)
    until = match.group(2)
    if until is None:
        return OffsetRange(Place("end"), timestamp=first)
    if until == "end":
        return OffsetRange(Place("end"), timestamp=first, last=Place("end"))
    last = first + parse_duration_ms(until[1:]) if until[0] == "+" else _timestamp(until, now_ms)
    if last < first:
        raise ValueError(f"{text!r} ends before it begins")
    return OffsetRange(Place("end"), timestamp=first, last_timestamp=last)


def _timestamp(text: str, now_ms: int) -> int:
    try:
        if text.startswith("-"):
            return max(0, now_ms - parse_duration_ms(text[1:]))
        if text.isdecimal():
            return int(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write {_FORMS}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp() * 1000))
