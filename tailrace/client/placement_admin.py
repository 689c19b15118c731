"""The admin client's part for who holds and who leads partitions, and for nodes that come and go."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

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
from tailrace.protocol.cluster import ClusterState, PartitionInfo
from tailrace.protocol.errors import (
    InvalidArgumentError,
    NotEnoughNodesError,
    TailraceError,
    UnknownNodeError,
    UnknownPartitionError,
)
from tailrace.protocol.limits import PARTITIONS_PER_REQUEST_MAX
from tailrace.protocol.messages import DescribeLogs, LogsDescribed
from tailrace.protocol.record import TopicPartition

from .admin_calls import AdminCalls, left_s
from .arguments import INT32_MAX, INT64_MAX, check_int, items_of, list_of, partition_of
from .descriptions import DrainProgress, ElectionResult, describe_logs
from .moves import MoveDescription, describe_move, moving, sizes_of
from .rebalance import even_plan

MOVE_SIZES_WITHIN_S: Final = 3.0


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
            reply = self._call(LeadersElected, partial(ElectLeaders, topics=chosen), deadline)
            moved += reply.moved
            if not reply.more:
                return ElectionResult(moved=moved, waiting=reply.waiting)

    def move_partitions(
        self,
        replicas: Mapping[TopicPartition, Iterable[int]],
        *,
        throttle_bytes_per_s: int = 0,
        timeout_ms: int | None = None,
    ) -> int:
        """Give partitions to these nodes, the first of which is to lead; returns how many have yet to move.

        The old replicas stay until then, so that nothing stops and nothing is lost; `describe_topic` tells
        how far it is. Moving a partition to the nodes that it had calls its move off. All are accepted or
        none, but of more than PARTITIONS_PER_REQUEST_MAX so many at a time.

        `throttle_bytes_per_s`: each node that gets partitions copies at most so much for them, in order to
        leave the rest to clients; 0 for no bound. Moving partitions again to where they move changes it.

        Raises UnknownTopicError, UnknownPartitionError, UnknownNodeError, InvalidArgumentError,
        NotEnoughNodesError for a node that is dead, LimitExceededError.
        """
        throttle = check_int("throttle_bytes_per_s", throttle_bytes_per_s, 0, INT64_MAX)
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
        waiting = 0
        for start in range(0, len(moves), PARTITIONS_PER_REQUEST_MAX):
            some = moves[start : start + PARTITIONS_PER_REQUEST_MAX]
            request = partial(MovePartitions, moves=some, throttle=throttle)
            waiting += self._call(PartitionsMoving, request, deadline, (NotEnoughNodesError,)).moving
        return waiting

    def plan_rebalance(self, *, timeout_ms: int | None = None) -> dict[TopicPartition, tuple[int, ...]]:
        """What `move_partitions` would have to do for nodes to hold and lead evenly; empty if they do.

        Nodes that are dead or draining get nothing. Partitions that move are left alone, and count as what
        they will be: so a plan can be made again while one is carried out.
        """
        state = self._refreshed(timeout_ms)
        return {
            TopicPartition(state.topics[topic_id].name, index): replicas
            for (topic_id, index), replicas in even_plan(state).items()
        }

    def list_moves(self, *, timeout_ms: int | None = None) -> list[MoveDescription]:
        """The partitions that move, and how far they are, in the order of topics and partitions.

        A node that does not say what it holds within MOVE_SIZES_WITHIN_S counts as one that holds nothing.
        """
        deadline = self._deadline(timeout_ms)
        state = self._engine.refresh(left_s(deadline))
        moves = moving(state)
        wanted = {n for _, _, part in moves for n in (part.leader, *part.target) if _is_alive(state, n)}
        asked_s = min(left_s(deadline), MOVE_SIZES_WITHIN_S)
        answers = {n: self._engine.ask(n, DescribeLogs, timeout_s=asked_s) for n in sorted(wanted)}
        logs = {}
        for node_id, answer in answers.items():
            outcome = answer.outcome(asked_s)
            if not isinstance(outcome, TailraceError) and isinstance(outcome[0], LogsDescribed):
                logs[node_id] = describe_logs(node_id, outcome[0], state)
        sizes = sizes_of(logs)
        return [describe_move(topic, index, part, sizes) for topic, index, part in moves]

    def cancel_moves(
        self, partitions: Iterable[TopicPartition] | None = None, *, timeout_ms: int | None = None
    ) -> int:
        """Call moves off, of these partitions or of all: who had them has them. Returns how many.

        Raises InvalidArgumentError for a partition that does not move, and what `move_partitions` raises.
        """
        before = {place: part.former for place, part in self._moving(partitions, timeout_ms).items()}
        if before:
            self.move_partitions(before, timeout_ms=timeout_ms)
        return len(before)

    def throttle_moves(self, throttle_bytes_per_s: int, *, timeout_ms: int | None = None) -> int:
        """Bound what each node copies for the moves that are under way (0: no bound). Returns how many."""
        check_int("throttle_bytes_per_s", throttle_bytes_per_s, 0, INT64_MAX)
        targets = {place: part.target for place, part in self._moving(None, timeout_ms).items()}
        if targets:
            self.move_partitions(targets, throttle_bytes_per_s=throttle_bytes_per_s, timeout_ms=timeout_ms)
        return len(targets)

    def _moving(
        self, partitions: Iterable[TopicPartition] | None, timeout_ms: int | None
    ) -> dict[TopicPartition, PartitionInfo]:
        found = {
            TopicPartition(name, index): part for name, index, part in moving(self._refreshed(timeout_ms))
        }
        if partitions is None:
            return found
        chosen = [TopicPartition(*partition_of(each)) for each in list_of("partitions", partitions)]
        for place in chosen:
            if place not in found:
                raise InvalidArgumentError(f"{place.topic}-{place.partition} does not move")
        return {place: found[place] for place in chosen}

    def drain_node(
        self,
        node_id: int,
        *,
        cancel: bool = False,
        throttle_bytes_per_s: int = 0,
        timeout_ms: int | None = None,
    ) -> DrainProgress:
        """Move everything off a node, and place nothing new on it; `cancel` takes that back.

        Returns at once, with what the node holds still. May be called again, to see how far it is and to
        place what no other node could take before. `throttle_bytes_per_s` as in `move_partitions`.
        Raises UnknownNodeError, LimitExceededError.
        """
        check_int("node_id", node_id, 0, INT32_MAX)
        throttle = check_int("throttle_bytes_per_s", throttle_bytes_per_s, 0, INT64_MAX)
        request = partial(DrainNode, node_id=node_id, draining=not cancel, throttle=throttle)
        reply = self._call(NodeDraining, request, self._deadline(timeout_ms))
        return DrainProgress(node_id=node_id, held=reply.held, stuck=reply.stuck)

    def remove_node(self, node_id: int, *, timeout_ms: int | None = None) -> None:
        """Forget a node that holds nothing any more, and is dead or draining. One that runs comes back.

        Raises UnknownNodeError, unless that is so at a retry only; InvalidArgumentError while it holds
        something.
        """
        check_int("node_id", node_id, 0, INT32_MAX)
        request = partial(RemoveNode, node_id=node_id)
        self._remove(NodeForgotten, request, self._deadline(timeout_ms), UnknownNodeError)


def _is_alive(state: ClusterState, node_id: int) -> bool:
    node = state.nodes.get(node_id)
    return node is not None and node.alive
