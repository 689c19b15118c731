"""Waiting until what was sent is resolved, and a word when that takes long."""

from functools import partial
from math import inf
from time import monotonic

from tailrace.client.engine import Engine
from tailrace.client.notice import TOLD_AFTER_S
from tailrace.protocol.text import plural

from .accumulator import Accumulator


def flush(engine: Engine, accumulator: Accumulator, timeout_s: float | None) -> int:
    """Seal everything and wait until all of it is resolved; the number of batches that are not yet.

    When none was resolved for TOLD_AFTER_S there is a warning, with what stands in the way.
    """
    until = inf if timeout_s is None else monotonic() + timeout_s
    generation, left = accumulator.seal()
    notice = engine.notice(
        f"{plural(left, 'batch')} to be stored",
        min(accumulator.delivery_timeout_s, until - monotonic()),
        partial(_obstacle, engine, accumulator),
    )
    while left:
        before = left
        left = accumulator.wait_resolved(generation, min(until, monotonic() + TOLD_AFTER_S))
        if monotonic() >= until:
            break
        if left == before:
            notice.look()
    return left


def _obstacle(engine: Engine, accumulator: Accumulator) -> str:
    return engine.obstacle() or str(accumulator.obstacle() or "no answer so far")
