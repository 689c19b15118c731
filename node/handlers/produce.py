"""Produce: append batches, answer once they are on disk.

- each entry stands alone: one that is refused does not hinder the others;
- refused at once: a partition that is not led here in the entry's leader epoch, a batch whose
  header does not hold, what is over the bytes that a connection, or all, may have waiting (BUSY);
- refused by the commit: a wrong CRC, timestamps out of bounds, a sequence out of order or fenced, no space;
- a duplicate is answered with the offset that it was first stored at;
- batches in shared memory are checked as they are stored, since the client can still change them;
- batches of one connection are appended in the order in which they came;
- acks=0 is never answered, acks=1 after the commit, acks=all when all in-sync replicas have it on disk;
- NOT_ENOUGH_REPLICAS: acks=all, and fewer than min_insync_replicas are in sync;
- NOT_COMMITTED: a batch was appended, and what would have refused it before has come since, or another leader
  while it waited for other replicas. No producer may take it for one that is surely not stored.
"""

from collections.abc import Sequence
from typing import Final

from tailrace.protocol.batch import parse_header
from tailrace.protocol.errors import (
    BusyError,
    MalformedRequestError,
    NotCommittedError,
    StorageFaultError,
    TailraceError,
)
from tailrace.protocol.messages import ACKS_ALL, ACKS_NONE, OK, Produce, Produced, ProduceResult
from tailrace.protocol.wire import error_info, failure
from tailrace.transport.peer_arenas import Payload

from ..broker import Broker
from ..storage.log_plan import Append, Appended
from ..storage.partition_log import PartitionKey, PartitionLog
from ..work import PendingProduce
from . import faults

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
            log = broker.leaders.find(entry.topic_id, entry.partition, entry.leader_epoch)
            broker.replication.refuse_unwritable(log, request.acks, now)
            append = _accept(broker, peer, log, frame, now_ms=now_ms, shared=payload.shared)
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
        reply(broker, produce)


def _accept(
    broker: Broker, peer: bytes, log: PartitionLog, frame: memoryview, *, now_ms: int, shared: bool
) -> Append:
    header = parse_header(frame)
    if not broker.produce_bytes.take(peer, len(frame)):
        raise BusyError(_BUSY.format(broker.produce_bytes.held(peer), broker.produce_bytes.total))
    return Append(log, frame, header, now_ms, shared)


def _refused(error: TailraceError) -> ProduceResult:
    return ProduceResult(error_info(error), -1, -1)


def committed(
    broker: Broker, produces: Sequence[tuple[PendingProduce, Sequence[Appended | TailraceError]]], now: float
) -> None:
    """The writer is done with these produces: answer them, or have them wait for the other replicas.

    A duplicate waits too: that it was stored before says nothing of the others (RELIABILITY R3).
    """
    for produce, outcomes in produces:
        broker.produce_bytes.release(produce.peer, produce.size)
        needs: dict[PartitionKey, int] = {}
        for place, append, outcome in zip(produce.places, produce.appends, outcomes, strict=True):
            if isinstance(outcome, Appended):
                log = append.log
                if log.sole_replica:
                    result = ProduceResult(OK, outcome.base_offset, log.log_start_offset)
                else:
                    result = _replicated(broker, produce, log, outcome, needs=needs, now=now)
            else:
                faulty = isinstance(outcome, StorageFaultError)
                result = _refused(faults.found(broker, append.log, outcome) if faulty else outcome)
            produce.results[place] = result
        produce.appends = []  # their memory is not needed any more
        if needs:
            broker.replication.waiting.add(produce, needs)
        else:
            reply(broker, produce)


def _replicated(
    broker: Broker,
    produce: PendingProduce,
    log: PartitionLog,
    outcome: Appended,
    *,
    needs: dict[PartitionKey, int],
    now: float,
) -> ProduceResult:
    """What is stored here counts once the others have it (acks=all), or while this node surely leads."""
    try:
        broker.replication.refuse_unwritable(log, produce.acks, now)
    except TailraceError as error:
        return _refused(NotCommittedError(f"appended, but {error}"))
    if produce.acks == ACKS_ALL and log.high_watermark <= outcome.last_offset:
        needs[log.key] = max(needs.get(log.key, 0), outcome.last_offset + 1)
    return ProduceResult(OK, outcome.base_offset, log.log_start_offset)


def given_up(broker: Broker, produces: Sequence[PendingProduce], error: TailraceError) -> None:
    """These waited for replicas, and nobody can say any more whether they are committed."""
    for produce in produces:
        if produce.acks != ACKS_NONE:
            broker.reply(produce.peer, failure(produce.request_id, error))


def reply(broker: Broker, produce: PendingProduce) -> None:
    """All of it is decided."""
    if produce.acks != ACKS_NONE:
        results = [result for result in produce.results if result is not None]
        broker.reply(produce.peer, Produced(produce.request_id, results=results))


def faulted(broker: Broker, produces: Sequence[PendingProduce], error: StorageFaultError) -> None:
    """The storage failed: nothing of these is acknowledged."""
    for produce in produces:
        broker.produce_bytes.release(produce.peer, produce.size)
    given_up(broker, produces, error)
