"""ElectLeaders: the first replicas lead again, now instead of some seconds later.

- Of the named topics, or of all. An unknown name: UNKNOWN_TOPIC, and nothing is elected.
- Only who is alive and in the ISR can be elected so, and nothing is lost.
- At most PARTITIONS_PER_UPDATE_MAX partitions at once; the answer tells if there are more.
"""

from itertools import chain

from tailrace.protocol.admin_messages import ElectLeaders, LeadersElected
from tailrace.protocol.limits import PARTITIONS_PER_UPDATE_MAX

from ..decision import Decision
from ..preferred import next_slice
from ..state import State


def decide(state: State, request: ElectLeaders) -> Decision:
    """Raises UnknownTopicError."""
    topics = None
    if request.topics is not None:
        topics = frozenset(state.cluster.existing_topic(name).topic_id for name in request.topics)
    changes, more = next_slice(state, PARTITIONS_PER_UPDATE_MAX, topics)
    places = chain.from_iterable(state.index.displaced.values())
    displaced = sum(topics is None or topic_id in topics for topic_id, _ in places)
    moved = len(changes)
    return Decision(
        LeadersElected(request.request_id, moved=moved, waiting=displaced - moved, more=more), changes
    )
