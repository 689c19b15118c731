"""Partitions that nobody leads, in words: which nodes hold them, and what to do."""

from collections.abc import Collection, Mapping
from typing import Final

from tailrace.protocol.cluster import PartitionInfo
from tailrace.protocol.record import TopicPartition

_NAMES_SHOWN: Final = 3


def without_leader(partitions: Mapping[TopicPartition, PartitionInfo]) -> str:
    """Which have no leader, since which nodes are down, and that these are to be started."""
    nodes = sorted({node for partition in partitions.values() for node in partition.replicas})
    numbers = ", ".join(map(str, nodes))
    down = f"node {numbers} is down: start it" if len(nodes) == 1 else f"nodes {numbers} are down: start them"
    return f"{names_of(partitions)}: there is no live leader while {down}"


def names_of(partitions: Collection[TopicPartition]) -> str:
    """The first few of several partitions."""
    shown = ", ".join(f"{name.topic}-{name.partition}" for name in list(partitions)[:_NAMES_SHOWN])
    more = len(partitions) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
