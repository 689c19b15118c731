"""Logs of this node that cannot be written or read: what becomes of each. Pure: time is an argument.

    found -> asked to leave the ISR -> out -> made anew, empty, and copied from its leader

Until it is out it is not deleted, since it may be what the next leader is elected from; nor before this node
has heard of the leader epoch in which it is: in one before, it may still have to lead, and others follow it
down to what it has. From when it is found it is not copied to any more. The last replica in sync has to stay,
and asks again.
"""

from collections.abc import Iterable
from math import inf
from typing import Final

from ..storage.partition_log import PartitionKey, PartitionLog

ASK_AGAIN_S: Final = 1.0


class FaultyLogs:
    """By partition: the log that is faulty."""

    def __init__(self) -> None:
        self._logs: dict[PartitionKey, PartitionLog] = {}
        self._ask_at: dict[PartitionKey, float] = {}
        """Of those that are not out; infinity while an answer is due."""
        self.out: dict[PartitionKey, int] = {}
        """They count for nothing at the coordinator, from these leader epochs on: in them they may go."""

    def __bool__(self) -> bool:
        """Is there one?"""
        return bool(self._logs)

    def found(self, log: PartitionLog) -> bool:
        """The log has failed; True if that is news. A sole replica's stays as it is."""
        if log.sole_replica or self._logs.get(log.key) is log:
            return False
        self._logs[log.key] = log
        self._ask_at[log.key] = -inf
        return True

    def holds(self, log: PartitionLog) -> bool:
        """Is this very log faulty? Another one in its place ends the matter."""
        faulty = self._logs.get(log.key)
        if faulty is not None and faulty is not log:
            self._forget(log.key)
        return faulty is log

    def ask(self, now: float) -> list[PartitionKey]:
        """For these the coordinator is to be asked now."""
        due = [key for key, at in self._ask_at.items() if at <= now]
        self._ask_at.update(dict.fromkeys(due, inf))
        return due

    def answered(self, key: PartitionKey, *, out_from: int | None, ask_at: float) -> None:
        """The coordinator has answered, or did not; if the replica is not out, ask again at that time."""
        if key not in self._ask_at:
            return
        if out_from is None:
            self._ask_at[key] = ask_at
        else:
            del self._ask_at[key]
            self.out[key] = out_from

    def renewed(self, keys: Iterable[PartitionKey]) -> None:
        """These are being made anew."""
        for key in keys:
            del self.out[key]

    def next_tick(self) -> float:
        """When `ask` has something to say."""
        return min(self._ask_at.values(), default=inf)

    def _forget(self, key: PartitionKey) -> None:
        del self._logs[key]
        self._ask_at.pop(key, None)
        self.out.pop(key, None)
