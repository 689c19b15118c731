"""The arguments of `Consumer`'s methods, checked: InvalidArgumentError says what would fit."""

from collections.abc import Iterable
from typing import Final

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.limits import PARTITIONS_PER_TOPIC_MAX
from tailrace.protocol.record import TopicPartition

from .config import check_int, check_timeout

INT64_MAX: Final = 2**63 - 1


def topics_of(topics: object) -> list[str]:
    """One name or several, each once."""
    if not isinstance(topics, Iterable):
        raise InvalidArgumentError(f"{topics!r} is no topic: give a name, or a list of names")
    names = [topics] if isinstance(topics, str) else list(topics)
    for name in names:
        if not isinstance(name, str) or not name:
            raise InvalidArgumentError(f"{name!r} is no topic: give its name")
    return list(dict.fromkeys(names))


def partition_of(partition: object) -> TopicPartition:
    """A TopicPartition, or the pair of a topic and a number."""
    if isinstance(partition, tuple) and len(partition) == 2:
        topic, number = partition
        if isinstance(topic, str) and topic:
            return TopicPartition(topic, check_int("partition", number, 0, PARTITIONS_PER_TOPIC_MAX - 1))
    raise InvalidArgumentError(f"{partition!r} is no partition: give TopicPartition(topic, number)")


def partitions_of(partitions: object) -> list[TopicPartition]:
    """Several partitions, each once."""
    if isinstance(partitions, str | TopicPartition) or not isinstance(partitions, Iterable):
        raise InvalidArgumentError(
            f"{partitions!r} is no list of partitions: give [TopicPartition(topic, number), ...]"
        )
    return list(dict.fromkeys(map(partition_of, partitions)))


def offset_of(offset: int) -> int:
    """An offset: 0 or more."""
    try:
        return check_int("offset", offset, 0, INT64_MAX)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{error}; seek_to_beginning() and seek_to_end() find the ends") from None


def timestamp_of(timestamp: int) -> int:
    """Milliseconds since 1970."""
    return check_int("timestamp", timestamp, 0, INT64_MAX)


def timeout_of(timeout_ms: float | None) -> float | None:
    """Milliseconds in seconds; None stays None."""
    return None if timeout_ms is None else check_timeout("timeout_ms", timeout_ms)
