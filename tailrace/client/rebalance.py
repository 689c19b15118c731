"""An even plan of who holds and who is to lead which partition: pure, and the same for the same cluster.

As few replicas as possible move: one at a time, from the node that holds the most to the one that holds the
least, until no two differ by more than one; then leaders change places within their partitions, which moves
nothing. A replica goes only where the partition's replicas lie in no fewer racks than before.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

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
    _even_replicas(plan, able, racks, _moving_loads(state))
    _even_leaders(plan, able)
    return {place: replicas for place, replicas in plan.items() if replicas != now[place]}


def _moving_loads(state: ClusterState) -> Counter[int]:
    """What nodes hold, or will hold, of the partitions that move."""
    partitions = (partition for topic in state.topics.values() for partition in topic.partitions)
    return Counter(node_id for partition in partitions for node_id in partition.target)


def _even_replicas(
    plan: dict[Place, Replicas], able: Iterable[int], racks: Mapping[int, str], besides: Counter[int]
) -> None:
    held: dict[int, set[Place]] = {node_id: set() for node_id in able}
    for place, replicas in plan.items():
        for node_id in replicas:
            if node_id in held:
                held[node_id].add(place)
    load = {node_id: len(places) + besides[node_id] for node_id, places in held.items()}
    while (step := _step(plan, held, load, racks)) is not None:
        place, giver, taker = step
        plan[place] = tuple(taker if n == giver else n for n in plan[place])
        held[giver].remove(place)
        held[taker].add(place)
        load[giver] -= 1
        load[taker] += 1


def _step(
    plan: Mapping[Place, Replicas],
    held: Mapping[int, set[Place]],
    load: Mapping[int, int],
    racks: Mapping[int, str],
) -> tuple[Place, int, int] | None:
    """The next replica to move, and from where to where; None when it is as even as it gets."""
    order = sorted(held, key=lambda n: (load[n], n))
    for giver in reversed(order):
        for taker in order:
            if load[giver] - load[taker] < 2:
                break
            for place in sorted(held[giver] - held[taker]):
                others = [racks[n] for n in plan[place] if n != giver]
                if racks[taker] not in others or racks[giver] in others:
                    return place, giver, taker
    return None


def _even_leaders(plan: dict[Place, Replicas], able: Iterable[int]) -> None:
    """First replicas, evenly: along chains of partitions that hand the lead on to another replica."""
    leads = Counter(dict.fromkeys(able, 0))
    leads.update(replicas[0] for replicas in plan.values() if replicas[0] in leads)
    while True:
        chain = _chain(plan, leads)
        if not chain:
            return
        for place, leader in chain:
            before = plan[place]
            plan[place] = (leader, *(n for n in before if n != leader))
            leads[before[0]] -= 1
            leads[leader] += 1


def _chain(plan: Mapping[Place, Replicas], leads: Mapping[int, int]) -> list[tuple[Place, int]]:
    """Hand-overs that take one lead from a node to one that has at least two fewer, if there is one."""
    by_leader: dict[int, list[Place]] = {node_id: [] for node_id in leads}
    for place, replicas in plan.items():
        if replicas[0] in by_leader:
            by_leader[replicas[0]].append(place)
    for start in sorted(leads, key=lambda n: (-leads[n], n)):
        reached: dict[int, list[tuple[Place, int]]] = {start: []}
        queue = [start]
        for node_id in queue:
            for place in by_leader[node_id]:
                for other in plan[place][1:]:
                    if other in leads and other not in reached:
                        reached[other] = [*reached[node_id], (place, other)]
                        queue.append(other)
        goal = min(reached, key=lambda n: (leads[n], len(reached[n]), n))
        if leads[start] - leads[goal] >= 2:
            return reached[goal]
    return []
