"""AlterTopic: more partitions for a topic, and another configuration.

- A topic never gets fewer partitions: keys and offsets of those that went would mean nothing any more.
- New partitions go to the living nodes with the fewest, as those of a new topic do.
- Keys that are not named keep their values; None sets a key to its default.
- Another `min_insync_replicas` or `unclean_leader_election` counts at once: with fewer replicas needed the
  ELR of a partition clears, since records are committed without it from now on.
- Answered when the leaders have opened the new partitions, as CreateTopic; at once when there are none.
"""

from msgspec.structs import asdict, replace

from tailrace.protocol.cluster import PartitionChanged, PartitionInfo, TopicChanged, TopicConfig, TopicInfo
from tailrace.protocol.errors import InvalidConfigError, LimitExceededError
from tailrace.protocol.limits import PARTITIONS_MAX, PARTITIONS_PER_TOPIC_MAX, SNAPSHOT_BYTES_MAX
from tailrace.protocol.messages import AlterTopic, TopicAltered

from ..decision import Decision
from ..election import rules_of, settle
from ..partition_changes import unclean, unclean_warnings
from ..placement import place
from ..snapshot_size import topic_bytes
from ..state import State
from ..topic_settings import parse_topic_config


def decide(state: State, request: AlterTopic) -> Decision:
    """Raises UnknownTopicError, InvalidConfigError, NotEnoughNodesError, LimitExceededError."""
    topic = state.cluster.existing_topic(request.name)
    altered = _with_config(state, topic, _config(topic, request))
    added = _added(state, topic, request.partitions)
    if added:
        altered = replace(altered, partitions=altered.partitions + added)
    if altered == topic:
        return Decision(TopicAltered(request.request_id, topic=topic))
    if state.snapshot_bytes - topic_bytes(topic) + topic_bytes(altered) > SNAPSHOT_BYTES_MAX:
        raise LimitExceededError("the cluster state has no room for these partitions: delete topics")
    settled = zip(range(len(topic.partitions)), topic.partitions, altered.partitions, strict=False)
    elected = [PartitionChanged(topic.topic_id, i, after) for i, old, after in settled if after is not old]
    risked = unclean(state, elected)
    return Decision(
        None if added else TopicAltered(request.request_id, topic=altered),
        changes=(TopicChanged(altered),),
        opening=topic.topic_id if added else None,
        first_opening=len(topic.partitions),
        warnings=unclean_warnings(state, risked),
        notes=(f"topic {topic.name} altered: {len(altered.partitions)} partitions, {altered.config}",),
        unclean=len(risked),
    )


def _with_config(state: State, topic: TopicInfo, config: TopicConfig) -> TopicInfo:
    if config == topic.config:
        return topic
    rules = rules_of(config, state.alive(), state.draining())
    return replace(topic, config=config, partitions=tuple(settle(p, rules) for p in topic.partitions))


def _config(topic: TopicInfo, request: AlterTopic) -> TopicConfig:
    defaults = asdict(TopicConfig())
    given: dict[str, str | int] = {}
    for key, value in request.config.items():
        given[key] = defaults.get(key.replace(".", "_"), 0) if value is None else value
    named = {key.replace(".", "_") for key in given}
    kept = {key: value for key, value in asdict(topic.config).items() if key not in named}
    fewest = min(len(partition.settled_replicas) for partition in topic.partitions)
    return parse_topic_config(kept | given, fewest)


def _added(state: State, topic: TopicInfo, wanted: int) -> tuple[PartitionInfo, ...]:
    """The new partitions; none when `wanted` is 0 or what there is."""
    count = len(topic.partitions)
    if wanted in (0, count):
        return ()
    if wanted < count:
        raise InvalidConfigError(
            f"topic {topic.name!r} has {count} partitions, and none can be taken away: ask for more than that"
        )
    if wanted > PARTITIONS_PER_TOPIC_MAX:
        raise LimitExceededError(
            f"{wanted} partitions, at most {PARTITIONS_PER_TOPIC_MAX} a topic are possible"
        )
    if state.index.partitions + wanted - count > PARTITIONS_MAX:
        raise LimitExceededError(
            f"there are {state.index.partitions} partitions; {wanted - count} more would be over the "
            f"{PARTITIONS_MAX} that are possible"
        )
    replication_factor = len(topic.partitions[0].settled_replicas)
    placed = place(wanted - count, replication_factor, state.loads(), state.racks())
    return tuple(
        PartitionInfo(replicas, leader=replicas[0], leader_epoch=0, partition_epoch=0, isr=replicas)
        for replicas in placed
    )
