"""Arguments of the clients' methods, checked: InvalidArgumentError says what would fit."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tailrace.protocol.errors import InvalidArgumentError
from tailrace.protocol.limits import PARTITIONS_PER_TOPIC_MAX
from tailrace.protocol.record import TopicPartition

INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1
FOR_EVER_S: Final = 1e9
"""Thirty years. The system's own waits end near 300."""


def check_int(name: str, value: object, least: int, most: int) -> int:
    """`value` if it is an int between `least` and `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidArgumentError(f"{name} is {value!r:.100}; it is a whole number from {least} to {most}")
    return value


def check_timeout(name: str, value: object) -> float:
    """Milliseconds in seconds, at most FOR_EVER_S."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise InvalidArgumentError(f"{name} is {value!r:.100}; it is a number of milliseconds, 0 or more")
    return min(value / 1000, FOR_EVER_S)


def seconds_of(timeout: object) -> float | None:
    """Seconds, at most FOR_EVER_S; None stays None."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidArgumentError(
            f"timeout is {timeout!r:.100}; it is a number of seconds, 0 or more, or None"
        )
    return min(timeout, FOR_EVER_S)


def timeout_of(timeout_ms: object) -> float | None:
    """Milliseconds in seconds; None stays None."""
    return None if timeout_ms is None else check_timeout("timeout_ms", timeout_ms)


def partition_of(partition: object) -> TopicPartition:
    """A TopicPartition, or the pair of a topic and a number."""
    if isinstance(partition, tuple) and len(partition) == 2:
        topic, number = partition
        if isinstance(topic, str) and topic:
            return TopicPartition(topic, check_int("partition", number, 0, PARTITIONS_PER_TOPIC_MAX - 1))
    raise InvalidArgumentError(f"{partition!r:.100} is no partition: give TopicPartition(topic, number)")


def items_of(name: str, mapping: object) -> list[tuple[Any, Any]]:
    """The pairs of a mapping."""
    if not isinstance(mapping, Mapping):
        raise InvalidArgumentError(f"{name} is {type(mapping).__name__} {mapping!r:.60}; it is a dict")
    return list(mapping.items())


def list_of(name: str, items: object) -> list[Any]:
    """Several of something. A text is one thing, not several letters."""
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise InvalidArgumentError(f"{name} is {type(items).__name__} {items!r:.60}; it is a list")
    return list(items)


def check_callable(function: object) -> None:
    """A callback."""
    if not callable(function):
        raise InvalidArgumentError(f"{function!r:.100} cannot be called back: give a function")
