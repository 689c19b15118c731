"""How long to wait before the next attempt."""

from random import Random

from tailrace.protocol.limits import RETRY_BACKOFF_MS_FIRST, RETRY_BACKOFF_MS_MAX


class Backoff:
    """Pauses in seconds that double from `first_s` to `longest_s`.

    Each is shortened by a random part of up to one half, so that many clients that lost the same
    node do not return to it in step.
    """

    def __init__(
        self,
        random: Random,
        *,
        first_s: float = RETRY_BACKOFF_MS_FIRST / 1000,
        longest_s: float = RETRY_BACKOFF_MS_MAX / 1000,
    ) -> None:
        self._random = random
        self._first_s = first_s
        self._longest_s = longest_s
        self._pause_s = first_s

    def pause(self) -> float:
        """The pause before the next attempt, in seconds."""
        pause_s = self._pause_s
        self._pause_s = min(pause_s * 2, self._longest_s)
        return pause_s * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """An attempt has succeeded: begin with the first pause again."""
        self._pause_s = self._first_s
