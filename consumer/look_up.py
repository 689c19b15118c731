"""Where the logs of newly assigned partitions lie, as far as there are leaders to ask."""

import logging
from collections.abc import Sequence, Set
from time import monotonic
from typing import Final

from tailrace.client.engine import Engine
from tailrace.client.leaderless import without_leader
from tailrace.client.offsets import list_offsets
from tailrace.protocol.cluster import NO_LEADER, PartitionInfo
from tailrace.protocol.errors import TailraceError
from tailrace.protocol.messages import EARLIEST, LATEST
from tailrace.protocol.record import TopicPartition

from .failures import unknown_end
from .start import LogRange

_FIRST_TRY_S: Final = 1.0
"""How long leaders are asked before it is looked again who has none; twice as long each time."""

_log = logging.getLogger(__name__)


def log_ranges(
    engine: Engine, names: Sequence[TopicPartition], needed: Set[TopicPartition], deadline: float
) -> dict[TopicPartition, LogRange]:
    """The ranges of all partitions that have a leader, and of all that are `needed`.

    Waits for the leaders of `needed` until `deadline` (monotonic seconds), for others only while the
    cluster holds them to be alive. Warns once of what is left out or waited for. Raises
    LeaderNotAvailableError for a needed one, or what the look-up raises.
    """
    warned = False
    try_s = _FIRST_TRY_S
    while True:
        leaderless = _leaderless(engine, names)
        if leaderless and not warned:
            warned = True
            waits = (
                "waiting for that"
                if needed & leaderless.keys()
                else "the other partitions are read meanwhile"
            )
            _log.warning("%s; %s", without_leader(leaderless), waits)
        asked = [name for name in names if name in needed or name not in leaderless]
        until = min(deadline, monotonic() + try_s)
        try:
            return _ask(engine, asked, until)
        except TailraceError as error:
            if not error.retriable:
                raise
            if until == deadline:
                awaited = {name: info for name, info in leaderless.items() if name in needed}
                if awaited:
                    raise unknown_end(without_leader(awaited)) from error
                raise
        try_s *= 2


def _leaderless(engine: Engine, names: Sequence[TopicPartition]) -> dict[TopicPartition, PartitionInfo]:
    state = engine.view()
    topics = {topic: state.topic(topic) for topic in {name.topic for name in names}}
    return {
        name: info.partitions[name.partition]
        for name in names
        if (info := topics[name.topic]) is not None
        and name.partition < len(info.partitions)
        and info.partitions[name.partition].leader == NO_LEADER
    }


def _ask(engine: Engine, names: Sequence[TopicPartition], deadline: float) -> dict[TopicPartition, LogRange]:
    if not names:
        return {}
    starts, ends = (
        list_offsets(engine, dict.fromkeys(names, which), max(0.0, deadline - monotonic()))
        for which in (EARLIEST, LATEST)
    )
    return {name: LogRange(starts[name].offset, ends[name].offset) for name in names}
