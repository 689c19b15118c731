"""CreateTopic: a new topic, its partitions placed evenly over the living nodes.

- Name, numbers and configuration are checked first; then that the topic is new; then that the
  cluster has room, and nodes.
- The replicas of a partition lie in as many racks as there are. They start empty, so all are in sync.
- Answered when the leaders have opened the partitions (`openings.py`), so that a record can be
  written at once; when they don't in time the request fails with TIMED_OUT, but the topic exists.
"""

from tailrace.protocol.cluster import PartitionInfo, TopicChanged, TopicInfo
from tailrace.protocol.errors import (
    InvalidArgumentError,
    InvalidConfigError,
    LimitExceededError,
    TopicExistsError,
)
from tailrace.protocol.limits import (
    PARTITIONS_MAX,
    PARTITIONS_PER_TOPIC_MAX,
    REPLICATION_FACTOR_MAX,
    SNAPSHOT_BYTES_MAX,
    TOPICS_MAX,
)
from tailrace.protocol.messages import CreateTopic

from ..decision import Decision
from ..placement import place
from ..snapshot_size import topic_bytes
from ..state import State
from ..topic_settings import check_topic_name, parse_topic_config


def decide(state: State, request: CreateTopic, topic_id: bytes) -> Decision:
    """`topic_id` is new and random.

    Raises InvalidTopicError, InvalidArgumentError, InvalidConfigError, TopicExistsError,
    NotEnoughNodesError, LimitExceededError.
    """
    check_topic_name(request.name)
    _check_numbers(request)
    config = parse_topic_config(request.config, request.replication_factor)
    if request.name in state.cluster.topic_ids:
        raise TopicExistsError(f"topic {request.name!r} exists")
    _check_room(state, request)
    placed = place(request.partitions, request.replication_factor, state.loads(), state.racks())
    partitions = tuple(
        PartitionInfo(replicas, leader=replicas[0], leader_epoch=0, partition_epoch=0, isr=replicas)
        for replicas in placed
    )
    topic = TopicInfo(topic_id, request.name, config, partitions)
    if state.snapshot_bytes + topic_bytes(topic) > SNAPSHOT_BYTES_MAX:
        raise LimitExceededError("the cluster state has no room for this topic: delete topics")
    return Decision(
        changes=(TopicChanged(topic),),
        opening=topic_id,
        notes=(f"topic {request.name} created with {request.partitions} partitions",),
    )


def _check_numbers(request: CreateTopic) -> None:
    if request.partitions < 1:
        raise InvalidArgumentError(f"a topic has at least one partition, not {request.partitions}")
    if request.partitions > PARTITIONS_PER_TOPIC_MAX:
        raise LimitExceededError(
            f"{request.partitions} partitions, at most {PARTITIONS_PER_TOPIC_MAX} a topic are possible"
        )
    if request.replication_factor < 1:
        raise InvalidConfigError(f"the replication factor is at least 1, not {request.replication_factor}")
    if request.replication_factor > REPLICATION_FACTOR_MAX:
        raise InvalidConfigError(
            f"replication factor {request.replication_factor}, at most {REPLICATION_FACTOR_MAX} is possible"
        )


def _check_room(state: State, request: CreateTopic) -> None:
    if len(state.cluster.topics) >= TOPICS_MAX:
        raise LimitExceededError(f"there are {TOPICS_MAX} topics, which is the most that is possible")
    if state.index.partitions + request.partitions > PARTITIONS_MAX:
        raise LimitExceededError(
            f"there are {state.index.partitions} partitions; {request.partitions} more would be over the "
            f"{PARTITIONS_MAX} that are possible"
        )
