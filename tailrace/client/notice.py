"""One warning for those whose call waits for a cluster that is away."""

import logging
import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Final

TOLD_AFTER_S: Final = 1.0
"""Who waits for longer wants to know what for."""

_log = logging.getLogger(__name__)
_telling = threading.local()
"""A handler of logs may write them to the cluster, and so wait for it: that is not told again."""


class Notice:
    """Belongs to one wait, perhaps of many steps: says once what it is for, and what stands in the way.

    `obstacle` tells that, "" if nothing does: then nothing is said. It may take a second for each address
    that it tries, so that no wait gets a notice that would be over soon by itself, with an error.
    """

    def __init__(self, wait: str, timeout_s: float, obstacle: Callable[[], str], hint: str = "") -> None:
        self._wait = wait
        self._timeout_s = timeout_s
        self._obstacle = obstacle
        self._hint = hint
        self._due = monotonic() + TOLD_AFTER_S if timeout_s > 2 * TOLD_AFTER_S else inf

    def look(self) -> None:
        """Nothing has come so far: say so if it is time. Holds no lock of the client's, since logging may."""
        if monotonic() < self._due or getattr(_telling, "on", False):
            return
        due, self._due = self._due, inf  # other threads may share the wait
        obstacle = self._obstacle()
        if not obstacle:
            self._due = due
            return
        _telling.on = True
        try:
            _log.warning("%s: %s; trying for %g s%s", self._wait, obstacle, self._timeout_s, self._hint)
        finally:
            _telling.on = False
