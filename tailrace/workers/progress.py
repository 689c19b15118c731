"""What workers tell the pool: JSON lines over a pipe, and what the pool makes of them."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

Event = dict[str, Any]

EVERY_S: Final = 0.5
"""How often a worker tells how far it is."""

_CHUNK_BYTES: Final = 64 * 1024


@dataclass(slots=True)
class Counters:
    """One worker since its start. Counted in its main thread, told by another."""

    records: int = 0
    """Handled, or put aside as dead letters."""
    errors: int = 0
    """Attempts that failed."""
    retries: int = 0
    dead_letters: int = 0
    lag: int = 0
    """Records behind the ends of its partitions, as last heard."""
    partitions: int = 0


COUNTED: Final = ("records", "errors", "retries", "dead_letters")
"""What adds up over a worker's lives."""


class Voice:
    """A worker's end of the pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def say(self, event: str, **fields: Any) -> None:
        """Tell the pool; a pool that is gone ends the worker by another way."""
        line = json.dumps({"event": event, **fields}, separators=(",", ":")) + "\n"
        data = line.encode()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except BrokenPipeError:
            return

    def progress(self, counters: Counters, reached: Sequence[tuple[str, int, int]] = ()) -> None:
        """How far it is; `reached`: topic, partition and offset of what has been committed since."""
        self.say("progress", reached=reached, **asdict(counters))


class Ear:
    """The pool's end. `fd` does not block."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._line = b""
        os.set_blocking(fd, False)

    def events(self) -> tuple[list[Event], bool]:
        """What was said, and whether more may come. Never waits."""
        try:
            chunk = os.read(self.fd, _CHUNK_BYTES)
        except BlockingIOError:
            return [], True
        *lines, self._line = (self._line + chunk).split(b"\n")
        return [json.loads(line) for line in lines], bool(chunk)


class Tally:
    """One worker over all its lives: totals, and the rate between its last two lines."""

    def __init__(self) -> None:
        self._before = dict.fromkeys(COUNTED, 0)
        self._now = Counters()
        self._heard_at: float | None = None
        self.records_per_s = 0.0

    def heard(self, counters: Counters, now: float) -> None:
        """A line came; `now` in seconds."""
        if self._heard_at is not None and now > self._heard_at:
            self.records_per_s = (counters.records - self._now.records) / (now - self._heard_at)
        self._now, self._heard_at = counters, now

    def ended(self) -> None:
        """Its process is gone; the next one counts from 0. What it left undone is its lag as last heard."""
        for name in COUNTED:
            self._before[name] += getattr(self._now, name)
        self._now, self._heard_at, self.records_per_s = Counters(lag=self._now.lag), None, 0.0

    def fields(self) -> dict[str, Any]:
        """For people and programs."""
        totals = {name: self._before[name] + getattr(self._now, name) for name in COUNTED}
        rate = round(self.records_per_s, 1)
        return {
            **totals,
            "records_per_s": rate,
            "lag": self._now.lag,
            "partitions": self._now.partitions,
        }
