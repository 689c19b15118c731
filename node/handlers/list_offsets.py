"""List offsets: the log start, the high watermark, or the first record at or after a time.

- each query stands alone, its error too;
- EARLIEST and LATEST are answered at once; with any other timestamp in it, the whole request goes
  to the reader thread, since an index lookup may wait for the disk;
- no record at or after the time: offset -1, timestamp -1, no error.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from tailrace.protocol.errors import BusyError, MalformedRequestError, TailraceError
from tailrace.protocol.messages import (
    EARLIEST,
    LATEST,
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
from .fetch import refuse_unsettled


class Lookup(NamedTuple):
    """A query with its log, or why there is none."""

    query: OffsetQuery
    log: PartitionLog | TailraceError


def handle(broker: Broker, peer: bytes, request: ListOffsets, payload: Payload, now: float) -> None:
    """Answer, or hand to the reader."""
    if payload.frames:
        raise MalformedRequestError(f"a request for offsets with {len(payload.frames)} payload frames")
    lookups = [_lookup(broker, query) for query in request.queries]
    look = partial(_look_all, broker.storage, request.request_id, lookups)
    if all(query.timestamp in (EARLIEST, LATEST) for query in request.queries):
        broker.reply(peer, look()[0])
    elif not broker.fetch_slots.take(peer, 1):
        raise BusyError("too many reads of this connection wait; retry later")
    elif not broker.reader.submit(peer, request.request_id, look):
        broker.fetch_slots.release(peer, 1)
        raise BusyError("too many reads wait for the disk; retry later")


def _lookup(broker: Broker, query: OffsetQuery) -> Lookup:
    try:
        return Lookup(query, broker.leaders.find(query.topic_id, query.partition, query.leader_epoch))
    except TailraceError as error:
        return Lookup(query, error)


def _look_all(
    storage: Storage, request_id: int, lookups: Sequence[Lookup]
) -> tuple[OffsetsListed, list[bytes]]:
    return OffsetsListed(request_id, results=[_look(storage, *lookup) for lookup in lookups]), []


def _look(storage: Storage, query: OffsetQuery, log: PartitionLog | TailraceError) -> OffsetResult:
    if isinstance(log, TailraceError):
        return OffsetResult(error_info(log), -1, -1)
    if query.timestamp == EARLIEST:
        return OffsetResult(OK, log.log_start_offset, -1)
    try:
        if query.timestamp == LATEST:
            refuse_unsettled(log)
            return OffsetResult(OK, log.high_watermark, -1)
        found = storage.offset_for_timestamp(log, query.timestamp)
    except TailraceError as error:
        return OffsetResult(error_info(error), -1, -1)
    return OffsetResult(OK, *(found or (-1, -1)))
