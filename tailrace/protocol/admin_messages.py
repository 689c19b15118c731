"""What an administrator asks of the coordinator about who holds and who leads partitions."""

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from .cluster import Int32, Int64, Name, NodeIds, PartitionIndex, TopicId
from .limits import PARTITIONS_PER_REQUEST_MAX, TOPICS_MAX
from .message import Message


class ElectLeaders(Message, frozen=True, tag=40):
    """Let the first replicas lead, where they are alive and in the ISR: of these topics, or of all (None)."""

    topics: Annotated[tuple[Name, ...], Meta(max_length=TOPICS_MAX)] | None = None


class LeadersElected(Message, frozen=True, kw_only=True, tag=140):
    """How many partitions have another leader now.

    `waiting`: so many are led by another replica than the first one, which cannot lead now. `more`: there
    was more to do than fits into one update; ask again.
    """

    moved: Int32 = 0
    waiting: Int32 = 0
    more: bool = False


class PartitionMove(Struct, frozen=True, array_like=True):
    """Who is to hold a partition; the first of `replicas` is to lead it."""

    topic_id: TopicId
    partition: PartitionIndex
    replicas: NodeIds


class MovePartitions(Message, frozen=True, kw_only=True, tag=41):
    """Partitions get other replicas: all of them are accepted, or none (KIP-455).

    A partition that moves already gets another target; its replicas in sync as target end the move.
    A node that gets partitions by it copies at most `throttle` bytes a second; 0: no bound.
    """

    moves: Annotated[list[PartitionMove], Meta(min_length=1, max_length=PARTITIONS_PER_REQUEST_MAX)]
    throttle: Int64 = 0


class PartitionsMoving(Message, frozen=True, kw_only=True, tag=141):
    """How many of them now wait for replicas to catch up; the others are where they are to be."""

    moving: Int32 = 0


class DrainNode(Message, frozen=True, kw_only=True, tag=42):
    """Move everything off a node, and place nothing new on it; with `draining` False: no more of that.

    May be asked again, to plan what had no room before. `throttle` as in MovePartitions.
    """

    node_id: Int32
    draining: bool = True
    throttle: Int64 = 0


class NodeDraining(Message, frozen=True, kw_only=True, tag=142):
    """How many partitions the node still holds, and how many of them have no other node to go to."""

    held: Int32 = 0
    stuck: Int32 = 0


class RemoveNode(Message, frozen=True, kw_only=True, tag=43):
    """Forget a node that holds nothing and is dead or draining. One that still runs registers anew."""

    node_id: Int32


class NodeForgotten(Message, frozen=True, tag=143):
    """Done."""


AdminRequest: TypeAlias = ElectLeaders | MovePartitions | DrainNode | RemoveNode
AdminReply: TypeAlias = LeadersElected | PartitionsMoving | NodeDraining | NodeForgotten
