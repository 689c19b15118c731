"""What the fetcher wants to be sent, and what it has counted. Values only."""

import msgspec

from tailrace.protocol.messages import FetchEntry, OffsetQuery

from .assigned import Key


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


class FetchStatistics:
    """Counts since the consumer was made."""

    __slots__ = ("bytes", "errors", "fetches", "resets")

    def __init__(self) -> None:
        self.fetches = 0
        self.bytes = 0
        self.errors = 0
        self.resets = 0
