"""Who should have which partition. Pure functions of what members subscribe to and what they have now.

Every partition of a topic that somebody subscribes to goes to one subscriber of it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple, TypeAlias

from .state import Key

Target: TypeAlias = dict[str, frozenset[Key]]
"""The partitions of each member."""


class Wish(NamedTuple):
    """A member as an assignor sees it. `name` gives the order among members, and stays over restarts."""

    name: str
    topics: frozenset[bytes]
    held: Collection[Key]


Assignor: TypeAlias = Callable[[Mapping[str, Wish], Mapping[bytes, int]], Target]
"""Of members by id, and the number of partitions by topic id."""


def uniform(members: Mapping[str, Wish], counts: Mapping[bytes, int]) -> Target:
    """As even as subscriptions allow, moving as little as that takes.

    Everybody keeps what it has; what nobody has goes to the least loaded subscriber; then partitions
    move one by one from the most loaded member that has one for another with at least two less.
    """
    held: dict[str, dict[bytes, list[int]]] = {member_id: {} for member_id in members}
    loads = dict.fromkeys(members, 0)
    taken: set[Key] = set()

    def give(member_id: str, topic_id: bytes, partition: int) -> None:
        held[member_id].setdefault(topic_id, []).append(partition)
        loads[member_id] += 1

    for member_id, wish in sorted(members.items(), key=lambda item: item[1].name):
        for topic_id, partition in sorted(wish.held):
            exists = partition < counts.get(topic_id, 0)
            if exists and topic_id in wish.topics and (topic_id, partition) not in taken:
                taken.add((topic_id, partition))
                give(member_id, topic_id, partition)
    subscribers = _Subscribers(members, loads)
    # Topics with few subscribers first: the others even out what these leave.
    for topic_id in sorted(counts, key=lambda topic_id: (subscribers.count(topic_id), topic_id)):
        if subscribers.count(topic_id):
            for partition in range(counts[topic_id]):
                if (topic_id, partition) not in taken:
                    give(subscribers.least(topic_id), topic_id, partition)
    while _even_out(members, held, loads, subscribers):
        pass
    return {
        member_id: frozenset((topic_id, p) for topic_id, partitions in topics.items() for p in partitions)
        for member_id, topics in held.items()
    }


def contiguous(members: Mapping[str, Wish], counts: Mapping[bytes, int]) -> Target:
    """The range assignor: the same stretch of every topic, so that equal keys meet in one member."""
    assigned: dict[str, set[Key]] = {member_id: set() for member_id in members}
    for topic_id, count in counts.items():
        takers = sorted((w.name, m) for m, w in members.items() if topic_id in w.topics)
        if not takers:
            continue
        share, more = divmod(count, len(takers))
        start = 0
        for place, (_, member_id) in enumerate(takers):
            end = start + share + (place < more)
            assigned[member_id].update((topic_id, partition) for partition in range(start, end))
            start = end
    return {member_id: frozenset(keys) for member_id, keys in assigned.items()}


ASSIGNORS: Final[Mapping[str, Assignor]] = {"range": contiguous, "uniform": uniform}


def choose(names: Iterable[str]) -> str:
    """The assignor that most members ask for; among equals the first by name."""
    votes: dict[str, int] = {}
    for name in names:
        votes[name] = votes.get(name, 0) + 1
    return min(votes, key=lambda name: (-votes[name], name))


class _Subscribers:
    """The least loaded subscriber of a topic.

    Members with equal subscriptions share a heap of (load, name, id). An entry whose load is not the
    member's any more is old, and skipped; `loads` may rise, and fall if `changed` is told.
    """

    def __init__(self, members: Mapping[str, Wish], loads: Mapping[str, int]) -> None:
        self._loads = loads
        self._members = members
        heaps: dict[frozenset[bytes], list[tuple[int, str, str]]] = {}
        for member_id, wish in members.items():
            heaps.setdefault(wish.topics, []).append((loads[member_id], wish.name, member_id))
        for heap in heaps.values():
            heapify(heap)
        self._heaps = heaps
        self._of_topic: dict[bytes, list[list[tuple[int, str, str]]]] = {}
        for topics, heap in heaps.items():
            for topic_id in topics:
                self._of_topic.setdefault(topic_id, []).append(heap)
        self._counts = {t: sum(map(len, of_topic)) for t, of_topic in self._of_topic.items()}

    def count(self, topic_id: bytes) -> int:
        """How many members subscribe to the topic."""
        return self._counts.get(topic_id, 0)

    def least(self, topic_id: bytes) -> str:
        """The id of the one with the fewest partitions."""
        return min(map(self._top, self._of_topic[topic_id]))[2]

    def changed(self, member_id: str) -> None:
        """The member has fewer partitions than before."""
        wish = self._members[member_id]
        heappush(self._heaps[wish.topics], (self._loads[member_id], wish.name, member_id))

    def _top(self, heap: list[tuple[int, str, str]]) -> tuple[int, str, str]:
        while True:
            load, name, member_id = heap[0]
            now = self._loads[member_id]
            if load == now:
                return heap[0]
            heappop(heap)
            if load < now:
                heappush(heap, (now, name, member_id))


def _even_out(
    members: Mapping[str, Wish],
    held: dict[str, dict[bytes, list[int]]],
    loads: dict[str, int],
    subscribers: _Subscribers,
) -> bool:
    """Move partitions from the most loaded on, until no member can give one away; was any moved?"""
    heap = [(-load, members[member_id].name, member_id) for member_id, load in loads.items()]
    heapify(heap)
    moved = False
    while heap:
        load, name, giver = heappop(heap)
        if -load != loads[giver]:
            continue  # it has got one since, and is in the heap again
        for topic_id in held[giver]:
            taker = subscribers.least(topic_id)
            if loads[taker] + 1 < loads[giver]:
                break
        else:
            continue
        partitions = held[giver][topic_id]
        held[taker].setdefault(topic_id, []).append(partitions.pop())
        if not partitions:
            del held[giver][topic_id]
        loads[giver] -= 1
        loads[taker] += 1
        subscribers.changed(giver)
        heappush(heap, (-loads[giver], name, giver))
        heappush(heap, (-loads[taker], members[taker].name, taker))
        moved = True
    return moved
