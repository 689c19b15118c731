"""Where the logs of newly assigned partitions lie, as far as there are leaders to ask."""

import logging
from collections.abc import Sequence
from time import monotonic
from typing import Final

from tailrace.client.engine import Engine
from tailrace.client.leaderless import without_leader
from tailrace.client.offsets import list_offsets
from tailrace.protocol.cluster import NO_LEADER, PartitionInfo
from tailrace.protocol.errors import LeaderNotAvailableError, TailraceError
from tailrace.protocol.messages import EARLIEST, LATEST
from tailrace.protocol.record import TopicPartition

from .failures import no_position_yet
from .start import Leaderless, LogRange

_FIRST_TRY_S: Final = 1.0
"""How long leaders are asked before it is looked again who has none; twice as long each time."""

_log = logging.getLogger(__name__)


def look_up(
    engine: Engine, names: Sequence[TopicPartition], deadline: float
) -> dict[TopicPartition, LogRange | Leaderless]:
    """The range of each partition that has a leader. The others are warned of once, and not waited for.

    Waits until `deadline` (monotonic seconds) for a leader that does not answer, while the cluster holds it
    to be alive. Raises what the look-up raises.
    """
    warned = False
    try_s = _FIRST_TRY_S
    while True:
        leaderless = _leaderless(engine, names)
        if leaderless and not warned:
            warned = True
            _log.warning("%s; the other partitions are read meanwhile", without_leader(leaderless))
        until = min(deadline, monotonic() + try_s)
        try:
            ranges = _ask(engine, [name for name in names if name not in leaderless], until)
        except TailraceError as error:
            if not error.retriable or until == deadline:
                raise
            try_s *= 2
        else:
            absent = {name: Leaderless(info.leader_epoch) for name, info in leaderless.items()}
            return {**ranges, **absent}


def no_end_yet(engine: Engine, name: TopicPartition) -> LeaderNotAvailableError:
    """Why a partition that is read from its end has no position."""
    leaderless = _leaderless(engine, [name])
    if leaderless:
        return no_position_yet(without_leader(leaderless))
    return no_position_yet(f"{name.topic}-{name.partition}: the leader that has come has not been heard yet")


def _leaderless(engine: Engine, names: Sequence[TopicPartition]) -> dict[TopicPartition, PartitionInfo]:
    state = engine.cluster
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
