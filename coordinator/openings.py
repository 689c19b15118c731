"""CreateTopic requests that wait for the leaders to open the partitions. Pure: time comes in as `now`.

Soft state: a coordinator that restarts forgets who waits, as do the connections it waited on.
"""

from dataclasses import dataclass

from tailrace.protocol.cluster import NO_LEADER, ClusterState, TopicInfo
from tailrace.protocol.errors import ShuttingDownError, TailraceError, TimedOutError, UnknownTopicError
from tailrace.protocol.messages import CreateTopic, Reply, TopicCreated
from tailrace.protocol.wire import failure

Answer = tuple[bytes, Reply]


@dataclass
class _Opening:
    """`leaders` have not yet said that they applied `version`."""

    peer: bytes
    request: CreateTopic
    deadline: float
    version: int
    leaders: set[int]


class Openings:
    """Who waits for which new topic."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, _Opening] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, peer: bytes, request: CreateTopic, topic: TopicInfo, version: int, now: float) -> None:
        """Wait until the topic's leaders have applied `version`, or for the request's time-out."""
        deadline = now + request.timeout_ms / 1000
        self._waiting[topic.topic_id] = _Opening(peer, request, deadline, version, _leaders(topic))

    def elected(self, topic: TopicInfo, version: int) -> None:
        """Partitions of a topic have other leaders: wait for these."""
        if (opening := self._waiting.get(topic.topic_id)) is not None:
            opening.version = version
            opening.leaders = _leaders(topic)

    def applied(self, node_id: int, version: int, cluster: ClusterState) -> list[Answer]:
        """A node has applied `version`; the answers of those who waited only for it."""
        done = []
        for topic_id, opening in self._waiting.items():
            if version >= opening.version and node_id in opening.leaders:
                opening.leaders.discard(node_id)
                if not opening.leaders:
                    done.append(topic_id)
        return [self._created(topic_id, cluster) for topic_id in done]

    def removed(self, topic_id: bytes) -> list[Answer]:
        """The topic was deleted again."""
        if (opening := self._waiting.pop(topic_id, None)) is None:
            return []
        return [_failed(opening, UnknownTopicError(f"topic {opening.request.name!r} was deleted meanwhile"))]

    def timed_out(self, now: float) -> list[Answer]:
        """The answers of those who have waited long enough."""
        late = [topic_id for topic_id, opening in self._waiting.items() if now >= opening.deadline]
        return [_timed_out(self._waiting.pop(topic_id)) for topic_id in late]

    def stop(self) -> list[Answer]:
        """The answers when the coordinator stops."""
        error = "the topic was created, but the coordinator stops before its leaders have opened it"
        answers = [_failed(opening, ShuttingDownError(error)) for opening in self._waiting.values()]
        self._waiting.clear()
        return answers

    def next_deadline(self) -> float | None:
        """When `timed_out` has something to tell."""
        return min((opening.deadline for opening in self._waiting.values()), default=None)

    def _created(self, topic_id: bytes, cluster: ClusterState) -> Answer:
        opening = self._waiting.pop(topic_id)
        return opening.peer, TopicCreated(opening.request.request_id, topic=cluster.topics[topic_id])


def _leaders(topic: TopicInfo) -> set[int]:
    return {partition.leader for partition in topic.partitions}


def _timed_out(opening: _Opening) -> Answer:
    nodes = sorted(opening.leaders - {NO_LEADER})
    slow = f"these leaders have not opened their partitions yet: node {', '.join(map(str, nodes))}"
    dead = "some partitions have no leader" if NO_LEADER in opening.leaders else ""
    return _failed(
        opening,
        TimedOutError(
            f"topic {opening.request.name!r} was created, but after {opening.request.timeout_ms} ms "
            f"{' and '.join(filter(None, (slow if nodes else '', dead)))}; it can be written once they do"
        ),
    )


def _failed(opening: _Opening, error: TailraceError) -> Answer:
    return opening.peer, failure(opening.request.request_id, error)
