"""Virtual time: what happens next, and what has happened. One `Random` decides everything."""

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from random import Random

TRACE_MAX = 100_000


class Violation(AssertionError):  # noqa: N818 (not an error of the simulation, but what it looks for)
    """Something that must always hold did not."""


class Schedule:
    """Events in the order of their times; those of one moment in the order in which they were planned."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 1_000.0
        self.steps = 0
        self.trace: deque[str] = deque(maxlen=TRACE_MAX)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(time, self.now), next(self._numbers), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.at(self.now + seconds, action)

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now - 1_000:9.4f}  {text}")

    def run_until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self.now, _, action = heapq.heappop(self._events)
            self.steps += 1
            action()
        self.now = end

    def between(self, least: float, most: float) -> float:
        return self.random.uniform(least, most)

    def happens(self, chance: float) -> bool:
        return chance > 0 and self.random.random() < chance

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self.now * 1000)


class Process:
    """Something that runs in steps, when it is woken or its time has come. A paused one is woken later."""

    def __init__(self, name: str, schedule: Schedule) -> None:
        self.name = name
        self.schedule = schedule
        self.alive = False
        self.paused = False
        self.run_number = 0
        self._step_at = float("inf")

    def begin(self) -> None:
        self.run_number += 1
        self.alive, self.paused = True, False
        self._step_at = float("inf")
        self.wake()

    def end(self) -> None:
        self.alive = False
        self.run_number += 1

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self._step_at = float("inf")
        self.wake()

    def wake(self, at: float | None = None) -> None:
        """Step at that time, or as soon as it is scheduled."""
        if not self.alive or self.paused:
            return
        at = self.schedule.now + 2e-5 if at is None else max(at, self.schedule.now + 1e-5)
        if at < self._step_at and at != float("inf"):
            self._step_at = at
            self.schedule.at(at, lambda run=self.run_number, at=at: self._due(run, at))

    def _due(self, run: int, at: float) -> None:
        if run != self.run_number or self.paused or at != self._step_at:
            return
        self._step_at = float("inf")
        self.step()

    def step(self) -> None:
        raise NotImplementedError
