"""Followers' fetches that wait for records: which of them an append wakes, and which have waited enough.

Pure: time is an argument, in seconds of any monotonic clock. A commit costs in proportion to the
fetches that wait for the partitions it moved, not to all that wait.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tailrace.protocol.replica_messages import ReplicaFetch
from tailrace.transport.deadlines import Deadlines

from .fetch_reply import Slot
from .storage.partition_log import PartitionKey


@dataclass(slots=True, eq=False)
class ParkedFetch:
    """A fetch that found nothing: due at `deadline`, or when something happens. `slot`: for its batches."""

    peer: bytes
    request: ReplicaFetch
    deadline: float
    slot: Slot | None = None
    ticket: int = -1

    @property
    def keys(self) -> list[PartitionKey]:
        """The partitions it waits for."""
        return [(entry.topic_id, entry.partition) for entry in self.request.entries]


class ParkedFetches:
    """At most `fetches_max` fetches that wait for at most `waits_max` partitions, all taken together."""

    def __init__(self, *, fetches_max: int, waits_max: int) -> None:
        self._fetches_max = fetches_max
        self._waits_max = waits_max
        self._fetches: dict[int, ParkedFetch] = {}
        self._waiting: dict[PartitionKey, set[int]] = {}
        self._waits = 0
        self._deadlines = Deadlines(self._fetches)
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._fetches)

    def park(self, fetch: ParkedFetch) -> bool:
        """Keep the fetch; False when there is no room for it."""
        waits = len(fetch.request.entries)
        if len(self._fetches) >= self._fetches_max or self._waits + waits > self._waits_max:
            return False
        self._tickets += 1
        fetch.ticket = self._tickets
        self._fetches[fetch.ticket] = fetch
        for key in fetch.keys:
            self._waiting.setdefault(key, set()).add(fetch.ticket)
        self._waits += waits
        self._deadlines.add(fetch.ticket, fetch.deadline)
        return True

    def changed(self, keys: Iterable[PartitionKey]) -> list[ParkedFetch]:
        """Something was appended to these partitions, or another leads them: whoever waits for them."""
        tickets = {ticket for key in keys for ticket in self._waiting.get(key, ())}
        return [self._remove(self._fetches[ticket]) for ticket in sorted(tickets)]

    def expired(self, now: float) -> list[ParkedFetch]:
        """The fetches whose wait is over."""
        return [self._remove(self._fetches[ticket]) for ticket in self._deadlines.due(now)]

    def next_deadline(self) -> float:
        """When `expired` has something to say; infinity: never."""
        return self._deadlines.next()

    def remove_all(self) -> list[ParkedFetch]:
        """The node stops: whoever waits."""
        return [self._remove(fetch) for fetch in tuple(self._fetches.values())]

    def _remove(self, fetch: ParkedFetch) -> ParkedFetch:
        del self._fetches[fetch.ticket]
        self._waits -= len(fetch.request.entries)
        for key in fetch.keys:
            waiting = self._waiting.get(key)
            if waiting is not None:
                waiting.discard(fetch.ticket)
                if not waiting:
                    del self._waiting[key]
        return fetch
