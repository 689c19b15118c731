"""An even plan of who holds and who is to lead which partition: pure, and the same for the same cluster.

As few replicas as possible move: one at a time, from the node that holds the most to the one that holds the
least, until no two differ by more than one; then leaders change places within their partitions, which moves
nothing. A replica goes only where the partition's replicas lie in no fewer racks than before.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

from tailrace.protocol.cluster import ClusterState

Place = tuple[bytes, int]
Replicas = tuple[int, ...]


def even_plan(state: ClusterState) -> dict[Place, Replicas]:
    """The partitions that are to have other replicas, or another one first.

    Nodes that are dead or draining keep what they have, and get nothing; partitions that move are left alone.
    """
    now = {
        (topic_id, index): partition.replicas
        for topic_id, topic in sorted(state.topics.items())
        for index, partition in enumerate(topic.partitions)
        if not partition.target
    }
    able = sorted(node.node_id for node in state.nodes.values() if node.alive and not node.draining)
    if not able:
        return {}
    plan = dict(now)
    racks = {node.node_id: node.rack or str(node.node_id) for node in state.nodes.values()}
    targets = [part.target for topic in state.topics.values() for part in topic.partitions if part.target]
    _even_replicas(plan, able, racks, Counter(node_id for target in targets for node_id in target))
    _even_leaders(plan, able, Counter(target[0] for target in targets))
    return {place: replicas for place, replicas in plan.items() if replicas != now[place]}


def _even_replicas(
    plan: dict[Place, Replicas], able: Iterable[int], racks: Mapping[int, str], besides: Counter[int]
) -> None:
    """`besides`: what nodes will hold of the partitions that move."""
    holders = _Holders(plan, able, racks)
    load = {node_id: holders.count(node_id) + besides[node_id] for node_id in able}
    while (step := _step(holders, load)) is not None:
        place, giver, taker = step
        holders.move(place, giver, taker)
        load[giver] -= 1
        load[taker] += 1


def _step(holders: "_Holders", load: Mapping[int, int]) -> tuple[Place, int, int] | None:
    """The next replica to move, and from where to where; None when it is as even as it gets."""
    order = sorted(load, key=lambda n: (load[n], n))
    for giver in reversed(order):
        for taker in order:
            if load[giver] - load[taker] < 2:
                break
            place = holders.movable(giver, taker)
            if place is not None:
                return place, giver, taker
    return None


class _Holders:
    """By node, and by the racks of the other replicas: the partitions that the node holds."""

    def __init__(self, plan: dict[Place, Replicas], able: Iterable[int], racks: Mapping[int, str]) -> None:
        self._plan = plan
        self._racks = racks
        self._places: dict[int, dict[frozenset[str], dict[Place, None]]] = {n: {} for n in able}
        for place in plan:
            self._add(place)

    def count(self, node_id: int) -> int:
        """How many partitions it holds."""
        return sum(map(len, self._places[node_id].values()))

    def movable(self, giver: int, taker: int) -> Place | None:
        """A partition that the taker does not hold, and that lies in no fewer racks then."""
        old, new = self._racks[giver], self._racks[taker]
        for others, places in self._places[giver].items():
            if new not in others or old in others:
                for place in places:
                    if taker not in self._plan[place]:
                        return place
        return None

    def move(self, place: Place, giver: int, taker: int) -> None:
        """The taker holds it in the giver's place."""
        for node_id, others in self._others(place):
            del self._places[node_id][others][place]
            if not self._places[node_id][others]:
                del self._places[node_id][others]
        self._plan[place] = tuple(taker if n == giver else n for n in self._plan[place])
        self._add(place)

    def _add(self, place: Place) -> None:
        for node_id, others in self._others(place):
            self._places[node_id].setdefault(others, {})[place] = None

    def _others(self, place: Place) -> list[tuple[int, frozenset[str]]]:
        replicas = self._plan[place]
        return [
            (node_id, frozenset(self._racks[n] for n in replicas if n != node_id))
            for node_id in replicas
            if node_id in self._places
        ]


def _even_leaders(plan: dict[Place, Replicas], able: Iterable[int], besides: Counter[int]) -> None:
    """First replicas, evenly: along chains of partitions that hand the lead on to another replica.

    `besides`: what nodes will lead of the partitions that move.
    """
    leads = Counter({node_id: besides[node_id] for node_id in able})
    leads.update(replicas[0] for replicas in plan.values() if replicas[0] in leads)
    heirs = _Heirs(plan, leads)
    while chain := heirs.chain(leads):
        for leader, heir in pairwise(chain):
            heirs.hand_over(leader, heir)
        leads[chain[0]] -= 1
        leads[chain[-1]] += 1


class _Heirs:
    """By leader and other replica: the partitions that the one could hand over to the other."""

    def __init__(self, plan: dict[Place, Replicas], able: Iterable[int]) -> None:
        self._plan = plan
        self._places: dict[int, dict[int, dict[Place, None]]] = {node_id: {} for node_id in able}
        for place in plan:
            self._add(place)

    def chain(self, leads: Mapping[int, int]) -> list[int]:
        """From a node to one that leads at least two fewer, each of which can hand over to the next."""
        fewest = min(leads.values())
        for start in sorted(leads, key=lambda n: (-leads[n], n)):
            if leads[start] - fewest < 2:
                break
            before = {start: start}
            queue = [start]
            for node_id in queue:
                for heir in sorted(self._places[node_id]):
                    if heir not in before:
                        before[heir] = node_id
                        queue.append(heir)
            goal = min(queue, key=lambda n: leads[n])
            if leads[start] - leads[goal] >= 2:
                chain = [goal]
                while chain[-1] != start:
                    chain.append(before[chain[-1]])
                return chain[::-1]
        return []

    def hand_over(self, leader: int, heir: int) -> None:
        """One of the partitions gets the other leader."""
        place = next(iter(self._places[leader][heir]))
        replicas = self._plan[place]
        for other in replicas[1:]:
            if other in self._places:
                del self._places[leader][other][place]
                if not self._places[leader][other]:
                    del self._places[leader][other]
        self._plan[place] = (heir, *(n for n in replicas if n != heir))
        self._add(place)

    def _add(self, place: Place) -> None:
        leader, *others = self._plan[place]
        for other in others:
            if leader in self._places and other in self._places:
                self._places[leader].setdefault(other, {})[place] = None
