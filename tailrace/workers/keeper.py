"""Keeps a pool's workers running, in a thread of its own, until they are to end."""

import logging
import os
import selectors
import signal
import threading
from collections import Counter
from time import monotonic
from typing import Any, Final

from tailrace.processes.parent_pipe import ParentPipe, describe_exit
from tailrace.protocol.errors import TailraceError, WorkerFailedError

from .board import POISONED_MAX, Board, Place
from .handling import CRASHES_MAX
from .member import Member

STOP_WITHIN_S: Final = 30.0
"""Who has not drained by then is killed, unless the application says otherwise."""
_WAIT_S_MAX: Final = 3_600.0
"""epoll takes no more than 24 days at once."""
_TOTALS: Final = ("records", "errors", "retries", "dead_letters", "records_per_s", "lag", "restarts")
_log = logging.getLogger(__name__)


class Keeper:
    """Starts workers, hears from them, starts again what died, and ends all.

    `spec_fd` stays the caller's: the keeper has a copy, since it may outlive who made it, and a number that
    was closed is soon another file's. `ends`: offsets by topic and partition; when all are committed, it ends
    by itself. None: never. `stdout`: what workers print goes there, None: where it goes here.
    """

    _fds: tuple[int, ...] = ()
    """To give back."""

    def __init__(
        self,
        spec_fd: int,
        processes: int,
        ends: dict[tuple[str, int], int] | None,
        stdout: int | None,
    ) -> None:
        self.owner: Final = os.getpid()
        self._spec_fd = os.dup(spec_fd)
        self._members = [Member(index) for index in range(processes)]
        self._left = ends
        self._stdout = stdout
        self._board = Board.create(processes)
        self._parent = ParentPipe()
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe()
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self.over_reader, self._over_writer = os.pipe()
        """Readable at the end."""
        self._fds = (
            self._spec_fd, self._wake_reader, self._wake_writer, self.over_reader, self._over_writer,
        )  # fmt: skip
        self._stop_within_s: list[float] = []
        self._stop_by: float | None = None
        self.killed = False
        """Were there workers that did not end in time?"""
        self._was_ready = False
        self._crashes: Counter[Place] = Counter()
        self._poisoned: set[Place] = set()
        self.failure: TailraceError | None = None
        """Why it has ended, if not by itself."""
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pool", daemon=True)

    # ------------------------------------------------------------ any thread

    def start(self) -> None:
        """Once."""
        self._thread.start()

    def stop(self, within_s: float) -> None:
        """Ask all to end; who has not after so many seconds is killed. May be repeated."""
        self._stop_within_s.append(within_s)
        os.write(self._wake_writer, b"!")

    def join(self) -> None:
        """Wait for the end, and give everything back."""
        self._thread.join()
        self._release()

    def __del__(self) -> None:
        """Nobody has waited for the end: the thread, which refers to the keeper, has come to it."""
        if self.is_ours():
            self._release()

    def is_ours(self) -> bool:
        """Is this the process that has the thread, and no fork of it?"""
        return os.getpid() == self.owner

    def _release(self) -> None:
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)

    def metrics(self) -> dict[str, Any]:
        """Totals, and each worker."""
        workers = [member.fields() for member in self._members]
        return {**{name: sum(worker[name] for worker in workers) for name in _TOTALS}, "workers": workers}

    # ---------------------------------------------------------- its own thread

    def _run(self) -> None:
        try:
            self._keep()
        except BaseException as error:  # noqa: BLE001 - whatever it is, who waits must hear of it
            _log.exception("the pool failed")
            self.failure = WorkerFailedError(f"the pool failed: {error!r}")
            self.failure.__cause__ = error
        finally:
            for member in self._members:
                if member.process is not None:
                    member.kill()
                    member.ended()
            self._selector.close()
            self._parent.close()
            self._board.close()
            self.over.set()
            os.write(self._over_writer, b"!")

    def _keep(self) -> None:
        while not self._ended():
            now = monotonic()
            for member in self._members:
                if member.restart_at is not None and now >= member.restart_at:
                    self._start(member)
            for key, _ in self._selector.select(self._wait_s(now)):
                if key.data is None:
                    os.read(self._wake_reader, 4096)
                elif key.fd == key.data.exit_fd:
                    self._on_exit(key.data)
                elif key.data.process is not None:
                    self._on_news(key.data)
            while self._stop_within_s:
                self._begin_to_end(self._stop_within_s.pop(0))
            if self._stop_by is not None and not self.killed and monotonic() >= self._stop_by:
                self._kill()

    def _wait_s(self, now: float) -> float | None:
        due = [member.restart_at for member in self._members if member.restart_at is not None]
        if self._stop_by is not None and not self.killed:
            due.append(self._stop_by)
        return min(max(0.0, min(due) - now), _WAIT_S_MAX) if due else None

    def _ended(self) -> bool:
        return self._stop_by is not None and all(member.process is None for member in self._members)

    def _start(self, member: Member) -> None:
        member.start(self._spec_fd, self._board, self._parent, len(self._members), self._stdout)
        assert member.ear is not None
        self._selector.register(member.ear.fd, selectors.EVENT_READ, member)
        self._selector.register(member.exit_fd, selectors.EVENT_READ, member)

    def _on_news(self, member: Member) -> None:
        assert member.ear is not None
        if not member.listen(monotonic()) and member.ear.fd in self._selector.get_map():
            self._selector.unregister(member.ear.fd)
        self._was_ready = self._was_ready or member.ready
        if self._left is not None:
            for place, offset in member.reached.items():
                if offset >= self._left.get(place, offset + 1):
                    del self._left[place]
            if not self._left and self._stop_by is None:
                self._begin_to_end(STOP_WITHIN_S)
        member.reached.clear()

    def _on_exit(self, member: Member) -> None:
        self._on_news(member)
        assert member.ear is not None
        for fd in (member.ear.fd, member.exit_fd):
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        code = member.ended()
        in_hand = self._board.in_hand(member.index)
        self._board.put_down(member.index)
        said = member.failure
        reason = describe_exit(code) if said is None else said["message"]
        if said is not None and not said["retriable"]:
            self._fail(reason)
        elif self._stop_by is not None:
            if code and not (code == -signal.SIGTERM and not member.ready):
                self._ended_badly(member, reason)
        elif not self._was_ready and code != -signal.SIGKILL:
            # It would be so again. But who is killed is so by somebody, or for want of memory.
            self._fail(f"a worker could not start: {reason}")
        else:
            self._restart(member, reason, in_hand if said is None else None)

    def _ended_badly(self, member: Member, reason: str) -> None:
        what = f"worker {member.index} did not end cleanly: {reason}"
        if self.killed or self._left == {}:  # as was asked for, or nothing was left to commit
            _log.warning(what)
        else:
            self._fail(f"{what}; what it has not committed is handled again")

    def _restart(self, member: Member, reason: str, in_hand: Place | None) -> None:
        pause_s = member.restarts.died(monotonic())
        member.restart_at = monotonic() + pause_s
        what = "" if in_hand is None else f" with {in_hand} in hand"
        _log.warning(
            "worker %d died%s (%s), it is started again in %.1f s", member.index, what, reason, pause_s
        )
        if in_hand is None:
            return
        self._crashes[in_hand] += 1
        if self._crashes[in_hand] == CRASHES_MAX:
            if len(self._poisoned) == POISONED_MAX:
                self._fail(f"{POISONED_MAX} records killed {CRASHES_MAX} workers each, the last {in_hand}")
                return
            self._poisoned.add(in_hand)
            self._board.poison(self._poisoned)

    def _fail(self, reason: str) -> None:
        if self.failure is None:
            self.failure = WorkerFailedError(reason)
        self._begin_to_end(STOP_WITHIN_S)

    def _begin_to_end(self, within_s: float) -> None:
        by = monotonic() + within_s
        self._stop_by = by if self._stop_by is None else min(by, self._stop_by)
        for member in self._members:
            member.drain()

    def _kill(self) -> None:
        for member in self._members:
            if member.process is not None:
                _log.warning("worker %d did not end in time and is killed", member.index)
                member.kill()
        self.killed = True
