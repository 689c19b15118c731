"""Fetch: read many partitions, or wait until there is something to read.

- each partition stands alone; an error (not led here, another leader epoch, an offset outside of
  what the log holds) is answered at once, with what the other partitions have;
- answered with batches as they are stored, below the high watermark, at least one whole batch,
  then up to the bounds of the partition, of the fetch, and of a reply;
- each fetch is read from another of its partitions on, so that no partition starves the others;
- less than `min_bytes` of data: the fetch is parked until enough was appended, or its wait is over;
- what is surely in the page cache is read here; if any partition needs older data, the whole
  fetch is read by the reader thread;
- a fetch over shared memory names a slot, and gets its batches there if they are many bytes;
- only partitions with batches or errors are in the reply, with the high watermark unless the leader is too
  new to know it;
- BUSY: too many fetches of this connection wait, or it does not read what it has fetched.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from tailrace.protocol.errors import (
    BusyError,
    LeaderNotAvailableError,
    OffsetOutOfRangeError,
    TailraceError,
)
from tailrace.protocol.limits import FETCH_REPLY_BYTES_MAX
from tailrace.protocol.messages import OK, Fetch, Fetched, FetchEntry, FetchResult, Reply
from tailrace.protocol.wire import error_info, failure
from tailrace.transport.peer_arenas import Payload
from tailrace.transport.server import Buffer

from ..broker import Broker
from ..fetch_reply import FetchReply, slot_of
from ..parked import ParkedFetch
from ..storage.environment import Storage
from ..storage.partition_log import PartitionLog

logger: Final = logging.getLogger(__name__)

_TOO_MANY: Final = "too many fetches wait at this node: {} of this connection, {} of all; retry later"
_UNREAD: Final = "too many fetched bytes are unread: {} by this connection, {} by all; read them, then retry"


class Reading(NamedTuple):
    """One partition of a fetch that has something to read."""

    entry: FetchEntry
    log: PartitionLog
    high_watermark: int


def handle(broker: Broker, peer: bytes, request: Fetch, payload: Payload, now: float) -> None:
    """Answer, park, or hand to the reader."""
    serve(broker, ParkedFetch(peer, request, now + request.max_wait_ms / 1_000, slot_of(payload)), now)


def serve(broker: Broker, fetch: ParkedFetch, now: float) -> None:
    """A fetch that is new, or was woken, or has waited enough. It holds no slot now."""
    request = fetch.request
    assert isinstance(request, Fetch)
    if not broker.unsent.allows(fetch.peer):
        _unread(broker, fetch.peer, request.request_id)
        return
    failed, readings = _sort(broker, request.entries)
    broker.turn += 1
    if any(reading.entry.offset < reading.log.hot_offset for reading in readings):
        _read_later(broker, fetch, failed, readings)
        return
    reply = FetchReply(request.max_bytes, fetch.slot)
    results = read_all(broker.storage, readings, broker.turn, reply)
    wanted = min(request.min_bytes, request.max_bytes, FETCH_REPLY_BYTES_MAX)
    if failed or reply.full or reply.size >= wanted or now >= fetch.deadline:
        broker.reply(fetch.peer, Fetched(request.request_id, results=[*failed, *results]), reply.frames())
        return
    fetch.missing_bytes = wanted - reply.size
    _park(broker, fetch)


def _sort(broker: Broker, entries: Sequence[FetchEntry]) -> tuple[list[FetchResult], list[Reading]]:
    """Errors, and the partitions that have something to read."""
    failed: list[FetchResult] = []
    readings: list[Reading] = []
    find = broker.leaders.find
    for entry in entries:
        try:
            log = find(entry.topic_id, entry.partition, entry.leader_epoch)
            high_watermark = log.high_watermark
            if entry.offset != high_watermark:
                start = log.log_start_offset
                if entry.offset > high_watermark:
                    refuse_unsettled(log)
                if not start <= entry.offset < high_watermark:
                    raise OffsetOutOfRangeError(
                        f"offset {entry.offset} of {log.name}, which holds {start} to {high_watermark}"
                    )
                readings.append(Reading(entry, log, high_watermark))
        except TailraceError as error:
            failed.append(_failed(entry, error))
    return failed, readings


def refuse_unsettled(log: PartitionLog) -> None:
    """Raises LeaderNotAvailableError while a new leader does not know yet what was committed before it.

    Until its high watermark has reached the start of its own epoch, it may be below what was read (R8).
    """
    if log.high_watermark < log.epoch_start:
        raise LeaderNotAvailableError(f"the new leader of {log.name} finds out what is committed")


def read_all(
    storage: Storage, readings: Sequence[Reading], turn: int, reply: FetchReply
) -> list[FetchResult]:
    """Read one partition after the other into the reply, from the one whose turn it is. Any thread."""
    results: list[FetchResult] = []
    first = turn % len(readings) if readings else 0
    for reading in (*readings[first:], *readings[:first]):
        if reply.full:
            break
        entry, log, high_watermark = reading
        before = len(reply)
        try:
            found = storage.read(log, entry.offset, entry.max_bytes, high_watermark, reply.keep)
        except TailraceError as error:
            reply.cut(before)
            results.append(_failed(entry, error))
            continue
        if found:
            # A new leader's may be behind what its predecessor has told (R8).
            told = high_watermark if high_watermark >= log.epoch_start else -1
            results.append(FetchResult(*_place(entry), OK, told, log.log_start_offset, len(found)))
    return results


def _read_later(
    broker: Broker, fetch: ParkedFetch, failed: list[FetchResult], readings: list[Reading]
) -> None:
    slots = broker.fetch_slots
    read = partial(_read_and_reply, broker.storage, fetch, failed, readings, broker.turn)
    if not slots.take(fetch.peer, 1):
        _busy(broker, fetch)
    elif not broker.reader.submit(fetch.peer, fetch.request.request_id, read):
        slots.release(fetch.peer, 1)
        _busy(broker, fetch)


def _read_and_reply(
    storage: Storage, fetch: ParkedFetch, failed: list[FetchResult], readings: list[Reading], turn: int
) -> tuple[Fetched, Sequence[Buffer]]:
    request = fetch.request
    assert isinstance(request, Fetch)
    reply = FetchReply(request.max_bytes, fetch.slot)
    results = read_all(storage, readings, turn, reply)
    return Fetched(request.request_id, results=[*failed, *results]), reply.frames()


def _park(broker: Broker, fetch: ParkedFetch) -> None:
    slots = broker.fetch_slots
    if not slots.take(fetch.peer, 1):
        _busy(broker, fetch)
    elif not broker.parked.park(fetch):
        slots.release(fetch.peer, 1)
        _busy(broker, fetch)


def _busy(broker: Broker, fetch: ParkedFetch) -> None:
    slots = broker.fetch_slots
    error = BusyError(_TOO_MANY.format(slots.held(fetch.peer), slots.total))
    broker.reply(fetch.peer, failure(fetch.request.request_id, error))


def _unread(broker: Broker, peer: bytes, request_id: int) -> None:
    error = BusyError(_UNREAD.format(broker.unsent.held(peer), broker.unsent.total))
    broker.reply(peer, failure(request_id, error))


def was_read(broker: Broker, peer: bytes, reply: Reply, frames: Sequence[Buffer]) -> None:
    """The reader thread is done with a request, a fetch or another."""
    broker.fetch_slots.release(peer, 1)
    if frames and not broker.unsent.allows(peer):
        _unread(broker, peer, reply.request_id)
    else:
        broker.reply(peer, reply, frames)


def unpark(broker: Broker, fetches: Sequence[ParkedFetch], now: float) -> None:
    """These were woken, or have waited enough. One that fails hurts no other, as in `dispatch`."""
    for fetch in fetches:
        broker.fetch_slots.release(fetch.peer, 1)
        try:
            serve(broker, fetch, now)
        except Exception as error:
            logger.exception("a parked fetch of peer %s failed", fetch.peer.hex())
            internal = TailraceError(f"internal error: {error!r}")
            broker.reply(fetch.peer, failure(fetch.request.request_id, internal))


def release(broker: Broker, fetches: Sequence[ParkedFetch], error: TailraceError | None) -> None:
    """The node stops: answer with nothing, or with why."""
    for fetch in fetches:
        broker.fetch_slots.release(fetch.peer, 1)
        request_id = fetch.request.request_id
        broker.reply(fetch.peer, Fetched(request_id) if error is None else failure(request_id, error))


def _failed(entry: FetchEntry, error: TailraceError) -> FetchResult:
    return FetchResult(*_place(entry), error_info(error), -1, -1, 0)


def _place(entry: FetchEntry) -> tuple[bytes, int]:
    return entry.topic_id, entry.partition
