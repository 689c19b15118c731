"""Produce requests that are on the leader's disk and wait for the high watermark. Pure."""

from collections.abc import Iterable

from ..storage.partition_log import PartitionKey
from ..work import PendingProduce


class WaitingProduce:
    """A produce request, and the offsets that must be committed before it is answered."""

    __slots__ = ("needs", "produce")

    def __init__(self, produce: PendingProduce, needs: dict[PartitionKey, int]) -> None:
        self.produce = produce
        self.needs = needs


class WaitingProduces:
    """By partition, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[PartitionKey, dict[WaitingProduce, None]] = {}
        self.count = 0

    def add(self, produce: PendingProduce, needs: dict[PartitionKey, int]) -> None:
        """Wait until the high watermark of each partition has reached its offset."""
        waiting = WaitingProduce(produce, needs)
        self.count += 1
        for key in needs:
            self._waiting.setdefault(key, {})[waiting] = None

    def advanced(self, key: PartitionKey, high_watermark: int) -> list[PendingProduce]:
        """The high watermark has moved: what has waited for nothing else."""
        done = []
        for waiting in tuple(self._waiting.get(key, ())):
            if waiting.needs[key] <= high_watermark:
                del waiting.needs[key]
                self._forget(key, waiting)
                if not waiting.needs:
                    self.count -= 1
                    done.append(waiting.produce)
        return done

    def give_up(self, keys: Iterable[PartitionKey]) -> list[PendingProduce]:
        """These partitions are not led any more, or lack replicas: what waited for one of them, each once."""
        given_up: list[PendingProduce] = []
        for key in keys:
            for waiting in tuple(self._waiting.get(key, ())):
                for other in waiting.needs:
                    self._forget(other, waiting)
                self.count -= 1
                given_up.append(waiting.produce)
        return given_up

    def give_up_all(self) -> list[PendingProduce]:
        """The node stops."""
        return self.give_up(tuple(self._waiting))

    def _forget(self, key: PartitionKey, waiting: WaitingProduce) -> None:
        of_partition = self._waiting[key]
        del of_partition[waiting]
        if not of_partition:
            del self._waiting[key]
