"""A client's process: a producer or a consumer under test.

    python -m tailrace.bench.worker

The parent speaks to it on stdin and hears it on stdout (`lines`).
"""

import contextlib
import signal
import sys
from pathlib import Path
from typing import Final

from tailrace.protocol.errors import TailraceError

from .inbox import Inbox, Voice
from .lines import Done, Failed
from .spec import Task

_TIMER_SLACK: Final = Path("/proc/self/timerslack_ns")
"""How late a sleep may end; 50,000 ns unless a process says otherwise."""


def main() -> int:
    """Be a client; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        _TIMER_SLACK.write_text("1")
    inbox, voice = Inbox(), Voice()
    try:
        voice.say(_measured(inbox.task, inbox, voice))
    except TailraceError as error:
        voice.say(Failed(f"{type(error).__name__}: {error}"))
        return 1
    return 0


def _measured(task: Task, inbox: Inbox, voice: Voice) -> Done:
    """Imports one side only: with many clients, starting them is what takes long."""
    if task.role == "producer":
        from .producing import Producing

        return Producing(task, inbox, voice).run()
    from .consuming import Consuming

    return Consuming(task, inbox, voice).run()


if __name__ == "__main__":
    sys.exit(main())
