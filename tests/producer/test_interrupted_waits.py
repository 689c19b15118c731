"""What a signal handler raises in a wait for a delivery must not hold up the I/O thread."""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tailrace.producer.delivery import Outcome

from ..patience import BUSY_S


class HandlerError(Exception):
    """By the handler."""


def interrupted_at(step: int, action: Callable[[], object]) -> bool:
    """Call it, and raise at the beginning or end of its so many-th call; False if there are not so many."""
    left = step

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal left
        if event not in ("call", "c_return"):
            return  # handlers run at the beginning of functions, and after calls of C
        left -= 1
        if left == 0:
            sys.setprofile(None)
            raise HandlerError

    with suppress(HandlerError):
        sys.setprofile(profile)
        try:
            action()
        finally:
            sys.setprofile(None)
    return left <= 0


def test_who_was_interrupted_anywhere_in_a_wait_holds_up_nobody() -> None:
    step = 1
    while True:
        outcome = Outcome("t", 0)
        more = interrupted_at(step, lambda outcome=outcome: outcome.wait(0.001))  # type: ignore[misc]
        io_thread = threading.Thread(target=outcome.resolve, args=(5, None), daemon=True)
        io_thread.start()
        io_thread.join(BUSY_S)
        assert not io_thread.is_alive(), f"interrupted at step {step}"
        assert outcome.wait(0)
        if not more:
            break
        step += 1
    assert step > 10
