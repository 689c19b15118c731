"""The arguments of `Consumer`'s methods, checked: InvalidArgumentError says what would fit."""

import re
from collections.abc import Iterable
from typing import Final

from tailrace.client.arguments import INT32_MAX, INT64_MAX, check_int, partition_of
from tailrace.client.descriptions import OffsetAndMetadata
from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.limits import OFFSET_METADATA_CHARACTERS_MAX
from tailrace.protocol.record import TopicPartition

from .listener import RebalanceListener

_OF_KAFKA_CLIENTS: Final = {
    ("poll", "update_offsets"): "leave it out: a poll always moves the positions; seek() goes back",
    ("poll", "timeout"): "give timeout_ms, in milliseconds",
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
    if ":" in topic:
        raise InvalidArgumentError(f"{topic!r:.100} is no topic: addresses are given as bootstrap_servers=")
    return topic


def partitions_of(partitions: object) -> list[TopicPartition]:
    """Several partitions, each once."""
    if isinstance(partitions, str | TopicPartition) or not isinstance(partitions, Iterable):
        raise InvalidArgumentError(
            f"{partitions!r} is no list of partitions: give [TopicPartition(topic, number), ...]"
        )
    return list(dict.fromkeys(map(partition_of, partitions)))


def pattern_of(pattern: object) -> re.Pattern[str] | None:
    """A regular expression for names of topics."""
    if pattern is None or (isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str)):
        return pattern
    if not isinstance(pattern, str) or not pattern:
        raise InvalidArgumentError(f"{pattern!r:.100} is no pattern: give a regular expression")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InvalidArgumentError(f"pattern {pattern!r:.100} is no regular expression: {error}") from None


def listener_of(listener: object) -> RebalanceListener | None:
    """A RebalanceListener."""
    if listener is None or isinstance(listener, RebalanceListener):
        return listener
    raise InvalidArgumentError(f"{listener!r:.100} is no listener: give a tailrace.RebalanceListener")


def commit_of(offset: object) -> OffsetAndMetadata:
    """An offset, alone or with metadata."""
    if not isinstance(offset, OffsetAndMetadata):
        return OffsetAndMetadata(check_int("offset", offset, 0, INT64_MAX))
    check_int("offset", offset.offset, 0, INT64_MAX)
    check_int("leader_epoch", offset.leader_epoch, -1, INT32_MAX)
    if not isinstance(offset.metadata, str) or len(offset.metadata) > OFFSET_METADATA_CHARACTERS_MAX:
        raise InvalidArgumentError(f"metadata is a text of up to {OFFSET_METADATA_CHARACTERS_MAX} characters")
    return offset


def offset_of(offset: int) -> int:
    """An offset: 0 or more."""
    try:
        return check_int("offset", offset, 0, INT64_MAX)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{error}; seek_to_beginning() and seek_to_end() find the ends") from None


def timestamp_of(timestamp: int) -> int:
    """Milliseconds since 1970."""
    return check_int("timestamp", timestamp, 0, INT64_MAX)
