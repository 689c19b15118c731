"""The reader thread: reads that may wait for the disk, so that the network thread never does."""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tailrace.protocol.errors import ShuttingDownError, TailraceError
from tailrace.protocol.limits import READS_QUEUED_MAX
from tailrace.protocol.messages import Reply
from tailrace.protocol.wire import failure
from tailrace.transport.server import Buffer

from .mailbox import Mailbox
from .work import Letter, ReadDone

logger: Final = logging.getLogger(__name__)

Work = Callable[[], tuple[Reply, Sequence[Buffer]]]
"""Reads, and gives the reply and its payload frames. Raises TailraceError."""


class _Job(NamedTuple):
    peer: bytes
    request_id: int
    work: Work


class Reader:
    """Works off one job after the other. Replies go to the mailbox."""

    def __init__(self, mailbox: Mailbox[Letter]) -> None:
        self._mailbox = mailbox
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, peer: bytes, request_id: int, work: Work) -> bool:
        """Network thread: queue a job; False when too many wait."""
        if self._queue.qsize() >= READS_QUEUED_MAX:
            return False
        self._queue.put(_Job(peer, request_id, work))
        return True

    def stop(self) -> None:
        """Finish the job at hand, refuse those that wait, end the thread."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self.step():
            pass

    @property
    def waits(self) -> bool:
        """Is there something to do?"""
        return not self._queue.empty()

    def step(self) -> bool:
        """One job, when there is one; False once the reader has ended."""
        job = self._queue.get()
        if job is None:
            return False
        reply, frames = self._read(job)
        self._mailbox.post(ReadDone(job.peer, reply, frames))
        return True

    def _read(self, job: _Job) -> tuple[Reply, Sequence[Buffer]]:
        try:
            if self._stopping:
                raise ShuttingDownError("this node is stopping")
            return job.work()
        except TailraceError as error:
            return failure(job.request_id, error), []
        except Exception as error:  # the thread's edge: this request fails, the node lives on
            logger.exception("a read failed")
            return failure(job.request_id, TailraceError(f"internal error: {error!r}")), []
