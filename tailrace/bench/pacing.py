"""Which records are due when. Pure: time is an argument, in nanoseconds of one clock."""

from typing import Final, NamedTuple

GRACE_NS: Final = 1_000_000_000
"""Who is behind schedule when the time is over catches up for so long, and no longer."""
STEPS_PER_S: Final = 200
"""A rate is kept in so many steps a second, if a record of each is not enough."""
STEPS_PER_S_ONE_BY_ONE: Final = 1_000


class Step(NamedTuple):
    """The next `records`. `due_ns` is when they are to be sent: the schedule, not the clock, so that a
    pause of the sender counts as latency of all that was to be sent in it."""

    first: int
    records: int
    due_ns: int


class Pacer:
    """Steps of at most `step` records: all at once, or `rate` a second from `start_ns` on (an open loop).

    Ends after `records`, or `duration_s` after the start. Who takes turns with others has the first of a rate
    `turn_ns` later, and the same end.
    """

    def __init__(
        self,
        start_ns: int,
        *,
        step: int,
        steps_per_s: int = STEPS_PER_S,
        rate: float | None = None,
        records: int | None = None,
        duration_s: float | None = None,
        turn_ns: int = 0,
    ) -> None:
        self._first_ns = start_ns + turn_ns
        self._rate = rate
        self._step = step if rate is None else max(1, min(step, int(rate / steps_per_s)))
        self._records = records
        self._until_ns = None if duration_s is None else start_ns + round(duration_s * 1e9)
        self._next = 0

    def step(self, now_ns: int) -> Step | None:
        """What is to be sent next; None at the end. A step that is not due yet is to be waited for."""
        count = self._step
        if self._records is not None:
            count = min(count, self._records - self._next)
        due_ns = now_ns
        if self._rate is not None:
            due_ns = self._first_ns + round(self._next * 1e9 / self._rate)
        if count <= 0 or self._is_over(due_ns, now_ns):
            return None
        first, self._next = self._next, self._next + count
        return Step(first, count, due_ns)

    def _is_over(self, due_ns: int, now_ns: int) -> bool:
        return self._until_ns is not None and (
            due_ns >= self._until_ns or now_ns >= self._until_ns + GRACE_NS
        )
