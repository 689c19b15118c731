"""Waiting until what was sent is resolved, and what those are told by who wait long."""

from math import inf
from time import monotonic

from tailrace.client.engine import Engine
from tailrace.client.notice import TOLD_AFTER_S, Notice
from tailrace.protocol.errors import DeliveryFailedError
from tailrace.protocol.text import plural

from .accumulator import Accumulator


def flush(engine: Engine, accumulator: Accumulator, timeout_s: float | None) -> int:
    """Seal everything and wait until all of it is resolved; the number of batches that are not yet.

    When none was resolved for TOLD_AFTER_S there is a warning, with what stands in the way.
    """
    until = inf if timeout_s is None else monotonic() + timeout_s
    generation, left = accumulator.seal()
    what = f"{plural(left, 'batch')} to be stored"
    told = notice(engine, accumulator, what, until - monotonic(), otherwise="no answer so far")
    while left:
        before = left
        left = accumulator.wait_resolved(generation, min(until, monotonic() + TOLD_AFTER_S))
        if monotonic() >= until:
            break
        if left == before:
            told.look()
    return left


def raise_failures(accumulator: Accumulator, told: int) -> None:
    """Raise DeliveryFailedError if records failed since the ledger had `told` so much."""
    failures = accumulator.take_failures(told)
    if failures.records:
        what = f"{plural(failures.records, 'record')} not acknowledged; the first error: {failures.first}"
        raise DeliveryFailedError(what) from failures.first


def notice(
    engine: Engine, accumulator: Accumulator, what: str, timeout_s: float, *, otherwise: str = ""
) -> Notice:
    """For who waits for `what`, which comes by itself in `delivery_timeout_ms`, or fails.

    `otherwise` is said when nothing is known to stand in the way.
    """

    def obstacle() -> str:
        return engine.obstacle() or str(accumulator.obstacle() or otherwise)

    return engine.notice(what, min(timeout_s, accumulator.delivery_timeout_s), obstacle)
