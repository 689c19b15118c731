"""DeleteTopic: a topic and its records go.

- An unknown name: UNKNOWN_TOPIC, with similar ones.
- Nodes that hear of it drop the logs; for those that are away the id is remembered and told at
  their next registration. Of TOMBSTONES_MAX ids the oldest gives way.
"""

from tailrace.protocol.cluster import TopicRemoved
from tailrace.protocol.limits import TOMBSTONES_MAX
from tailrace.protocol.messages import DeleteTopic, TopicDeleted

from ..decision import Decision
from ..private_state import PrivateChange, TombstoneDropped, TopicBuried
from ..state import State


def decide(state: State, request: DeleteTopic) -> Decision:
    """Raises UnknownTopicError."""
    topic = state.cluster.existing_topic(request.name)
    private: list[PrivateChange] = [TopicBuried(topic.topic_id, state.cluster.version + 1)]
    if len(state.tombstones) >= TOMBSTONES_MAX:
        oldest, version = next(iter(state.tombstones.items()))
        private.append(TombstoneDropped(oldest, version))
    return Decision(
        reply=TopicDeleted(request.request_id),
        changes=(TopicRemoved(topic.topic_id),),
        private=tuple(private),
        notes=(f"topic {topic.name} deleted",),
    )
