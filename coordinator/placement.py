"""Which nodes get the partitions of a new topic: even within the topic first, then in the cluster.

Evenness within the topic comes first, so that a topic made after a node was added does not land
on that node alone. The result depends on nothing but the arguments.
"""

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush

from tailrace.protocol.errors import LimitExceededError, NotEnoughNodesError
from tailrace.protocol.limits import PARTITIONS_PER_NODE_MAX

from .replica_index import Load


def place(partitions: int, replication_factor: int, loads: Mapping[int, Load]) -> list[tuple[int, ...]]:
    """The replicas of each partition, its leader first. `loads` names the nodes that can be chosen.

    Raises NotEnoughNodesError, and LimitExceededError when the nodes have no room for so many.
    """
    if len(loads) < replication_factor:
        raise NotEnoughNodesError(
            f"{'1 node is' if len(loads) == 1 else f'{len(loads)} nodes are'} alive, {replication_factor} "
            f"{'is' if replication_factor == 1 else 'are'} needed: start more nodes"
        )
    held = {node_id: load.replicas for node_id, load in loads.items()}
    leaders = _Rotation({node_id: load.leaders for node_id, load in loads.items()}, held)
    followers = _Rotation({node_id: load.replicas for node_id, load in loads.items()}, held)
    placed: list[tuple[int, ...]] = []
    for _ in range(partitions):
        leader = leaders.take(1, besides=())
        replicas = (*leader, *followers.take(replication_factor - 1, besides=leader))
        if len(replicas) < replication_factor:
            raise LimitExceededError(
                f"the nodes have room for {len(placed)} of {partitions} partitions: a node holds at most "
                f"{PARTITIONS_PER_NODE_MAX}; ask for fewer, delete topics or add nodes"
            )
        for node_id in replicas:
            held[node_id] += 1
        placed.append(replicas)
    return placed


class _Rotation:
    """Hands out nodes: the one with the fewest turns, of these the least loaded, of these the lowest id."""

    def __init__(self, loads: Mapping[int, int], held: Mapping[int, int]) -> None:
        self._queue = [(0, load, node_id) for node_id, load in loads.items()]
        self._held = held
        heapify(self._queue)

    def take(self, count: int, besides: Sequence[int]) -> list[int]:
        """Up to `count` distinct nodes that have room, none of `besides`."""
        taken: list[int] = []
        passed_over = []
        while self._queue and len(taken) < count:
            turns, load, node_id = heappop(self._queue)
            if node_id in besides:
                passed_over.append((turns, load, node_id))
            elif self._held[node_id] < PARTITIONS_PER_NODE_MAX:
                taken.append(node_id)
                passed_over.append((turns + 1, load + 1, node_id))
        for entry in passed_over:
            heappush(self._queue, entry)
        return taken
