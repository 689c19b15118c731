"""Everything that happened in a run: one JSON object a line, each file written by one process.

Times are in seconds since the start, of a clock that all processes of the machine share. A record is known by
its producer and its sequence there; the records of one line lie in one partition.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

import msgspec

SUFFIX: Final = ".jsonl"


class Sent(msgspec.Struct, frozen=True, kw_only=True, tag="sent"):
    """A producer begins to send `count` records with sequences from `first` on; to any partition."""

    at_s: float
    producer: int
    first: int
    count: int


class Acked(msgspec.Struct, frozen=True, kw_only=True, tag="acked"):
    """Acknowledged, each at its offset."""

    at_s: float
    producer: int
    partition: int
    sequences: Sequence[int]
    offsets: Sequence[int]


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """Their producer gave up: they may be stored or not."""

    at_s: float
    producer: int
    sequences: Sequence[int]
    error: str


class Read(msgspec.Struct, frozen=True, kw_only=True, tag="read"):
    """A consumer was handed records; in the order of the columns."""

    at_s: float
    consumer: int
    partition: int
    offsets: Sequence[int]
    producers: Sequence[int]
    sequences: Sequence[int]


class Watermark(msgspec.Struct, frozen=True, kw_only=True, tag="watermark"):
    """The high watermark as one observer was told it. One observer asks again only when it was answered."""

    at_s: float
    observer: str
    partition: int
    offset: int


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begun"):
    """A fault, and which processes it hits."""

    at_s: float
    number: int
    fault: str
    processes: Sequence[str]


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """The fault is over: a killed process was started, a suspended one goes on."""

    at_s: float
    number: int


class Crashed(msgspec.Struct, frozen=True, kw_only=True, tag="crashed"):
    """A process ended that no fault had ended."""

    at_s: float
    process: str
    reason: str


class Stored(msgspec.Struct, frozen=True, kw_only=True, tag="stored"):
    """A batch in the log of one replica, found when its node had stopped. `digest` is of all its bytes."""

    node: int
    partition: int
    offset: int
    digest: int
    producers: Sequence[int]
    sequences: Sequence[int]


class Replica(msgspec.Struct, frozen=True, kw_only=True, tag="replica"):
    """A replica's log as a whole, when its node had stopped; `problems` are what its verification found."""

    node: int
    partition: int
    start: int
    end: int
    high_watermark: int
    problems: Sequence[str] = ()


Event: TypeAlias = Sent | Acked | Failed | Read | Watermark | Begun | Ended | Crashed | Stored | Replica

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Event)


class Writer:
    """Appends events to one file, in one process. Whole lines reach the file, also when it is killed."""

    def __init__(self, file: Path, start_ns: int) -> None:
        self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._start_ns = start_ns

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def now(self) -> float:
        """Seconds since the start."""
        return round((time.monotonic_ns() - self._start_ns) / 1e9, 4)

    def write(self, *events: Event) -> None:
        """At once."""
        data = memoryview(b"".join(_encoder.encode(event) + b"\n" for event in events))
        while data:
            data = data[os.write(self._fd, data) :]


def read_history(folder: Path) -> Iterator[Event]:
    """All events of a run; those of one file in its order, the files one after the other."""
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        yield from read_file(file)


def read_file(file: Path) -> Iterator[Event]:
    """The events of one file."""
    with file.open("rb") as lines:
        for line in lines:
            yield _decoder.decode(line)


def encoded(events: Iterable[Event]) -> bytes:
    """As in a file."""
    return b"".join(_encoder.encode(event) + b"\n" for event in events)
