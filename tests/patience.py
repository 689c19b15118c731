"""How long tests wait, on a machine that may have much else to do."""

import time
from collections.abc import Callable

PATIENCE_S = 60.0
"""For what takes well under a second on an idle machine."""
BUSY_S = 10.0
"""What a busy machine may add to a call. A bound on time leaves so much; what it tells apart takes longer."""


def wait_until(condition: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> None:
    """Look again and again; fails, saying `what` was waited for, when it takes too long."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        time.sleep(0.002)
