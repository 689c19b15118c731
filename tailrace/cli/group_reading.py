"""`tailrace consume -g`: print as a member of a group, and commit what was printed."""

import sys
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from tailrace.consumer.listener import RebalanceListener
from tailrace.protocol.record import TopicPartition

from .record_format import BatchFormat

if TYPE_CHECKING:
    from tailrace.consumer.consumer import Consumer

COMMIT_INTERVAL_S: Final = 1.0


class _Printed(RebalanceListener):
    """How far each partition was printed: committed in time, and before another member gets it."""

    def __init__(self, consumer: "Consumer") -> None:
        self._consumer = consumer
        self._offsets: dict[TopicPartition, int] = {}
        self._due_at = time.monotonic() + COMMIT_INTERVAL_S

    def note(self, place: TopicPartition, offset: int) -> None:
        """Everything before `offset` is out."""
        self._offsets[place] = offset
        if time.monotonic() >= self._due_at:
            self.commit()

    def commit(self) -> None:
        """Durable on return."""
        self._due_at = time.monotonic() + COMMIT_INTERVAL_S
        offsets, self._offsets = self._offsets, {}
        if offsets:
            self._consumer.commit(offsets)

    def on_revoked(self, partitions: Collection[TopicPartition]) -> None:
        """They go to another member, which goes on after what was printed."""
        self.commit()

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        """They are another's already, which prints again what was not committed."""
        for place in partitions:
            self._offsets.pop(place, None)


def print_as_member(
    consumer: "Consumer",
    topics: Sequence[str],
    *,
    pattern: str | None,
    count: int | None,
    printer: BatchFormat,
) -> None:
    """Print records of the topics, or of those that match `pattern`, until `count` are out.

    The consumer is one without auto-commit, since a batch may be printed in part.
    """
    out = sys.stdout.buffer
    printed = _Printed(consumer)
    if pattern is None:
        consumer.subscribe(topics, listener=printed)
    else:
        consumer.subscribe(pattern=pattern, listener=printed)
    left = count
    try:
        for batch in consumer.batches() if left != 0 else ():
            wanted = len(batch) if left is None else min(left, len(batch))
            out.write(printer(batch, wanted))
            out.flush()
            printed.note(TopicPartition(batch.topic, batch.partition), int(batch.offsets[wanted - 1]) + 1)
            left = None if left is None else left - wanted
            if left == 0:
                break
    except KeyboardInterrupt:
        printed.commit()
        raise
    printed.commit()
