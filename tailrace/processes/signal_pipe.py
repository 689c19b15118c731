"""Signals as input of an event loop."""

import os
import signal
import weakref
from collections.abc import Sequence
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_signals() -> list[signal.Signals]:
    """The signals that end a process: not SIGHUP where `nohup` has it ignored."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOP_SIGNALS if number is not signal.SIGHUP or not ignored]


class SignalPipe:
    """Signals as bytes in a pipe, so that the one loop waits for them as for everything else."""

    def __init__(self, numbers: Sequence[signal.Signals]) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self._writer, False)
        self._before = [(number, signal.signal(number, lambda *_: None)) for number in numbers]
        self._before_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._is_open = True
        _pipes.add(self)

    def read(self) -> bytes:
        """The numbers of the signals that came."""
        return os.read(self.reader, 4096)

    def read_now(self) -> bytes:
        """The numbers of the signals that have come; none if none came."""
        try:
            return self.read()
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Let the signals do what they did before. May be repeated."""
        if not self._is_open:
            return
        self._is_open = False
        _pipes.discard(self)
        signal.set_wakeup_fd(self._before_fd)
        for number, handler in self._before:
            signal.signal(number, handler)
        os.close(self.reader)
        os.close(self._writer)


_pipes: Final[weakref.WeakSet[SignalPipe]] = weakref.WeakSet()


def _close_in_fork() -> None:
    """A signal to a fork is none to its parent, whose pipe it would go into."""
    for pipe in list(_pipes):
        pipe.close()


os.register_at_fork(after_in_child=_close_in_fork)
