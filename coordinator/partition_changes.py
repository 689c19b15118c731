"""Changes of many partitions at once, and what is said of those that may have lost records."""

from collections.abc import Callable, Iterable, Sequence, Set

from tailrace.protocol.cluster import PartitionChanged, PartitionInfo

from .election import Rules, is_unclean, rules_of
from .state import State

NAMED_MAX = 10
Places = Iterable[tuple[bytes, Iterable[int]]]
"""Partitions, topic by topic."""


def changed(
    state: State,
    places: Places,
    decide: Callable[[PartitionInfo, Rules], PartitionInfo],
    *,
    alive: Set[int] | None = None,
    draining: Set[int] | None = None,
) -> list[PartitionChanged]:
    """What `decide` makes of each, with the rules of its topic, where that is another one than before."""
    alive = state.alive() if alive is None else alive
    draining = state.draining() if draining is None else draining
    changes = []
    for topic_id, indexes in places:
        topic = state.cluster.topics[topic_id]
        rules = rules_of(topic.config, alive, draining)
        for index in indexes:
            before = topic.partitions[index]
            after = decide(before, rules)
            if after is not before:
                changes.append(PartitionChanged(topic_id, index, after))
    return changes


def unclean(
    state: State, changes: Iterable[PartitionChanged], lacking: Set[int] = frozenset()
) -> list[PartitionChanged]:
    """Those of the changes that elect a replica which may lack records; `lacking`: nodes of which all may."""
    return [
        change
        for change in changes
        if is_unclean(
            state.cluster.topics[change.topic_id].partitions[change.index], change.partition, lacking
        )
    ]


def unclean_warnings(state: State, elected: Sequence[PartitionChanged]) -> tuple[str, ...]:
    """A possible loss is never silent."""
    if not elected:
        return ()
    names = [
        f"{partition_name(state, change.topic_id, change.index)} by node {change.partition.leader}"
        for change in elected
    ]
    return (
        f"unclean election, since no replica that was in sync is alive: records may be lost in {len(names)} "
        f"{'partition' if len(names) == 1 else 'partitions'}, now led: {named(names)}",
    )


def partition_name(state: State, topic_id: bytes, index: int) -> str:
    """As it stands in messages."""
    return f"{state.cluster.topics[topic_id].name}-{index}"


def named(names: Sequence[str]) -> str:
    """Some of them."""
    return ", ".join(names[:NAMED_MAX]) + (", ..." if len(names) > NAMED_MAX else "")
