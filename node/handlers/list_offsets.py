"""List offsets: the log start, the high watermark, or the first record at or after a time.

- each query stands alone, its error too;
- EARLIEST and LATEST are answered at once; with any other timestamp in it, the whole request goes
  to the reader thread, since an index lookup may wait for the disk;
- no record at or after the time: offset -1, timestamp -1, no error;
- the end of an earlier leader epoch is where the log ended while nobody led it: a consumer that began to
  read then starts there, and misses nothing of what the next leader took;
- where the log ends, or that it has no such record, is told only by a leader who surely still is the leader,
  and knows what is committed.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from tailrace.protocol.errors import (
    BusyError,
    LeaderNotAvailableError,
    MalformedRequestError,
    TailraceError,
)
from tailrace.protocol.messages import (
    EARLIEST,
    LATEST,
    NO_EPOCH,
    OK,
    ListOffsets,
    OffsetQuery,
    OffsetResult,
    OffsetsListed,
)
from tailrace.protocol.wire import error_info
from tailrace.transport.peer_arenas import Payload

from ..broker import Broker
from ..storage.environment import Storage
from ..storage.partition_log import PartitionLog

NO_SUCH_RECORD: Final = OffsetResult(OK, -1, -1)


class Lookup(NamedTuple):
    """A query with its log, or why there is none; `unsure`: why nothing can be said of its end."""

    query: OffsetQuery
    log: PartitionLog | TailraceError
    unsure: TailraceError | None = None


def handle(broker: Broker, peer: bytes, request: ListOffsets, payload: Payload, now: float) -> None:
    """Answer, or hand to the reader."""
    if payload.frames:
        raise MalformedRequestError(f"a request for offsets with {len(payload.frames)} payload frames")
    lookups = [_lookup(broker, query, now) for query in request.queries]
    look = partial(_look_all, broker.storage, request.request_id, lookups)
    if all(query.timestamp in (EARLIEST, LATEST) for query in request.queries):
        broker.reply(peer, look()[0])
    elif not broker.fetch_slots.take(peer, 1):
        raise BusyError("too many reads of this connection wait; retry later")
    elif not broker.reader.submit(peer, request.request_id, look):
        broker.fetch_slots.release(peer, 1)
        raise BusyError("too many reads wait for the disk; retry later")


def _lookup(broker: Broker, query: OffsetQuery, now: float) -> Lookup:
    try:
        log = broker.leaders.find(query.topic_id, query.partition, query.leader_epoch)
    except TailraceError as error:
        return Lookup(query, error)
    try:
        broker.replication.refuse_end(log, now)
    except LeaderNotAvailableError as error:
        return Lookup(query, log, error)
    return Lookup(query, log)


def _look_all(
    storage: Storage, request_id: int, lookups: Sequence[Lookup]
) -> tuple[OffsetsListed, list[bytes]]:
    return OffsetsListed(request_id, results=[_look(storage, *lookup) for lookup in lookups]), []


def _look(
    storage: Storage, query: OffsetQuery, log: PartitionLog | TailraceError, unsure: TailraceError | None
) -> OffsetResult:
    if isinstance(log, TailraceError):
        return OffsetResult(error_info(log), -1, -1)
    if query.timestamp == EARLIEST:
        return OffsetResult(OK, log.log_start_offset, -1)
    at_end = OffsetResult(OK, _end(storage, query, log), -1) if query.timestamp == LATEST else NO_SUCH_RECORD
    try:
        if query.timestamp != LATEST and (found := storage.offset_for_timestamp(log, query.timestamp)):
            return OffsetResult(OK, *found)
    except TailraceError as error:
        return OffsetResult(error_info(error), -1, -1)
    return at_end if unsure is None else OffsetResult(error_info(unsure), -1, -1)


def _end(storage: Storage, query: OffsetQuery, log: PartitionLog) -> int:
    """The high watermark, or where an earlier epoch ended. Nobody is told of records above it."""
    if query.ended_epoch == NO_EPOCH:
        return log.high_watermark
    _, end_offset = storage.end_of_epoch(log, query.ended_epoch)
    return min(end_offset, log.high_watermark)
