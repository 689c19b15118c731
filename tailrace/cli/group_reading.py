"""`tailrace consume -g`: print as a member of a group, and commit what was printed."""

import sys
import time
from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from tailrace.consumer.listener import RebalanceListener
from tailrace.protocol.record import TopicPartition

from .output import LOOK_AT_READER_MS, check_reader
from .record_format import BatchFormat

if TYPE_CHECKING:
    from tailrace.consumer.column_batch import ColumnBatch
    from tailrace.consumer.consumer import Consumer

COMMIT_INTERVAL_S: Final = 1.0
LOOK_AT_GOAL_MS: Final = 200
"""How often to look whether the other members are done."""


class _Printed(RebalanceListener):
    """How far each partition was printed: committed in time, and before another member gets it."""

    def __init__(self, consumer: "Consumer") -> None:
        self._consumer = consumer
        self._offsets: dict[TopicPartition, int] = {}
        self._due_at = time.monotonic() + COMMIT_INTERVAL_S

    def note(self, place: TopicPartition, offset: int) -> None:
        """Everything before `offset` is out."""
        self._offsets[place] = offset
        self.look()

    def look(self) -> None:
        """Commit, if it is time: also when nothing comes any more."""
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


class Goal:
    """What the group is to have read: the ends of all partitions as they were at the start."""

    def __init__(self, consumer: "Consumer", topics: Sequence[str], *, from_start: bool) -> None:
        places = [
            TopicPartition(topic, number)
            for topic in topics
            for number in consumer.partitions_for_topic(topic)
        ]
        starts, self._ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
        self._consumer = consumer
        self._left = {place for place in places if self._ends[place] > starts[place]}
        self._from_start = from_start

    def wanted(self, batch: "ColumnBatch") -> int:
        """How many records of a batch lie before the end."""
        return bisect_left(batch.offsets, self._end(batch))

    def is_near(self, batch: "ColumnBatch") -> bool:
        """Is the end of its partition reached with it?"""
        return int(batch.offsets[-1]) + 1 >= self._end(batch)

    def reached(self, printed: _Printed) -> bool:
        """Has this member printed its part, and have others committed theirs?"""
        ours = self._consumer.assignment()
        self._left -= {
            place for place in self._left & ours if self._consumer.position(place) >= self._ends[place]
        }
        if self._left & ours:
            return False
        printed.commit()
        self._left = {place for place in self._left if not self._is_committed(place)}
        return not self._left

    def _end(self, batch: "ColumnBatch") -> int:
        """0 for partitions that came later."""
        return self._ends.get(TopicPartition(batch.topic, batch.partition), 0)

    def _is_committed(self, place: TopicPartition) -> bool:
        offset = self._consumer.committed(place)
        # Where nothing is committed, a group that begins at the end has nothing to read.
        return offset >= self._ends[place] if offset is not None else not self._from_start


def print_as_member(
    consumer: "Consumer",
    topics: Sequence[str],
    *,
    pattern: str | None,
    count: int | None,
    goal: Goal | None = None,
    printer: BatchFormat,
) -> None:
    """Print records of the topics, or of those that match `pattern`, until `count` are out.

    With a goal: or until that is reached. The consumer is one without auto-commit, since a batch may be
    printed in part.
    """
    printed = _Printed(consumer)
    if pattern is None:
        consumer.subscribe(topics, listener=printed)
    else:
        consumer.subscribe(pattern=pattern, listener=printed)
    try:
        _print(consumer, printed, goal, count, printer)
    except KeyboardInterrupt:
        printed.commit()
        raise
    printed.commit()


def _print(
    consumer: "Consumer", printed: _Printed, goal: Goal | None, count: int | None, printer: BatchFormat
) -> None:
    out = sys.stdout.buffer
    left = count
    look_ms = LOOK_AT_READER_MS if goal is None else LOOK_AT_GOAL_MS
    while left != 0 and not (goal is not None and goal.reached(printed)):
        check_reader()
        printed.look()
        for batch in consumer.batches(timeout_ms=look_ms):
            wanted = len(batch) if goal is None else goal.wanted(batch)
            if left is not None:
                wanted = min(left, wanted)
                left -= wanted
            if wanted:
                out.write(printer(batch, wanted))
                out.flush()
                printed.note(TopicPartition(batch.topic, batch.partition), int(batch.offsets[wanted - 1]) + 1)
            if left == 0 or (goal is not None and goal.is_near(batch) and goal.reached(printed)):
                return
