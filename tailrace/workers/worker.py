"""A worker's process: a group member that hands what it reads to a handler.

    python -m tailrace.workers.worker SPEC_FD BOARD_FD VOICE_FD PARENT_FD INDEX WORKERS

It tells the pool "ready", then "progress" twice a second, and "failed" when it cannot go on. SIGTERM
drains: the item in hand is finished, what is done is committed, the group is left. So does the end of the
pool.
"""

import logging
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from time import monotonic
from typing import Any, Final

from tailrace.consumer.consumer import Consumer
from tailrace.consumer.listener import RebalanceListener
from tailrace.protocol.errors import (
    DeliveryFailedError,
    LeaderNotAvailableError,
    TailraceError,
    WorkerFailedError,
)
from tailrace.protocol.record import TopicPartition

from .board import Board
from .handling import Attempts, HandlerFailedError, Handling, StoppedError
from .items import Group, Item, by_batch, by_poll, one_by_one
from .letters import Letters
from .progress import EVERY_S, Counters, Voice
from .spec import Spec, unpack

IDLE_MS: Final = 100
"""Without a record for so long a worker looks at what else there is to do."""
ORPHANED_DRAIN_S: Final = 10.0
"""When the pool is gone the worker drains for so long, then ends all the same."""

_log = logging.getLogger(__name__)


class Worker(RebalanceListener):
    """Reads, handles, commits. All in the main thread."""

    def __init__(self, spec: Spec, board: Board, voice: Voice, index: int) -> None:
        self._spec = spec
        self._index = index
        self._decoding = spec.decoding()
        self._voice = voice
        self._counters = Counters()
        self._letters = Letters(spec)
        self._handling = Handling(
            spec, board, index, letters=self._letters, counters=self._counters, pause=self._pause
        )
        self._stop_reader, self._stop_writer = os.pipe()
        self._stopping = False
        self._consumer: Consumer | None = None
        self._done: dict[TopicPartition, int] = {}
        """Where each partition is to go on, not committed yet."""
        self._committing = False
        self._answers: deque[tuple[dict[TopicPartition, int], TailraceError | None]] = deque()
        """Of commits, from the I/O thread."""
        self._reached: dict[TopicPartition, int] = {}
        self._told: dict[TopicPartition, int] = {}
        self._attempts: dict[TopicPartition, Attempts] = {}
        """Items whose transaction was taken back, and that are read again."""
        self._commit_at = self._tell_at = 0.0
        self._buried = 0

    def stop(self, *_: object) -> None:
        """A signal handler: end after the item in hand."""
        self._stopping = True
        os.write(self._stop_writer, b"!")
        if self._consumer is not None:
            self._consumer.wakeup()

    def run(self) -> None:
        """Until `stop`. Raises WorkerFailedError and what reading and writing raise."""
        spec = self._spec
        options: dict[str, Any] = {"client_id": f"worker-{self._index}-{os.getpid()}", **spec.consumer}
        if spec.dead_letter_topic is not None:
            options["on_error"] = f"dlq:{spec.dead_letter_topic}"
        with (
            closing(self._letters),
            Consumer(
                group_id=spec.group_id, enable_auto_commit=False, consumer_timeout_ms=IDLE_MS, **options
            ) as consumer,
        ):
            self._consumer = consumer
            consumer.subscribe(list(spec.topics), listener=self)
            self._voice.say("ready")
            try:
                self._read(consumer)
            finally:
                self._commit_now(consumer)
                self._tell(consumer, monotonic())

    # ---------------------------------------------------------------- listener

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """What is done is committed before others have it."""
        assert self._consumer is not None
        self._commit_now(self._consumer)
        self._forget(partitions)

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        """What is done and not committed is done again elsewhere."""
        self._forget(partitions)

    # ------------------------------------------------------------------ inside

    def _read(self, consumer: Consumer) -> None:
        try:
            while not self._is_stopping():
                for group in self._groups(consumer):
                    if self._spec.local_state:
                        self._work_in_transaction(consumer, group)
                    else:
                        self._work(group.items)
                    self._look_after(consumer, monotonic())
                    if self._is_stopping():
                        return
                self._note_positions(consumer)
                self._look_after(consumer, monotonic())
        except StoppedError:
            return

    def _is_stopping(self) -> bool:
        return self._stopping

    def _groups(self, consumer: Consumer) -> Iterator[Group]:
        if self._spec.batches:
            return by_batch(consumer, self._decoding, IDLE_MS)
        if self._spec.local_state:
            return by_poll(consumer, self._decoding, 1 if self._attempts else None, IDLE_MS)
        return one_by_one(consumer, self._decoding)

    def _work(self, items: list[Item]) -> None:
        for item in items:
            self._handling.work(item)
            self._done[item.partition] = item.next_offset

    def _work_in_transaction(self, consumer: Consumer, group: Group) -> None:
        before = self._attempts.get(group.partition)
        try:
            with consumer.local_transaction(group.partition) as state:
                for item in group.items:
                    again = before if before is not None and before.offset == item.offset else None
                    if again is not None and again.failed > self._spec.retries:
                        self._handling.give_up(item, again.reason)
                    else:
                        self._handling.attempt(item, (state,), again=again is not None)
                self._letters.flush()
        except HandlerFailedError as failure:
            self._failed(group.partition, failure, before)
            return
        self._counters.records += sum(item.records for item in group.items)
        last = group.items[-1].next_offset
        if before is not None and before.offset < last:
            del self._attempts[group.partition]
        self._reached[group.partition] = last

    def _failed(
        self, partition: TopicPartition, failure: HandlerFailedError, before: Attempts | None
    ) -> None:
        """The transaction was taken back: what was in it is read again, one by one up to what failed."""
        offset = failure.item.offset
        failed = before.failed + 1 if before is not None and before.offset == offset else 1
        self._attempts[partition] = Attempts(offset, failed, failure.reason)
        if failed > self._spec.retries:
            return
        backoff = self._handling.backoff()
        for _ in range(failed - 1):
            backoff.pause()
        self._handling.wait(backoff)

    def _pause(self, seconds: float) -> bool:
        return not (self._is_stopping() or select.select([self._stop_reader], [], [], seconds)[0])

    def _look_after(self, consumer: Consumer, now: float) -> None:
        if self._counters.dead_letters != self._buried:
            # A worker that dies soon is to bury as few again as possible.
            self._buried, self._commit_at = self._counters.dead_letters, now
        if now >= self._commit_at:
            self._commit_at = now + self._spec.commit_interval_ms / 1000
            self._commit_later(consumer)
        if now >= self._tell_at:
            self._tell(consumer, now)

    def _tell(self, consumer: Consumer, now: float) -> None:
        self._tell_at = now + EVERY_S
        try:
            partitions = consumer.metrics()["partitions"]
        except TailraceError:  # it has failed or was closed, and says why itself
            partitions = {}
        self._counters.lag = sum(each["lag"] or 0 for each in partitions.values())
        self._counters.partitions = len(partitions)
        news = {name: offset for name, offset in self._reached.items() if self._told.get(name) != offset}
        self._told |= news
        self._voice.progress(self._counters, [(*name, offset) for name, offset in news.items()])

    # ----------------------------------------------------------------- offsets

    def _note_positions(self, consumer: Consumer) -> None:
        """All that was read is done: so are the gaps behind it."""
        for name in consumer.assignment():
            try:
                position = consumer.position(name)
            except LeaderNotAvailableError:  # it is to be read from its end, which nobody can tell yet
                continue
            if self._spec.local_state:
                self._reached[name] = position
            elif self._reached.get(name) != position:
                self._done[name] = position

    def _commit_later(self, consumer: Consumer) -> None:
        """Begin to commit what is done, unless an earlier commit is still on its way."""
        while self._answers:
            offsets, error = self._answers.popleft()
            self._committing = False
            if error is None:
                self._reached |= offsets
                self._done = {name: at for name, at in self._done.items() if offsets.get(name) != at}
            else:
                _log.warning("offsets were not committed, the next commit covers them too: %s", error)
        if self._done and not self._committing:
            self._letters.flush()
            self._committing = True
            offsets = dict(self._done)
            consumer.commit_async(offsets, lambda error: self._answers.append((offsets, error)))

    def _commit_now(self, consumer: Consumer) -> None:
        """Commit what is done. What another member has by now is done again there."""
        self._letters.flush()
        if not self._done or self._spec.local_state:
            return
        offsets = dict(self._done)
        try:
            consumer.commit(offsets)
        except TailraceError as error:
            _log.warning("what was done last is not committed, so it is done again: %s", error)
        else:
            self._reached |= offsets
        self._done.clear()

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        for name in partitions:
            for table in (self._done, self._reached, self._told, self._attempts):
                table.pop(name, None)


def main(arguments: Sequence[str]) -> int:
    """Be a worker; the exit code."""
    spec_fd, board_fd, voice_fd, parent_fd, index, workers = map(int, arguments)
    logging.basicConfig(
        level=logging.WARNING, format=f"%(asctime)s worker-{index} %(levelname)s %(name)s: %(message)s"
    )
    voice = Voice(voice_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch_parent, args=(parent_fd,), daemon=True).start()
    try:
        spec = unpack(spec_fd)
    except Exception as error:  # noqa: BLE001 - whatever the handler's modules raise
        voice.say(
            "failed",
            retriable=False,
            message=f"the handler cannot be loaded: {type(error).__name__}: {error}",
        )
        return 1
    worker = Worker(spec, Board(board_fd, workers), voice, index)
    signal.signal(signal.SIGTERM, worker.stop)
    try:
        worker.run()
    except TailraceError as error:
        cause = error.__cause__ if isinstance(error, DeliveryFailedError) else error
        passing = isinstance(cause, TailraceError) and cause.retriable
        kind = "" if isinstance(error, WorkerFailedError) else f"{type(error).__name__}: "
        voice.say("failed", retriable=passing, message=f"{kind}{error}")
        return 1
    return 0


def _watch_parent(fd: int) -> None:
    """Drain when the pool is gone; what is not further than its handler's modules ends at once."""
    os.read(fd, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(ORPHANED_DRAIN_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
