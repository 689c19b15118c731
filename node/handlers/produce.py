"""Produce: append batches, answer once they are on disk.

- each entry stands alone: one that is refused does not hinder the others;
- refused at once: a partition that is not led here in the entry's leader epoch, a batch whose
  header does not hold, what is over the bytes that a connection, or all, may have waiting (BUSY);
- refused by the commit: a wrong CRC, timestamps out of bounds, a sequence out of order or fenced, no space;
- a duplicate is answered with the offset that it was first stored at;
- batches in shared memory are checked as they are stored, since the client can still change them;
- batches of one connection are appended in the order in which they came;
- acks=0 is never answered; acks=1 and acks=all after the commit.
"""

from collections.abc import Sequence
from typing import Final

from tailrace.protocol.batch import parse_header
from tailrace.protocol.errors import BusyError, MalformedRequestError, StorageFaultError, TailraceError
from tailrace.protocol.messages import ACKS_NONE, OK, Produce, Produced, ProduceEntry, ProduceResult
from tailrace.protocol.wire import error_info, failure
from tailrace.transport.peer_arenas import Payload

from ..broker import Broker
from ..storage.planner import Append, Appended
from ..work import PendingProduce

_BUSY: Final = "too many bytes wait for this node's disk: {} of this connection, {} of all; retry later"


def handle(broker: Broker, peer: bytes, request: Produce, payload: Payload, now: float) -> None:
    """Check what needs no disk, hand the rest to the writer."""
    entries, frames = request.entries, payload.frames
    if len(entries) != len(frames):
        raise MalformedRequestError(f"{len(entries)} entries with {len(frames)} batches")
    produce = PendingProduce(peer, request.request_id, request.acks, [None] * len(entries))
    now_ms = broker.wall_ms()
    for place, (entry, frame) in enumerate(zip(entries, frames, strict=True)):
        try:
            append = _accept(broker, peer, entry, frame, now_ms=now_ms, shared=payload.shared)
        except TailraceError as error:
            produce.results[place] = _refused(error)
        else:
            produce.places.append(place)
            produce.appends.append(append)
            produce.leader_epochs.append(entry.leader_epoch)
            produce.size += len(frame)
    if produce.appends:
        broker.writer.submit(produce)
    else:
        _reply(broker, produce)


def _accept(
    broker: Broker, peer: bytes, entry: ProduceEntry, frame: memoryview, *, now_ms: int, shared: bool
) -> Append:
    log = broker.leaders.find(entry.topic_id, entry.partition, entry.leader_epoch)
    header = parse_header(frame)
    if not broker.produce_bytes.take(peer, len(frame)):
        raise BusyError(_BUSY.format(broker.produce_bytes.held(peer), broker.produce_bytes.total))
    return Append(log, frame, header, now_ms, shared)


def _refused(error: TailraceError) -> ProduceResult:
    return ProduceResult(error_info(error), -1, -1)


def committed(
    broker: Broker, produces: Sequence[tuple[PendingProduce, Sequence[Appended | TailraceError]]]
) -> None:
    """The writer is done with these produces: answer them."""
    for produce, outcomes in produces:
        broker.produce_bytes.release(produce.peer, produce.size)
        for place, append, outcome in zip(produce.places, produce.appends, outcomes, strict=True):
            if isinstance(outcome, Appended):
                result = ProduceResult(OK, outcome.base_offset, append.log.log_start_offset)
            else:
                result = _refused(outcome)
            produce.results[place] = result
        _reply(broker, produce)


def _reply(broker: Broker, produce: PendingProduce) -> None:
    if produce.acks != ACKS_NONE:
        results = [result for result in produce.results if result is not None]
        broker.reply(produce.peer, Produced(produce.request_id, results=results))


def faulted(broker: Broker, produces: Sequence[PendingProduce], error: StorageFaultError) -> None:
    """The storage failed: nothing of these is acknowledged."""
    for produce in produces:
        broker.produce_bytes.release(produce.peer, produce.size)
        if produce.acks != ACKS_NONE:
            broker.reply(produce.peer, failure(produce.request_id, error))
