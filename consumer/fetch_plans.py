"""What the fetcher wants to be sent, and what it has counted. Pure."""

from collections.abc import Mapping

import msgspec

from tailrace.protocol.messages import EARLIEST, LATEST, FetchEntry, OffsetQuery

from .assigned import AssignedPartition, Key


class FetchPlan(msgspec.Struct, frozen=True):
    """A fetch to send to a node. The answer is for `replied` or `failed`.

    `reply_bytes`: room for the batches, in shared memory if there is such.
    """

    fetch_id: int
    node: int
    entries: list[FetchEntry]
    session: int
    epoch: int
    reply_bytes: int


class LookupPlan(msgspec.Struct, frozen=True):
    """Where do the logs start and end? Two queries for each of `keys`. For `located` or `failed`."""

    fetch_id: int
    node: int
    keys: list[Key]
    queries: list[OffsetQuery]


def entries_of(partitions: Mapping[Key, AssignedPartition], bytes_max: int) -> list[FetchEntry]:
    """What a fetch says of these partitions."""
    return [
        FetchEntry(*key, partition.leader_epoch, partition.fetch_offset, bytes_max)
        for key, partition in partitions.items()
    ]


def queries_of(partitions: Mapping[Key, AssignedPartition]) -> list[OffsetQuery]:
    """What a look-up asks about them: two questions each."""
    return [
        OffsetQuery(*key, partition.leader_epoch, which, partition.begins_after)
        for key, partition in partitions.items()
        for which in (EARLIEST, LATEST)
    ]


class FetchStatistics:
    """Counts since the consumer was made."""

    __slots__ = ("bytes", "errors", "fetches", "resets")

    def __init__(self) -> None:
        self.fetches = 0
        self.bytes = 0
        self.errors = 0
        self.resets = 0
