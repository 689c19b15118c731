"""CreateTopic and AlterTopic requests that wait for the leaders to open the new partitions.

Pure: time comes in as `now`. Soft state: a coordinator that restarts forgets who waits, as do the
connections it waited on.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tailrace.protocol.cluster import NO_LEADER, ClusterState, TopicInfo
from tailrace.protocol.errors import ShuttingDownError, TailraceError, TimedOutError, UnknownTopicError
from tailrace.protocol.messages import AlterTopic, CreateTopic, Reply, TopicAltered, TopicCreated
from tailrace.protocol.wire import failure

Answer = tuple[bytes, Reply]


@dataclass(eq=False)
class _Opening:
    """`leaders`, those of the partitions from `first` on, have not yet said that they applied `version`."""

    topic_id: bytes
    first: int
    peer: bytes
    request: CreateTopic | AlterTopic
    deadline: float
    version: int
    leaders: set[int]


class Openings:
    """Who waits for the new partitions of which topic."""

    def __init__(self) -> None:
        self._waiting: list[_Opening] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self,
        peer: bytes,
        request: CreateTopic | AlterTopic,
        topic: TopicInfo,
        version: int,
        now: float,
        *,
        first: int = 0,
    ) -> None:
        """Wait until the leaders of the partitions from `first` on have applied `version`, or time out."""
        deadline = now + request.timeout_ms / 1000
        leaders = _leaders(topic, first)
        self._waiting.append(_Opening(topic.topic_id, first, peer, request, deadline, version, leaders))

    def elected(self, topic: TopicInfo, version: int) -> None:
        """Partitions of a topic have other leaders: wait for these."""
        for opening in self._waiting:
            if opening.topic_id == topic.topic_id:
                opening.version = version
                opening.leaders = _leaders(topic, opening.first)

    def applied(self, node_id: int, version: int, cluster: ClusterState) -> list[Answer]:
        """A node has applied `version`; the answers of those who waited only for it."""
        for opening in self._waiting:
            if version >= opening.version:
                opening.leaders.discard(node_id)
        return [_opened(opening, cluster) for opening in self._take(lambda opening: not opening.leaders)]

    def removed(self, topic_id: bytes) -> list[Answer]:
        """The topic was deleted again."""
        return [
            _failed(opening, UnknownTopicError(f"topic {opening.request.name!r} was deleted meanwhile"))
            for opening in self._take(lambda opening: opening.topic_id == topic_id)
        ]

    def timed_out(self, now: float) -> list[Answer]:
        """The answers of those who have waited long enough."""
        return [_timed_out(opening) for opening in self._take(lambda opening: now >= opening.deadline)]

    def stop(self) -> list[Answer]:
        """The answers when the coordinator stops."""
        return [
            _failed(
                opening,
                ShuttingDownError(
                    f"the topic was {_done(opening)}, but the coordinator stops before its leaders "
                    "have opened it"
                ),
            )
            for opening in self._take(lambda _: True)
        ]

    def next_deadline(self) -> float | None:
        """When `timed_out` has something to tell."""
        return min((opening.deadline for opening in self._waiting), default=None)

    def _take(self, chosen: Callable[[_Opening], bool]) -> list[_Opening]:
        taken = [opening for opening in self._waiting if chosen(opening)]
        self._waiting = [opening for opening in self._waiting if not chosen(opening)]
        return taken


def _opened(opening: _Opening, cluster: ClusterState) -> Answer:
    request, topic = opening.request, cluster.topics[opening.topic_id]
    if isinstance(request, AlterTopic):
        return opening.peer, TopicAltered(request.request_id, topic=topic)
    return opening.peer, TopicCreated(request.request_id, topic=topic)


def _done(opening: _Opening) -> str:
    return "altered" if isinstance(opening.request, AlterTopic) else "created"


def _leaders(topic: TopicInfo, first: int) -> set[int]:
    return {partition.leader for partition in topic.partitions[first:]}


def _timed_out(opening: _Opening) -> Answer:
    nodes = sorted(opening.leaders - {NO_LEADER})
    slow = f"these leaders have not opened their partitions yet: node {', '.join(map(str, nodes))}"
    dead = "some partitions have no leader" if NO_LEADER in opening.leaders else ""
    return _failed(
        opening,
        TimedOutError(
            f"topic {opening.request.name!r} was {_done(opening)}, but after {opening.request.timeout_ms} ms "
            f"{' and '.join(filter(None, (slow if nodes else '', dead)))}; it can be written once they do"
        ),
    )


def _failed(opening: _Opening, error: TailraceError) -> Answer:
    return opening.peer, failure(opening.request.request_id, error)
