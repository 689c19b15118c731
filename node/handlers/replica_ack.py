"""ReplicaAck: more has come to a follower's disk while its fetch waits here.

- each partition stands alone; the high watermark may move, replicas come into sync;
- only a follower that has fetched in this leader epoch is heard, and only what is more than it said before;
- there is no answer: what cannot be heard, its next fetch says again, and is told why.
"""

from tailrace.protocol.errors import TailraceError
from tailrace.protocol.replica_messages import ReplicaAck
from tailrace.transport.peer_arenas import Payload

from ..broker import Broker


def handle(broker: Broker, peer: bytes, request: ReplicaAck, payload: Payload, now: float) -> None:
    """Take note."""
    for entry in request.entries:
        try:
            log = broker.leaders.find(entry.topic_id, entry.partition, entry.leader_epoch)
        except TailraceError:
            continue
        broker.replication.acknowledged(log.key, request.node_id, request.node_epoch, entry.offset, now)
