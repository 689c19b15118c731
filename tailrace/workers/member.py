"""The pool's side of one worker: its process, what it says, when it is started again."""

import os
import signal
import subprocess
import sys
from dataclasses import fields
from typing import Any, Final

from tailrace.processes.parent_pipe import ParentPipe
from tailrace.processes.restarts import Restarts

from .board import Board
from .progress import Counters, Ear, Event, Tally

_COUNTERS: Final = tuple(field.name for field in fields(Counters))


class Member:
    """One worker over all its lives."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.tally = Tally()
        self.restarts = Restarts()
        self.restart_at: float | None = 0.0
        """When it is to be started (monotonic seconds); None while it runs, and when it is not to run."""
        self.lives = 0
        self.ready = False
        self.failure: dict[str, Any] | None = None
        """What it said when it could not go on."""
        self.reached: dict[tuple[str, int], int] = {}
        """Offsets that it has committed, by topic and partition. Taken by the pool."""
        self.process: subprocess.Popen[bytes] | None = None
        self.ear: Ear | None = None
        self.exit_fd = -1
        """Readable when the process is gone, whoever has inherited its pipes."""

    @property
    def pid(self) -> int | None:
        """Its process, if it has one."""
        return None if self.process is None else self.process.pid

    def start(self, spec_fd: int, board: Board, parent: ParentPipe, workers: int, stdout: int | None) -> None:
        """A fresh process, in a group of its own: Ctrl-C is the pool's. `stdout`: None is the pool's."""
        reader, writer = os.pipe()
        inherited = (spec_fd, board.fd, writer, parent.reader)
        arguments = [str(number) for number in (*inherited, self.index, workers)]
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tailrace.workers.worker", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                pass_fds=inherited,
                process_group=0,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self.ear = Ear(reader)
        self.exit_fd = os.pidfd_open(self.process.pid)
        self.restart_at, self.ready, self.failure = None, False, None
        self.lives += 1

    def listen(self, now: float) -> bool:
        """Take in what it has said; False when it has ended. Never waits."""
        assert self.ear is not None
        more = True
        events: list[Event] = []
        while more and (heard := self.ear.events())[0]:
            events += heard[0]
            more = heard[1]
        for event in events:
            if event["event"] == "ready":
                self.ready = True
                self.restarts.ready(now)
            elif event["event"] == "failed":
                self.failure = event
            else:
                self.tally.heard(Counters(**{name: event[name] for name in _COUNTERS}), now)
                self.reached |= {(topic, number): offset for topic, number, offset in event["reached"]}
        return more

    def ended(self) -> int:
        """Its process is gone: the exit code. To be heard to the end before."""
        assert self.process is not None
        assert self.ear is not None
        code = self.process.wait()
        os.close(self.ear.fd)
        os.close(self.exit_fd)
        self.process = self.ear = None
        self.exit_fd = -1
        self.tally.ended()
        return code

    def drain(self) -> None:
        """Ask it to end cleanly, also when it is suspended."""
        self.restart_at = None
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()

    def fields(self) -> dict[str, Any]:
        """For people and programs."""
        state = "down" if self.process is None else "running" if self.ready else "starting"
        own = {"worker": self.index, "pid": self.pid, "state": state, "restarts": max(0, self.lives - 1)}
        return own | self.tally.fields()
