"""Partitions as they travel, and as keys."""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from .group_messages import TopicPartitions

Key: TypeAlias = tuple[bytes, int]
"""Topic id and partition."""


def keys_of(topics: Iterable[TopicPartitions]) -> Iterator[Key]:
    """Topic id and partition, one by one."""
    for topic in topics:
        for partition in topic.partitions:
            yield topic.topic_id, partition


def partition_set(keys: Iterable[Key]) -> tuple[TopicPartitions, ...]:
    """Keys by topic, in order."""
    topics: dict[bytes, list[int]] = {}
    for topic_id, partition in sorted(keys):
        topics.setdefault(topic_id, []).append(partition)
    return tuple(TopicPartitions(topic_id, tuple(partitions)) for topic_id, partitions in topics.items())
