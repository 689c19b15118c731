"""Find offsets by time, or the ends of partitions, with the leaders of many partitions at once."""

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from random import Random
from time import monotonic

from tailrace.protocol.cluster import NO_LEADER, PartitionInfo
from tailrace.protocol.errors import (
    LeaderNotAvailableError,
    TailraceError,
    UnknownPartitionError,
    error_from,
)
from tailrace.protocol.limits import PARTITIONS_PER_REQUEST_MAX
from tailrace.protocol.messages import ListOffsets, OffsetQuery, OffsetResult, OffsetsListed
from tailrace.protocol.record import TopicPartition

from .descriptions import OffsetAndTimestamp
from .engine import Answer, Engine
from .leaderless import names_of, without_leader
from .retry import Backoff, may_pass

_Queries = dict[TopicPartition, OffsetQuery]


def list_offsets(
    engine: Engine, timestamps: Mapping[TopicPartition, int], timeout_s: float
) -> dict[TopicPartition, OffsetAndTimestamp]:
    """The first offset at or after each timestamp, or the end named by EARLIEST or LATEST.

    Asks the leaders, follows them when they change, and returns when all have answered. -1, -1
    stands for no such record. Raises UnknownTopicError, UnknownPartitionError, or the last error of
    the partition that kept failing until `timeout_s` was over.
    """
    deadline = monotonic() + timeout_s
    backoff = Backoff(Random())
    found: dict[TopicPartition, OffsetAndTimestamp] = {}
    while True:
        missing = {place: timestamp for place, timestamp in timestamps.items() if place not in found}
        error = _ask_leaders(engine, missing, found, deadline)
        if len(found) == len(timestamps):
            return {place: found[place] for place in timestamps}
        pause_s = backoff.pause()
        if error is not None and monotonic() + pause_s >= deadline:
            raise error
        engine.request_refresh()
        engine.pause(pause_s)


def _ask_leaders(
    engine: Engine,
    missing: Mapping[TopicPartition, int],
    found: dict[TopicPartition, OffsetAndTimestamp],
    deadline: float,
) -> TailraceError | None:
    """One round: adds to `found`, returns one of the errors that a next round may be without."""
    by_leader: dict[int, _Queries] = defaultdict(dict)
    leaderless: dict[TopicPartition, PartitionInfo] = {}
    for place, timestamp in missing.items():
        partition, query = _query(engine, place, timestamp, deadline)
        if partition.leader == NO_LEADER:
            leaderless[place] = partition
        else:
            by_leader[partition.leader][place] = query
    error: TailraceError | None = LeaderNotAvailableError(without_leader(leaderless)) if leaderless else None
    waiting: list[tuple[_Queries, Answer]] = []
    timeout_s = max(0.0, min(deadline - monotonic(), engine.request_timeout_s))
    for leader, queries in by_leader.items():
        for part in _parts(queries):
            request = partial(ListOffsets, queries=list(part.values()))
            waiting.append((part, engine.ask(leader, request, timeout_s=timeout_s)))
    for queries, answer in waiting:
        error = _take(queries, answer, timeout_s, found) or error
    return error


def _query(
    engine: Engine, place: TopicPartition, timestamp: int, deadline: float
) -> tuple[PartitionInfo, OffsetQuery]:
    topic = engine.wait_for_topic(place.topic, max(0.0, deadline - monotonic()))
    if not 0 <= place.partition < len(topic.partitions):
        raise UnknownPartitionError(
            f"topic {place.topic!r} has {len(topic.partitions)} partitions, so there is no {place.partition}"
        )
    partition = topic.partitions[place.partition]
    return partition, OffsetQuery(topic.topic_id, place.partition, partition.leader_epoch, timestamp)


def _take(
    queries: _Queries, answer: Answer, timeout_s: float, found: dict[TopicPartition, OffsetAndTimestamp]
) -> TailraceError | None:
    outcome = answer.attempt(timeout_s)
    if isinstance(outcome, TailraceError):
        return outcome
    reply, _ = outcome
    results = reply.results if isinstance(reply, OffsetsListed) else []
    if len(results) != len(queries):
        raise TailraceError(f"{names_of(queries)}: asked {len(queries)} offsets, got {reply!r:.200}")
    failed: TailraceError | None = None
    for place, result in zip(queries, results, strict=True):
        problem = _error_of(place, result)
        if problem is None:
            found[place] = OffsetAndTimestamp(result.offset, result.timestamp)
        elif may_pass(problem):
            failed = problem
        else:
            raise problem
    return failed


def _error_of(place: TopicPartition, result: OffsetResult) -> TailraceError | None:
    if result.error.code == 0:
        return None
    return error_from(result.error.code, f"{place.topic}-{place.partition}: {result.error.message}")


def _parts(queries: _Queries) -> list[_Queries]:
    """No more in one request than a node takes."""
    items = list(queries.items())
    starts = range(0, len(items), PARTITIONS_PER_REQUEST_MAX)
    return [dict(items[start : start + PARTITIONS_PER_REQUEST_MAX]) for start in starts]
