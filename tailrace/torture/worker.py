"""A client's process: it survives whatever is done to the cluster, and notes all that it sees.

python -m tailrace.torture.worker
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tailrace.bench.lines import Until, decode_command
from tailrace.protocol.errors import TailraceError

from .history import Writer
from .tasks import ClientTask


class Inbox:
    """What the parent has said. When there is no parent any more, the process ends."""

    def __init__(self) -> None:
        self._lines = _lines_of(sys.stdin.fileno())
        self.task = msgspec.json.decode(next(self._lines), type=ClientTask)
        self.until: dict[int, int] | None = None
        """A consumer's ends, by partition."""
        self.stopped = threading.Event()
        threading.Thread(target=self._listen, name="inbox", daemon=True).start()

    def _listen(self) -> None:
        for line in self._lines:
            command = decode_command(line)
            if isinstance(command, Until):
                self.until = command.ends
            else:
                self.stopped.set()
        os._exit(1)


def main() -> int:
    """Be a client; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inbox = Inbox()
    task = inbox.task
    try:
        with Writer(Path(task.file), task.start_ns) as history:
            if task.role == "producer":
                from .producing import produce

                produce(task, history, inbox.stopped)
            else:
                from .consuming import consume

                consume(task, history, lambda: inbox.until)
    except TailraceError as error:
        sys.stderr.write(f"{task.name}: {type(error).__name__}: {error}\n")
        return 1
    return 0


def _lines_of(fd: int) -> Iterator[bytes]:
    """Unbuffered: a buffer's lock, held by a thread that waits, is fatal when the interpreter ends."""
    rest = b""
    while chunk := os.read(fd, 64 * 1024):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


if __name__ == "__main__":
    sys.exit(main())
