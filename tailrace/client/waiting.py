"""Waits that Ctrl-C ends, whenever it comes."""

from collections.abc import Callable
from time import monotonic
from typing import Final

SIGNALS_HEARD_WITHIN_S: Final = 0.5
_NOT_HELD: Final = ("release unlocked lock", "cannot release un-acquired lock")


def wait_in_steps(
    wait: Callable[[float], bool], timeout_s: float | None, look: Callable[[], None] | None = None
) -> bool:
    """`wait(seconds)`, of an event, a condition or a lock, until it is True; False if `timeout_s` was over.

    A signal ends a wait only if it goes to the very thread that waits, and after that has begun to. Its
    handler runs when the wait is over otherwise: so none lasts longer than SIGNALS_HEARD_WITHIN_S. `look` is
    called before each of them (`Notice.look`).
    """
    until = None if timeout_s is None else monotonic() + timeout_s
    while timeout_s is None or timeout_s > SIGNALS_HEARD_WITHIN_S:
        if look is not None:
            look()
        if _wait(wait, SIGNALS_HEARD_WITHIN_S):
            return True
        timeout_s = None if until is None else until - monotonic()
    return _wait(wait, max(0.0, timeout_s))


def _wait(wait: Callable[[float], bool], seconds: float) -> bool:
    """What comes just as an event has let go of its lock ends in an error of that; the caller gets itself."""
    try:
        return wait(seconds)
    except RuntimeError as error:
        if str(error) in _NOT_HELD and error.__context__ is not None:
            raise error.__context__ from None
        raise
