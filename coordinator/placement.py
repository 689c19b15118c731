"""Which nodes get the partitions of a new topic: even within the topic first, then in the cluster.

Evenness within the topic comes first, so that a topic made after a node was added does not land
on that node alone. The replicas of a partition lie in as many racks as there are; a node without a
rack is one of its own. The result depends on nothing but the arguments.
"""

from collections.abc import Collection, Mapping
from heapq import heapify, heappop, heappush

from tailrace.protocol.errors import LimitExceededError, NotEnoughNodesError
from tailrace.protocol.limits import PARTITIONS_PER_NODE_MAX

from .replica_index import Load

NO_RACKS: Mapping[int, str] = {}


def place(
    partitions: int,
    replication_factor: int,
    loads: Mapping[int, Load],
    racks: Mapping[int, str] = NO_RACKS,
) -> list[tuple[int, ...]]:
    """The replicas of each partition, its leader first. `loads` names the nodes that can be chosen.

    Raises NotEnoughNodesError, and LimitExceededError when the nodes have no room for so many.
    """
    if len(loads) < replication_factor:
        raise NotEnoughNodesError(
            f"{'1 node is' if len(loads) == 1 else f'{len(loads)} nodes are'} alive, {replication_factor} "
            f"{'is' if replication_factor == 1 else 'are'} needed: start more, or ask for fewer replicas"
        )
    held = {node_id: load.replicas for node_id, load in loads.items()}
    rack_of = {node_id: rack_name(node_id, racks) for node_id in loads}
    leaders = _Rotation({node_id: load.leaders for node_id, load in loads.items()}, held, rack_of)
    followers = _Rotation({node_id: load.replicas for node_id, load in loads.items()}, held, rack_of)
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


def substitute(others: Collection[int], held: Mapping[int, int], racks: Mapping[int, str]) -> int | None:
    """Who holds a partition best beside `others`: in another rack than they, and with the least to carry.

    `held`: how many partitions each node holds that can be chosen. None if none has room.
    """
    used = {rack_name(node_id, racks) for node_id in others}
    free = [n for n in held if n not in others and held[n] < PARTITIONS_PER_NODE_MAX]
    return min(free, key=lambda n: (rack_name(n, racks) in used, held[n], n), default=None)


def rack_name(node_id: int, racks: Mapping[int, str]) -> str | int:
    """A node's rack, or its id, for one that has none."""
    return racks.get(node_id) or node_id


class _Rotation:
    """Hands out nodes: the one with the fewest turns, of these the least loaded, of these the lowest id."""

    def __init__(
        self, loads: Mapping[int, int], held: Mapping[int, int], rack_of: Mapping[int, str | int]
    ) -> None:
        self._queue = [(0, load, node_id) for node_id, load in loads.items()]
        self._held = held
        self._rack_of = rack_of
        self._racks = len(set(rack_of.values()))
        heapify(self._queue)

    def take(self, count: int, besides: Collection[int]) -> list[int]:
        """Up to `count` distinct nodes that have room, none of `besides`, in other racks while there are."""
        taken: list[int] = []
        passed_over = []
        second_choice = []
        used = {self._rack_of[node_id] for node_id in besides}
        while self._queue and len(taken) < count:
            turns, load, node_id = heappop(self._queue)
            if node_id in besides or self._held[node_id] >= PARTITIONS_PER_NODE_MAX:
                passed_over.append((turns, load, node_id))
            elif self._rack_of[node_id] in used and len(used) < self._racks:
                second_choice.append((turns, load, node_id))
            else:
                taken.append(node_id)
                used.add(self._rack_of[node_id])
                passed_over.append((turns + 1, load + 1, node_id))
            if not self._queue or len(used) == self._racks:
                # Every rack has one, or has no room: now the best of those that were put off.
                for entry in second_choice:
                    heappush(self._queue, entry)
                second_choice = []
                used = set(self._rack_of.values())
        for entry in (*passed_over, *second_choice):
            heappush(self._queue, entry)
        return taken
