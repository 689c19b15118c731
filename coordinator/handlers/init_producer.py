"""InitProducer: a producer id and epoch for idempotent batches.

- Id -1: a new id, in epoch 0. Ids are never used twice, also after an older copy of the store was put back:
  nodes would take the records of the second producer for those of the first, sent again, and drop them.
  So each start of the coordinator skips ids, a random number of them.
- An id with its current epoch: the same id, one epoch up (KIP-360); older epochs are fenced.
- An id that was never issued, or another epoch than the current one: FENCED_PRODUCER.
- The epoch just before the current one: a new id. It may be a retry whose first reply was lost, and
  a new id is right for that as well as for a producer that was overtaken.
- When the epoch has no room to go up (16 bits), or too many raised epochs are remembered: a new id.
"""

from typing import Final

from tailrace.protocol.errors import FencedProducerError
from tailrace.protocol.limits import PRODUCER_EPOCH_MAX, PRODUCER_EPOCHS_MAX
from tailrace.protocol.messages import InitProducer, ProducerReady

from ..decision import Decision
from ..private_state import ProducerEpochRaised, ProducerIdIssued
from ..state import State

SKIPPED_BITS: Final = 40
"""Leaves room for 8 million starts. Of a million ids that were issued after the copy was made one is issued
again once in a million times."""


def skip_ids(state: State, random: int) -> ProducerIdIssued:
    """What a coordinator stores as it starts. `random` has SKIPPED_BITS."""
    return ProducerIdIssued(state.next_producer_id + random)


def decide(state: State, request: InitProducer) -> Decision:
    """Raises FencedProducerError."""
    producer_id = request.producer_id
    if producer_id == -1:
        return _issue(state, request)
    if not 0 <= producer_id < state.next_producer_id:
        raise FencedProducerError(f"producer id {producer_id} was never issued by this cluster")
    epoch = state.producer_epochs.get(producer_id, 0)
    if epoch > 0 and request.producer_epoch == epoch - 1:
        return _issue(state, request)
    if request.producer_epoch != epoch:
        raise FencedProducerError(
            f"producer {producer_id} is in epoch {epoch}, not {request.producer_epoch}: another took over"
        )
    remembered = len(state.producer_epochs) + (producer_id not in state.producer_epochs)
    if epoch >= PRODUCER_EPOCH_MAX or remembered > PRODUCER_EPOCHS_MAX:
        return _issue(state, request)
    return Decision(
        ProducerReady(request.request_id, producer_id=producer_id, producer_epoch=epoch + 1),
        private=(ProducerEpochRaised(producer_id, epoch + 1),),
    )


def _issue(state: State, request: InitProducer) -> Decision:
    producer_id = state.next_producer_id
    reply = ProducerReady(request.request_id, producer_id=producer_id, producer_epoch=0)
    return Decision(reply, private=(ProducerIdIssued(producer_id),))
