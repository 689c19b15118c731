"""How much of what a follower has missed goes into one commit. Pure.

What it follows in step waits for the commit that is being written, and so does whoever waits for acks=all.
Small commits keep that short. But where each takes long, whatever is in it, as on a slow disk, a follower
that made small ones would never catch up. So the measure is what commits without old records take: one with
some of them may take LONGER times that.
"""

from math import inf
from typing import Final

from tailrace.protocol.limits import COPY_COMMIT_BYTES_MIN, REPLICA_FETCH_BYTES_MAX, SMALL_COPY_BYTES_MAX

LONGER: Final = 3
FORGET: Final = 1.02
"""By this much a commit may be slower than the quickest before it to count as the quickest of late."""


class Pace:
    """`size`: after so many bytes a commit is large enough."""

    def __init__(self) -> None:
        self.size = COPY_COMMIT_BYTES_MIN
        self._quick_s = inf

    def committed(self, largest: int, seconds: float) -> None:
        """A commit is through, whose largest step had so many bytes."""
        if largest <= SMALL_COPY_BYTES_MAX:
            self._quick_s = min(seconds, self._quick_s * FORGET)
        elif seconds > self._quick_s * LONGER:
            self.size = max(COPY_COMMIT_BYTES_MIN, self.size // 2)
        else:
            self.size = min(REPLICA_FETCH_BYTES_MAX, self.size + self.size // 8)
