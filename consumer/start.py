"""Where the reading of a partition starts. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from tailrace.protocol.errors import OffsetOutOfRangeError
from tailrace.protocol.record import TopicPartition

from .assigned import Reset
from .failures import no_offset, no_offset_yet, out_of_range
from .stored_offset import StoredOffset


class LogRange(NamedTuple):
    """What a partition holds: from the log start offset up to, and without, the high watermark."""

    start: int
    end: int


class Leaderless(NamedTuple):
    """Nobody leads the partition, so nobody can be asked about its log; the epoch of its last leader."""

    leader_epoch: int


def start_offset(
    name: TopicPartition, stored: StoredOffset | None, log: LogRange, reset: Reset
) -> int | OffsetOutOfRangeError:
    """The stored offset if the log has it, else what `reset` says; the error for "none"."""
    if stored is not None and log.start <= stored.offset <= log.end:
        return stored.offset
    if reset == "none":
        if stored is None:
            return no_offset(name, *log)
        return out_of_range(name, stored.offset, *log)
    return log.start if reset == "earliest" else log.end


def unseen_start(
    name: TopicPartition, stored: StoredOffset | None, log: Leaderless, reset: Reset
) -> int | OffsetOutOfRangeError | Leaderless:
    """Where to start in a log that nobody can be asked about; `log` itself: where its leader epoch ended.

    An offset that the log turns out not to hold is dealt with at the first fetch. The end at that time is
    not where to start: records may have been appended since the application was told that it reads.
    Without a leader nothing is appended, so the end is where the last epoch ended.
    """
    if stored is not None:
        return stored.offset
    if reset == "none":
        return no_offset_yet(name)
    return 0 if reset == "earliest" else log


def new_partitions(
    stored: Mapping[TopicPartition, StoredOffset | None], counts: Mapping[str, int]
) -> set[TopicPartition]:
    """Those that their topic did not have when the offsets of its others were stored: nobody has read them.

    `counts` are the most partitions that the offsets of others tell of, by topic.

    They are read from their beginning, whatever `auto_offset_reset` says.
    """
    known = dict(counts)
    for name, offset in stored.items():
        if offset is not None:
            known[name.topic] = max(offset.partition_count, known.get(name.topic, 0))
    return {
        name
        for name, offset in stored.items()
        if offset is None and name.topic in known and name.partition >= known[name.topic]
    }
