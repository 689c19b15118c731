"""How the admin client asks the coordinator."""

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from tailrace.protocol.cluster import ClusterState
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.messages import Reply, Request

from .arguments import timeout_of
from .engine import COORDINATOR, Engine

R = TypeVar("R")


class AdminCalls:
    """An engine, and calls with a deadline (monotonic seconds)."""

    _engine: Engine

    def _deadline(self, timeout_ms: int | None) -> float:
        timeout_s = timeout_of(timeout_ms)
        return monotonic() + (self._engine.request_timeout_s if timeout_s is None else timeout_s)

    def _refreshed(self, timeout_ms: int | None) -> ClusterState:
        return self._engine.refresh(left_s(self._deadline(timeout_ms)))

    def _call(
        self,
        expected: type[R],
        request: Callable[[int], Request],
        deadline: float,
        fatal: tuple[type[TailraceError], ...] = (),
    ) -> R:
        reply, _ = self._engine.call(COORDINATOR, request, timeout_s=left_s(deadline), fatal=fatal)
        return checked(expected, reply)

    def _remove(
        self,
        expected: type[R],
        request: Callable[[int], Request],
        deadline: float,
        missing: type[TailraceError],
        fatal: tuple[type[TailraceError], ...] = (),
    ) -> None:
        """As `_call`, but what is `missing` at a retry is removed: the reply that says so was lost."""
        attempts = 0

        def counted(request_id: int) -> Request:
            nonlocal attempts
            attempts += 1
            return request(request_id)

        try:
            self._call(expected, counted, deadline, fatal)
        except missing:
            if attempts == 1:
                raise


def left_s(deadline: float) -> float:
    """Seconds until then, at least 0."""
    return max(0.0, deadline - monotonic())


def checked(expected: type[R], reply: Reply) -> R:
    """The reply. Raises TailraceError if it answers what was not asked."""
    if not isinstance(reply, expected):
        raise TailraceError(f"expected another reply than {reply!r:.200}")
    return reply
