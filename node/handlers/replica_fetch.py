"""ReplicaFetch: a follower reads on, past the high watermark too, and so says what it has on disk.

- each partition stands alone; one that is led in another epoch, or has no such replica, gets an error;
- a follower whose log is not a part of the leader's is told where they part (KIP-595), or where the leader's
  begins, and gets nothing else;
- its offset counts as what it has on disk: the high watermark may move, replicas come into sync; it reads on
  from its fetch offset, below which it has, on disk or on the way there, what this leader brought;
- with nothing to bring the fetch is parked until something is appended, or its wait is over;
- where there is nothing to bring, a high watermark or a log start that the follower does not know of goes
  with what is answered (KIP-1166): else it would not hear how far the last records before a rest were
  committed, and keep what retention has deleted since;
- older records, which may have to come from the disk, are read by the reader thread, which checks their CRC.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from tailrace.protocol.errors import (
    BusyError,
    NotLeaderError,
    OffsetOutOfRangeError,
    TailraceError,
)
from tailrace.protocol.limits import FETCH_REPLY_BYTES_MAX
from tailrace.protocol.messages import OK
from tailrace.protocol.replica_messages import (
    ReplicaFetch,
    ReplicaFetched,
    ReplicaFetchEntry,
    ReplicaFetchResult,
)
from tailrace.protocol.wire import error_info, failure
from tailrace.transport.peer_arenas import Payload
from tailrace.transport.server import Buffer

from ..broker import Broker
from ..fetch_reply import FetchReply, slot_of
from ..parked import ParkedFetch
from ..storage.environment import Storage
from ..storage.partition_log import PartitionLog
from ..storage.reading import checked
from . import faults

logger: Final = logging.getLogger(__name__)


class _Reading(NamedTuple):
    log: PartitionLog
    offset: int
    end_offset: int


def handle(broker: Broker, peer: bytes, request: ReplicaFetch, payload: Payload, now: float) -> None:
    """Answer, park, or hand to the reader."""
    serve(broker, ParkedFetch(peer, request, now + request.max_wait_ms / 1_000, slot_of(payload)), now)


def serve(broker: Broker, fetch: ParkedFetch, now: float) -> None:
    """A fetch that is new, or was woken, or has waited enough. It holds no slot now."""
    request = fetch.request
    results: list[ReplicaFetchResult] = []
    readings: list[_Reading] = []
    quiet: list[ReplicaFetchEntry] = []
    for entry in request.entries:
        try:
            found = _look(broker, request, entry, now)
        except TailraceError as error:
            results.append(_failed(broker, entry, error))
        else:
            if isinstance(found, ReplicaFetchResult):
                results.append(found)
            elif found is not None:
                readings.append(found)
            else:
                quiet.append(entry)
    if not results and not readings and now < fetch.deadline:
        _park(broker, fetch)
        return
    results += _ends(broker, quiet)
    broker.turn += 1
    work = partial(_read_all, broker.storage, fetch, results, readings=readings, turn=broker.turn)
    if any(reading.offset < reading.log.hot_offset for reading in readings):
        if not broker.fetch_slots.take(fetch.peer, 1):
            raise BusyError("too many fetches of this connection wait; retry later")
        if not broker.reader.submit(fetch.peer, request.request_id, work):
            broker.fetch_slots.release(fetch.peer, 1)
            raise BusyError("too many reads wait for the disk; retry later")
    else:
        reply, frames = work()
        broker.reply(fetch.peer, faults.noted(broker, reply), frames)


def _park(broker: Broker, fetch: ParkedFetch) -> None:
    if not broker.fetch_slots.take(fetch.peer, 1):
        raise BusyError("too many fetches of this connection wait; retry later")
    if not broker.parked_replicas.park(fetch):
        broker.fetch_slots.release(fetch.peer, 1)
        raise BusyError("too many fetches wait at this node; retry later")


def unpark(broker: Broker, fetches: Sequence[ParkedFetch], now: float) -> None:
    """These were woken, or have waited enough. One that fails hurts no other, as in `dispatch`."""
    for fetch in fetches:
        broker.fetch_slots.release(fetch.peer, 1)
        try:
            serve(broker, fetch, now)
        except TailraceError as error:
            broker.reply(fetch.peer, failure(fetch.request.request_id, error))
        except Exception as error:
            logger.exception("a parked fetch of follower %d failed", fetch.request.node_id)
            told = TailraceError(f"internal error: {error!r}")
            broker.reply(fetch.peer, failure(fetch.request.request_id, told))


def release(broker: Broker, fetches: Sequence[ParkedFetch], error: TailraceError | None) -> None:
    """The node stops: answer with nothing, or with why."""
    for fetch in fetches:
        broker.fetch_slots.release(fetch.peer, 1)
        request_id = fetch.request.request_id
        reply = ReplicaFetched(request_id) if error is None else failure(request_id, error)
        broker.reply(fetch.peer, reply)


def _look(
    broker: Broker, request: ReplicaFetch, entry: ReplicaFetchEntry, now: float
) -> _Reading | ReplicaFetchResult | None:
    """What there is to read, or where the logs part, or None: the follower has everything."""
    log = broker.leaders.find(entry.topic_id, entry.partition, entry.leader_epoch)
    if not broker.replication.is_replica(log.key, request.node_id):
        raise NotLeaderError(f"node {request.node_id} is no replica of {log.name}")
    end_offset = log.log_end_offset
    offset = max(entry.offset, entry.fetch_offset)
    if entry.last_epoch >= 0:
        epoch, end = broker.storage.end_of_epoch(log, entry.last_epoch)
        if epoch != entry.last_epoch or end < offset:
            return ReplicaFetchResult(
                *log.key, OK, log.high_watermark, log.log_start_offset, 0, epoch, max(end, 0)
            )
    # An empty log without epochs cannot show that it is a part of this one: it has to begin where this does.
    unknown = entry.last_epoch < 0 and offset == entry.log_start_offset != log.log_start_offset
    if unknown or not log.log_start_offset <= offset <= end_offset:
        raise OffsetOutOfRangeError(
            f"offset {offset} of {log.name}, which holds {log.log_start_offset} to {end_offset}"
        )
    broker.replication.fetched(log.key, request.node_id, request.node_epoch, entry.offset, now)
    return _Reading(log, offset, end_offset) if offset < end_offset else None


def _ends(broker: Broker, quiet: Sequence[ReplicaFetchEntry]) -> list[ReplicaFetchResult]:
    """For followers that have everything: how far it is committed, and where it starts, if that is news."""
    results = []
    for entry in quiet:
        log = broker.leaders.find(entry.topic_id, entry.partition, entry.leader_epoch)
        if log.high_watermark > entry.high_watermark or log.log_start_offset > entry.log_start_offset:
            results.append(ReplicaFetchResult(*log.key, OK, log.high_watermark, log.log_start_offset))
    return results


def _read_all(
    storage: Storage,
    fetch: ParkedFetch,
    results: list[ReplicaFetchResult],
    *,
    readings: list[_Reading],
    turn: int,
) -> tuple[ReplicaFetched, Sequence[Buffer]]:
    """One partition after the other, from the one whose turn it is. Any thread."""
    reply = FetchReply(fetch.request.max_bytes, fetch.slot)
    read = list(results)
    first = turn % len(readings) if readings else 0
    for log, offset, end_offset in (*readings[first:], *readings[:first]):
        if reply.full:
            break
        before = len(reply.batches)
        keep = reply.keep if offset >= log.hot_offset else checked(log, reply.keep)
        try:
            found = storage.read(log, offset, FETCH_REPLY_BYTES_MAX, end_offset, keep)
        except TailraceError as error:
            reply.cut(before)
            read.append(ReplicaFetchResult(*log.key, error_info(error), -1, -1))
            continue
        if found:
            read.append(
                ReplicaFetchResult(*log.key, OK, log.high_watermark, log.log_start_offset, len(found))
            )
    return ReplicaFetched(fetch.request.request_id, results=read), reply.frames()


def _failed(broker: Broker, entry: ReplicaFetchEntry, error: TailraceError) -> ReplicaFetchResult:
    start = -1
    if isinstance(error, OffsetOutOfRangeError):
        log = broker.leaders.find(entry.topic_id, entry.partition, entry.leader_epoch)
        start = log.log_start_offset
    return ReplicaFetchResult(entry.topic_id, entry.partition, error_info(error), -1, start)
