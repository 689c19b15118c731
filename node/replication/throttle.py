"""How much a node copies of partitions that move to it: a token bucket. Pure: time is an argument.

Only copies that were never in sync are held back; what follows in sync is not.
"""

from collections.abc import Mapping

from ..storage.partition_log import PartitionKey


class Throttle:
    """One budget for all partitions that have a bound: the lowest of their bounds, in bytes a second.

    An answer may be larger than what is left of the budget: the debt is waited for before the next fetch.
    """

    def __init__(self) -> None:
        self._rates: dict[bytes, Mapping[int, int]] = {}
        """By topic, and by number of the partition."""
        self._rate = 0
        """The lowest of them; 0: there is none."""
        self._budget = 0.0
        self._budget_at = 0.0

    def __contains__(self, key: PartitionKey) -> bool:
        topic_id, partition = key
        return partition in self._rates.get(topic_id, ())

    def bound(self, topic_id: bytes, rates: Mapping[int, int], now: float) -> None:
        """These partitions of a topic have a bound from now on, its others have none."""
        if not (rates or topic_id in self._rates):
            return
        self._refill(now)
        self._rates[topic_id] = rates
        if not rates:
            del self._rates[topic_id]
        self._rate = min((rate for bounds in self._rates.values() for rate in bounds.values()), default=0)

    def free_at(self, now: float) -> float:
        """When more of the partitions that have a bound may be fetched."""
        self._refill(now)
        return now if self._budget >= 0 else now - self._budget / self._rate

    def spend(self, size: int, now: float) -> None:
        """So many bytes of a partition that has a bound have come."""
        self._refill(now)
        self._budget -= size

    def _refill(self, now: float) -> None:
        """What was not used is kept for one second, so that a pause is not made up for by a flood."""
        rate = self._rate
        self._budget = min(float(rate), self._budget + (now - self._budget_at) * rate) if rate else 0.0
        self._budget_at = now
