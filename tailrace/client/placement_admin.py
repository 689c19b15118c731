"""The admin client's part for who holds and who leads partitions, and for nodes that come and go."""

from collections.abc import Iterable, Mapping
from functools import partial

from tailrace.protocol.admin_messages import (
    DrainNode,
    ElectLeaders,
    LeadersElected,
    MovePartitions,
    NodeDraining,
    NodeForgotten,
    PartitionMove,
    PartitionsMoving,
    RemoveNode,
)
from tailrace.protocol.errors import (
    InvalidArgumentError,
    NotEnoughNodesError,
    UnknownNodeError,
    UnknownPartitionError,
)
from tailrace.protocol.limits import PARTITIONS_PER_REQUEST_MAX
from tailrace.protocol.messages import Request
from tailrace.protocol.record import TopicPartition

from .admin_calls import AdminCalls, left_s, unexpected
from .arguments import INT32_MAX, check_int, items_of, list_of, partition_of
from .descriptions import DrainProgress, ElectionResult
from .rebalance import even_plan


class PlacementAdmin(AdminCalls):
    """Moves leaders and replicas, and empties nodes."""

    def elect_leaders(
        self, topics: Iterable[str] | None = None, *, timeout_ms: int | None = None
    ) -> ElectionResult:
        """Let first replicas lead again that are alive and in sync: of these topics, or of all.

        That happens by itself, some seconds after a node has come back. Raises UnknownTopicError.
        """
        chosen = None if topics is None else tuple(list_of("topics", topics))
        deadline = self._deadline(timeout_ms)
        moved = 0
        while True:
            reply = self._call(partial(ElectLeaders, topics=chosen), deadline)
            if not isinstance(reply, LeadersElected):
                raise unexpected(reply)
            moved += reply.moved
            if not reply.more:
                return ElectionResult(moved=moved, waiting=reply.waiting)

    def move_partitions(
        self,
        replicas: Mapping[TopicPartition, Iterable[int]],
        *,
        timeout_ms: int | None = None,
    ) -> int:
        """Give partitions to these nodes, the first of which is to lead; returns how many have yet to move.

        The old replicas stay until then, so that nothing stops and nothing is lost; `describe_topic` tells
        how far it is. Moving a partition to the nodes that it had calls its move off. All are accepted or
        none, but of more than PARTITIONS_PER_REQUEST_MAX so many at a time.

        Raises UnknownTopicError, UnknownPartitionError, UnknownNodeError, InvalidArgumentError,
        NotEnoughNodesError for a node that is dead, LimitExceededError.
        """
        deadline = self._deadline(timeout_ms)
        state = self._engine.refresh(left_s(deadline))
        moves = []
        for place, node_ids in items_of("replicas", replicas):
            topic_name, index = partition_of(place)
            chosen = tuple(check_int("node", node, 0, INT32_MAX) for node in list_of("replicas", node_ids))
            topic = state.existing_topic(topic_name)
            if index >= len(topic.partitions):
                raise UnknownPartitionError(f"topic {topic_name!r} has no partition {index}")
            moves.append(PartitionMove(topic.topic_id, index, chosen))
        if not moves:
            raise InvalidArgumentError("replicas names no partition")
        moving = 0
        for start in range(0, len(moves), PARTITIONS_PER_REQUEST_MAX):
            some = moves[start : start + PARTITIONS_PER_REQUEST_MAX]
            reply = self._call(partial(MovePartitions, moves=some), deadline, (NotEnoughNodesError,))
            if not isinstance(reply, PartitionsMoving):
                raise unexpected(reply)
            moving += reply.moving
        return moving

    def plan_rebalance(self, *, timeout_ms: int | None = None) -> dict[TopicPartition, tuple[int, ...]]:
        """What `move_partitions` would have to do for nodes to hold and lead evenly; empty if they do.

        Nodes that are dead or draining get nothing, and partitions that move are left alone.
        """
        state = self._refreshed(timeout_ms)
        return {
            TopicPartition(state.topics[topic_id].name, index): replicas
            for (topic_id, index), replicas in even_plan(state).items()
        }

    def drain_node(
        self, node_id: int, *, cancel: bool = False, timeout_ms: int | None = None
    ) -> DrainProgress:
        """Move everything off a node, and place nothing new on it; `cancel` takes that back.

        Returns at once, with what the node holds still. May be called again, to see how far it is and to
        place what no other node could take before. Raises UnknownNodeError, LimitExceededError.
        """
        check_int("node_id", node_id, 0, INT32_MAX)
        request = partial(DrainNode, node_id=node_id, draining=not cancel)
        reply = self._call(request, self._deadline(timeout_ms))
        if not isinstance(reply, NodeDraining):
            raise unexpected(reply)
        return DrainProgress(node_id=node_id, held=reply.held, stuck=reply.stuck)

    def remove_node(self, node_id: int, *, timeout_ms: int | None = None) -> None:
        """Forget a node that holds nothing any more, and is dead or draining. One that runs comes back.

        Raises UnknownNodeError, unless that is so at a retry only; InvalidArgumentError while it holds
        something.
        """
        check_int("node_id", node_id, 0, INT32_MAX)
        attempts = 0

        def request(request_id: int) -> Request:
            nonlocal attempts
            attempts += 1
            return RemoveNode(request_id, node_id=node_id)

        try:
            reply = self._call(request, self._deadline(timeout_ms))
        except UnknownNodeError:
            if attempts == 1:
                raise
            return
        if not isinstance(reply, NodeForgotten):
            raise unexpected(reply)
