"""What a consumer hands to the application."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

K = TypeVar("K")
V = TypeVar("V")

Headers = Sequence[tuple[str, bytes | None]]


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class Record(msgspec.Struct, Generic[K, V], frozen=True, gc=False):
    """One record as read from the log. `timestamp` is in milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: K
    value: V
    headers: Headers
