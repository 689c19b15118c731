"""A history over time: throughput, and how long nothing was written after each fault. Pure."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from .history import Acked, Begun, Ended, Event, Read

SLICES_MAX: Final = 600
SLICE_S_MIN: Final = 0.25


class FaultSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A fault as it happened.

    `outage_s`: the longest pause of a partition's acknowledgements that there was between its beginning and
    the next fault's, counted from its beginning at the earliest, to the end of the pause.
    """

    fault: str
    processes: Sequence[str]
    begin_s: float
    end_s: float
    outage_s: float

    @property
    def kind(self) -> str:
        """`kill`"""
        return self.fault.split(" ", 1)[0]


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """`acked_per_s` and `read_per_s` (of one consumer) have a (time, rate) for each slice."""

    seconds: float
    faults: list[FaultSpan]
    acked_per_s: list[tuple[float, float]]
    read_per_s: list[tuple[float, float]]


class TimelineMaker:
    """Takes in a history event by event. `ends_s`: when the producers were told to stop."""

    def __init__(self) -> None:
        self._acks: defaultdict[int, list[float]] = defaultdict(list)
        self._acked: list[tuple[float, int]] = []
        self._read: list[tuple[float, int]] = []
        self._reader: int | None = None
        self._begun: list[Begun] = []
        self._ended: dict[int, float] = {}

    def add(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case Acked():
                self._acks[event.partition].append(event.at_s)
                self._acked.append((event.at_s, len(event.offsets)))
            case Read():
                if self._reader in (None, event.consumer):
                    self._reader = event.consumer
                    self._read.append((event.at_s, len(event.offsets)))
            case Begun():
                self._begun.append(event)
            case Ended():
                self._ended[event.number] = event.at_s

    def timeline(self, ends_s: float) -> Timeline:
        """All has been taken in."""
        for times in self._acks.values():
            times.sort()
        faults = sorted(self._begun, key=lambda each: each.at_s)
        nexts = [each.at_s for each in faults[1:]] + [max(ends_s, faults[-1].at_s)] if faults else []
        last = max([ends_s, *(at for at, _ in self._acked), *(at for at, _ in self._read)])
        return Timeline(
            seconds=last,
            faults=[
                FaultSpan(
                    fault=each.fault,
                    processes=each.processes,
                    begin_s=each.at_s,
                    end_s=self._ended.get(each.number, last),
                    outage_s=round(self._outage(each.at_s, until), 3),
                )
                for each, until in zip(faults, nexts, strict=True)
            ],
            acked_per_s=_rates(self._acked, last),
            read_per_s=_rates(self._read, last),
        )

    def _outage(self, begin_s: float, until_s: float) -> float:
        return max((_longest_pause(times, begin_s, until_s) for times in self._acks.values()), default=0.0)


def _longest_pause(times: Sequence[float], begin_s: float, until_s: float) -> float:
    """Of those that last at some time between the bounds: from `begin_s` on, to their own end.

    `times` are sorted; after the last one the pause ends at `until_s`.
    """
    longest, last = 0.0, begin_s
    for at in islice(times, bisect_right(times, begin_s), None):
        longest = max(longest, at - last)
        if at >= until_s:
            return longest
        last = at
    return max(longest, until_s - last)


def _rates(counts: Iterable[tuple[float, int]], seconds: float) -> list[tuple[float, float]]:
    slice_s = max(SLICE_S_MIN, seconds / SLICES_MAX)
    slices = [0] * (int(seconds / slice_s) + 1)
    for at, count in counts:
        slices[int(at / slice_s)] += count
    return [((number + 0.5) * slice_s, count / slice_s) for number, count in enumerate(slices[:-1])]
