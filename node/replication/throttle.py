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
        self._rates: dict[PartitionKey, int] = {}
        self._budget = 0.0
        self._budget_at = 0.0

    def __contains__(self, key: PartitionKey) -> bool:
        return key in self._rates

    def bound(self, topic_id: bytes, rates: Mapping[int, int], now: float) -> None:
        """These partitions of a topic have a bound from now on, its others have none."""
        if not rates and not any(key[0] == topic_id for key in self._rates):
            return
        self._refill(now)
        kept = {key: rate for key, rate in self._rates.items() if key[0] != topic_id}
        self._rates = kept | {(topic_id, index): rate for index, rate in rates.items()}

    def free_at(self, key: PartitionKey, now: float) -> float:
        """When more of the partition may be fetched."""
        if key not in self._rates:
            return now
        self._refill(now)
        return now if self._budget >= 0 else now - self._budget / self._rate()

    def spend(self, key: PartitionKey, size: int, now: float) -> None:
        """So many bytes of the partition have come."""
        if key in self._rates:
            self._refill(now)
            self._budget -= size

    def _rate(self) -> int:
        return min(self._rates.values())

    def _refill(self, now: float) -> None:
        """What was not used is kept for one second, so that a pause is not made up for by a flood."""
        if self._rates:
            rate = self._rate()
            self._budget = min(float(rate), self._budget + (now - self._budget_at) * rate)
        else:
            self._budget = 0.0
        self._budget_at = now
