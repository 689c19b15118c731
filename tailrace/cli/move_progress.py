"""Shows how moves of partitions go on until they are done: a bar, or a line now and then.

The moves belong to the cluster: whoever watches them may stop at any time.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tailrace.protocol.record import TopicPartition
from tailrace.protocol.text import plural

from .output import print_json, progress_console, say
from .units import human_bytes

if TYPE_CHECKING:
    from tailrace.client.admin import Admin
    from tailrace.client.moves import MoveDescription

LOOK_EVERY_S: Final = 0.5
PLAIN_EVERY_S: Final = 5.0
"""How often a line is said where nobody watches a terminal."""
STANDSTILL_S: Final = 10.0
"""Longer than a node that died is waited for: who copies nothing for so long hangs, or has no leader."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where some moves are. The rate is that since the first look; `left_s` is None without one, and at the
    end. Nothing has come for `still_s`, which is 0 while something does, to the nodes `waits_for`."""

    partitions: int
    done: int
    copied_bytes: int
    left_bytes: int
    bytes_per_s: float
    left_s: float | None
    still_s: float
    waits_for: tuple[int, ...]

    @property
    def text(self) -> str:
        """`3 of 12 partitions moved, 1.2 GiB copied, 4.0 GiB left, 48.0 MiB/s, 1 min 25 s to go`."""
        told = f"{self.done} of {plural(self.partitions, 'partition')} moved"
        if self.copied_bytes or self.left_bytes:  # small ones are over before anybody has looked
            told += (
                f", {human_bytes(self.copied_bytes)} copied, {human_bytes(self.left_bytes)} left, "
                f"{human_bytes(round(self.bytes_per_s))}/s"
            )
        if self.still_s:
            nodes = ", ".join(map(str, self.waits_for))
            which = f" to {'node' if len(self.waits_for) == 1 else 'nodes'} {nodes}" if nodes else ""
            return (
                f"{told}, nothing has come{which} for {_duration(self.still_s)}: see tailrace cluster status"
            )
        return told if self.left_s is None else f"{told}, about {_duration(self.left_s)} to go"


@dataclass
class Watched:
    """What is known of some moves from look to look. Pure: time is an argument, in seconds."""

    places: set[TopicPartition]
    _copied: dict[TopicPartition, tuple[int, int, int]] = field(default_factory=dict)
    """Of each: how much was there at the first look, and at the last in which it moved, and was left then."""
    _began: float | None = None
    _changed: tuple[float, tuple[int, int]] = (0.0, (-1, -1))
    """When, and to what, the count of those that are done or the bytes changed last."""

    def look(self, moves: "Iterable[MoveDescription]", now: float) -> Progress:
        """Take in the moves of the cluster as they are; those that are not among them are done."""
        self._began = now if self._began is None else self._began
        left = {p: m for m in moves if (p := TopicPartition(m.topic, m.partition)) in self.places}
        for place, move in left.items():
            first, most, _ = self._copied.get(place, (move.copied_bytes, 0, 0))
            self._copied[place] = (first, max(most, move.copied_bytes), move.left_bytes)
        copied = sum(
            most - first + (0 if place in left else rest)
            for place, (first, most, rest) in self._copied.items()
        )
        left_bytes = sum(move.left_bytes for move in left.values())
        rate = copied / (now - self._began) if now > self._began else 0.0
        done = len(self.places) - len(left)
        if self._changed[1] != (done, copied):
            self._changed = (now, (done, copied))
        still_s = now - self._changed[0]
        return Progress(
            partitions=len(self.places),
            done=done,
            copied_bytes=copied,
            left_bytes=left_bytes,
            bytes_per_s=rate,
            left_s=left_bytes / rate if rate and left else None,
            still_s=still_s if still_s >= STANDSTILL_S else 0.0,
            waits_for=tuple(sorted({node for move in left.values() for node in move.waiting})),
        )


def wait_for_moves(admin: "Admin", places: Iterable[TopicPartition], *, as_json: bool) -> None:
    """Returns when none of these partitions moves any more; Ctrl-C ends the watching, not the moves."""
    watched = Watched(set(places))
    if not watched.places:
        return
    try:
        with _shown(as_json=as_json) as show:
            while True:
                progress = watched.look(admin.list_moves(), time.monotonic())
                show(progress)
                if progress.done == progress.partitions:
                    return
                time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        say(
            "not watched any more; the cluster moves on. How far it is: tailrace cluster moves. "
            "To call a move off: tailrace cluster move --cancel TOPIC-PARTITION"
        )
        raise


@contextmanager
def _shown(*, as_json: bool) -> Iterator[Callable[[Progress], None]]:
    if as_json:
        yield _print_json
    elif sys.stderr.isatty():
        with _bar() as update:
            yield update
    else:
        yield _Lines().show


def _print_json(progress: Progress) -> None:
    print_json(vars(progress))


class _Lines:
    """Progress where nobody watches a terminal."""

    def __init__(self) -> None:
        self._next = time.monotonic() + PLAIN_EVERY_S

    def show(self, progress: Progress) -> None:
        """A line for the end, and one now and then before."""
        now = time.monotonic()
        if now >= self._next or progress.done == progress.partitions:
            self._next = now + PLAIN_EVERY_S
            say(progress.text)


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(BarColumn(), TextColumn("{task.description}"), console=progress_console()) as bar:
        task = bar.add_task("looking")

        def update(progress: Progress) -> None:
            total = progress.copied_bytes + progress.left_bytes
            by_bytes = total > 0 and progress.left_bytes > 0
            bar.update(
                task,
                description=progress.text,
                completed=progress.copied_bytes if by_bytes else progress.done,
                total=total if by_bytes else progress.partitions,
            )

        yield update


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
