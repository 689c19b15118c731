"""How the admin client asks the coordinator."""

from collections.abc import Callable
from time import monotonic

from tailrace.protocol.cluster import ClusterState
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.messages import Reply, Request

from .arguments import timeout_of
from .engine import COORDINATOR, Engine


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
        request: Callable[[int], Request],
        deadline: float,
        fatal: tuple[type[TailraceError], ...] = (),
    ) -> Reply:
        reply, _ = self._engine.call(COORDINATOR, request, timeout_s=left_s(deadline), fatal=fatal)
        return reply


def left_s(deadline: float) -> float:
    """Seconds until then, at least 0."""
    return max(0.0, deadline - monotonic())


def unexpected(reply: Reply) -> TailraceError:
    """A peer answers what was not asked."""
    return TailraceError(f"expected another reply than {reply!r:.200}")
