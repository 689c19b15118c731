"""Signal handlers that may come into what a thread of the application's does in the I/O thread's place."""

import _signal  # type: ignore[import-not-found] # what `signal` is made of
import signal
from threading import get_ident, main_thread
from typing import Any, Final

SIGNALS: Final = sorted(map(int, signal.valid_signals()))
HARMLESS: Final[set[Any]] = {0, 1, None, signal.default_int_handler}
"""What is no handler (SIG_DFL, SIG_IGN, one that is not Python's), and that of Ctrl-C, which only raises."""


def may_call_back() -> bool:
    """Could a handler run in this thread that calls the very client which this is about?

    Such a call may wait for the I/O thread, as `close` does; that would wait for what this thread holds. One
    that raises ends what it comes into. (`signal.getsignal` takes 30 times as long: enumerations.)
    """
    return get_ident() == main_thread().ident and not HARMLESS.issuperset(map(_signal.getsignal, SIGNALS))
