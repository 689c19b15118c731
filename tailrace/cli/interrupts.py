"""Signals to a command that has figures not to lose, and something to undo in the end."""

import signal
from types import FrameType, TracebackType
from typing import Self

from tailrace.processes.signal_pipe import stop_signals


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt. Only one does: what is to be undone then takes a
    few seconds, and is done whatever comes.

    Between `hold` and `release` the first waits for the end of that; a second one does not.
    """

    def __init__(self) -> None:
        self.raised = False
        """Has one ended what was going on?"""
        self._held = False
        self._waits = False

    def __enter__(self) -> Self:
        self._before = [(number, signal.signal(number, self._on_signal)) for number in stop_signals()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def hold(self) -> None:
        """What follows is not to be broken off."""
        self._held = True

    def release(self) -> None:
        """It is over. Raises KeyboardInterrupt if a signal has come meanwhile."""
        self._held = False
        if self._waits:
            self._interrupt()

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        if self._held and not self._waits:
            self._waits = True
        else:
            self._interrupt()

    def _interrupt(self) -> None:
        if not self.raised:
            self.raised = True
            raise KeyboardInterrupt
