"""The arguments of `Consumer`'s methods, checked: InvalidArgumentError says what would fit."""

from collections.abc import Iterable
from typing import Final

from tailrace.client.arguments import INT64_MAX, check_int, partition_of
from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.record import TopicPartition

_OF_KAFKA_CLIENTS: Final = {
    ("subscribe", "pattern"): "match the names of topics() yourself and subscribe to those",
    (
        "subscribe",
        "listener",
    ): "leave it out: partitions are taken from a consumer by nobody but the application",
    ("poll", "update_offsets"): "leave it out: a poll always moves the positions; seek() goes back",
}
"""Arguments that users of Kafka's clients know, and what to do here instead."""


def reject_habits(method: str, unknown: Iterable[str]) -> None:
    """Raise InvalidArgumentError if there are `unknown` arguments."""
    for name in unknown:
        advice = _OF_KAFKA_CLIENTS.get((method, name), "see help(Consumer." + method + ")")
        raise InvalidArgumentError(f"{method}() has no argument {name!r}: {advice}")


def topics_of(topics: object) -> list[str]:
    """One name or several, each once."""
    if not isinstance(topics, Iterable):
        raise InvalidArgumentError(f"{topics!r} is no topic: give a name, or a list of names")
    return list(dict.fromkeys(map(topic_of, [topics] if isinstance(topics, str) else topics)))


def topic_of(topic: object) -> str:
    """One name."""
    if not isinstance(topic, str) or not topic:
        raise InvalidArgumentError(f"{topic!r:.100} is no topic: give its name")
    return topic


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
