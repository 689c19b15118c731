"""A client's ears and mouth: commands come in a thread of their own, lines go out."""

import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

import msgspec

from .counts import LatencyCounts
from .lines import EVERY_S, SLOW_EVERY_S, Line, Sample, Start, Until, decode_command, encode
from .spec import Task
from .usage import own_usage

_PRECISE_BELOW_S: Final = 0.05
"""Shorter waits are not interrupted by `Stop`, and wake more precisely."""
_READ_BYTES: Final = 64 * 1024


class Inbox:
    """What the parent has said. When there is no parent any more, the process ends."""

    def __init__(self) -> None:
        self._commands = _lines_of(sys.stdin.fileno())
        self.task = msgspec.json.decode(next(self._commands), type=Task)
        self.started = threading.Event()
        self.start_ns = 0
        self.until: dict[int, int] | None = None
        """A consumer's ends, by partition."""
        self._stopped = threading.Event()
        threading.Thread(target=self._listen, name="inbox", daemon=True).start()

    @property
    def stopping(self) -> bool:
        """Is it to end early?"""
        return self._stopped.is_set()

    def wait_for_start(self) -> int:
        """Returns at the moment when all start, in nanoseconds; at once if it is to stop."""
        self.started.wait()
        self.sleep_until(self.start_ns)
        return self.start_ns

    def sleep_until(self, due_ns: int) -> None:
        """Until then, or until it is to stop."""
        while not self.stopping:
            left_s = (due_ns - time.monotonic_ns()) / 1e9
            if left_s <= 0:
                return
            if left_s < _PRECISE_BELOW_S:
                time.sleep(left_s)
            else:
                self._stopped.wait(left_s - _PRECISE_BELOW_S / 2)

    def _listen(self) -> None:
        for line in self._commands:
            command = decode_command(line)
            if isinstance(command, Start):
                self.start_ns = command.at_ns
                self.started.set()
            elif isinstance(command, Until):
                self.until = command.ends
            else:
                self._stopped.set()
                self.started.set()
        os._exit(1)


class Voice:
    """Tells the parent; all from the main thread."""

    def __init__(self) -> None:
        self._tell_at_ns = 0
        self._slow_at_ns = 0
        self._cpu_before_s = 0.0
        self.latencies = LatencyCounts()
        self.value_bytes = 0
        """To be told with the records, if their sizes are not known."""
        self._rss_anon: int | None = None

    def begin(self, now_ns: int) -> None:
        """The measured time begins now. What latencies are told first are of a whole stretch."""
        self._slow_at_ns = now_ns + round(SLOW_EVERY_S * 1e9)
        self._cpu_before_s = _cpu_s()

    def say(self, line: Line) -> None:
        """One line."""
        data = encode(line)
        while data:
            data = data[os.write(sys.stdout.fileno(), data) :]

    def sample(self, now_ns: int, records: int, *, last: bool = False) -> bool:
        """Tell how far it is, if it is time for that; was it?"""
        if now_ns < self._tell_at_ns and not last:
            return False
        self._tell_at_ns = now_ns + round(EVERY_S * 1e9)
        latencies: dict[int, int] = {}
        if last or now_ns >= self._slow_at_ns:
            self._slow_at_ns = now_ns + round(SLOW_EVERY_S * 1e9)
            latencies = self.latencies.take()
            usage = own_usage()
            self._rss_anon = None if usage is None else usage.rss_anon
        cpu_s = round(_cpu_s() - self._cpu_before_s, 3)
        self.say(
            Sample(
                at_ns=now_ns,
                records=records,
                value_bytes=self.value_bytes,
                latencies=latencies,
                cpu_s=cpu_s,
                rss_anon=self._rss_anon,
            )
        )
        return True


def _lines_of(fd: int) -> Iterator[bytes]:
    """Unbuffered: a buffer's lock, held by a thread that waits, is fatal when the interpreter ends."""
    rest = b""
    while chunk := os.read(fd, _READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
