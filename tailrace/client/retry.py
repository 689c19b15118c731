"""How long to wait before the next attempt."""

from random import Random
from typing import Final

from tailrace.protocol.errors import TailraceError, UnknownPartitionError, UnknownTopicError
from tailrace.protocol.limits import RETRY_BACKOFF_MS_FIRST, RETRY_BACKOFF_MS_MAX

_NODE_LAGS_BEHIND: Final = (UnknownTopicError, UnknownPartitionError)


def may_pass(refusal: TailraceError) -> bool:
    """May the same request to a node succeed later?

    Also where it does not know a partition that the coordinator tells of: it hears of it later.
    """
    return refusal.retriable or isinstance(refusal, _NODE_LAGS_BEHIND)


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
