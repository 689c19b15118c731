"""A group is on disk: who hears of it, one after the other.

- followers first: what has come in is answered once they have it;
- then the few before the many: those who fetch, unless they are more than those who wait for an ack. A fetch
  that is answered late delays one consumer by all the acks before it, and an ack a producer likewise.
"""

from ..broker import Broker
from ..work import Committed
from . import fetch, produce, replica_fetch


def handle(broker: Broker, letter: Committed, now: float) -> None:
    """Answer what has waited for this commit."""
    produces, grown, copies, seconds = letter
    replica_fetch.unpark(broker, broker.parked_replicas.changed(grown), now)
    woken = broker.fetches.appended(broker.replication.grown(grown))
    few_fetch = len(woken) <= len(produces)
    if few_fetch:
        fetch.unpark(broker, woken, now)
    produce.committed(broker, produces, now)
    if not few_fetch:
        fetch.unpark(broker, woken, now)
    broker.replication.copied(copies, seconds, now)
