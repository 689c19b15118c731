"""Fetch: read many partitions, or wait until there is something to read.

- each partition stands alone; an error (not led here, another leader epoch, an offset outside of
  what the log holds) is answered at once, with what the other partitions have;
- answered with batches as they are stored, below the high watermark, at least one whole batch,
  then up to the bounds of the partition, of the fetch, and of a reply;
- partitions take turns, in a session and from one fetch without a session to the next, so that none starves;
- less than `min_bytes` of data: the fetch is parked until enough was appended, or its wait is over; past its
  lease a leader does not say then that nothing came, since a successor may have more;
- what is surely in the page cache is read here; if any partition needs older data, the whole
  fetch is read by the reader thread; the CRC of what is older is checked if another replica could lead;
- in a session a fetch names only what has changed since the one before it (`fetch_sessions.py`);
- a fetch over shared memory names a slot, and gets its batches there if they are many bytes;
- only partitions with batches or errors are in the reply, with the high watermark unless the leader is too
  new to know it;
- BUSY: too many fetches of this connection wait, or it does not read what it has fetched.
"""

import logging
from collections.abc import Sequence, Set
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from tailrace.protocol.batch import header_of
from tailrace.protocol.errors import (
    BusyError,
    MalformedRequestError,
    OffsetOutOfRangeError,
    TailraceError,
)
from tailrace.protocol.limits import FETCH_READINGS_MAX, FETCH_REPLY_BYTES_MAX
from tailrace.protocol.messages import OK, Fetch, Fetched, FetchEntry, FetchResult, Reply
from tailrace.protocol.wire import error_info, failure
from tailrace.transport.peer_arenas import Payload
from tailrace.transport.server import Buffer

from ..broker import Broker
from ..fetch_reply import FetchReply, slot_of
from ..fetch_sessions import FetchSession
from ..reader import Work
from ..storage.environment import Storage
from ..storage.partition_log import PartitionKey, PartitionLog
from ..storage.reading import checked
from . import faults

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
    if not (request.entries or request.epoch):
        raise MalformedRequestError("a fetch that names no partition")
    try:
        session = broker.fetches.ask(
            peer,
            request,
            deadline=now + request.max_wait_ms / 1_000,
            slot=slot_of(payload),
            has_news=partial(_has_news, broker),
        )
    finally:
        unpark(broker, broker.fetches.take_replaced(), now)
    try:
        serve(broker, session, request, now)
    except BaseException:
        broker.fetches.end(session)
        raise


def _has_news(broker: Broker, entry: FetchEntry) -> bool:
    """Is there something to read, or to complain about?"""
    try:
        log = broker.leaders.find(entry.topic_id, entry.partition, entry.leader_epoch)
        return entry.offset != log.high_watermark
    except TailraceError:
        return True


def serve(broker: Broker, session: FetchSession, request: Fetch, now: float) -> None:
    """A fetch that is new, or was woken, or has waited enough. It holds no slot now."""
    if not broker.unsent.allows(session.peer):
        _give_up(broker, session, _unread(broker, session.peer))
        return
    failed, readings = _sort(broker, session, now)
    if now >= session.deadline and broker.replication.past_lease(now):
        failed += _doubts(broker, session, now)
    wanted = _wanted(request, session)
    if not session.ready and not failed and wanted > 0 and now < session.deadline:
        _park(broker, session, wanted)
        return
    reply = FetchReply(request.max_bytes, session.slot)
    read = partial(_read, broker.storage, request.request_id, failed, readings, reply)
    for entry, log, _ in readings:
        if entry.offset < log.hot_offset:
            _read_later(broker, session, partial(read, doubted=_doubted(broker, readings)))
            return
    read_now, frames = read()
    answer = faults.noted(broker, read_now)
    more = len(session.ready) > len(readings)
    missing = wanted - reply.size - reply.no_room
    refused = any(result.error.code for result in read_now.results)
    if refused or more or reply.full or missing <= 0 or now >= session.deadline:
        _answer(broker, session, answer, frames)
    else:
        _park(broker, session, missing)


def _wanted(request: Fetch, session: FetchSession) -> int:
    """For so many bytes it is worth waiting: no more than one reply may bring, and all entries together."""
    wanted = min(request.min_bytes, request.max_bytes, FETCH_REPLY_BYTES_MAX)
    if wanted > 1:
        wanted = min(wanted, sum(entry.max_bytes for entry in session.entries.values()))
    return wanted


def _park(broker: Broker, session: FetchSession, missing_bytes: int) -> None:
    if broker.fetch_slots.take(session.peer, 1):
        broker.fetches.park(session, missing_bytes)
    else:
        _give_up(broker, session, _busy(broker, session.peer))


def _sort(broker: Broker, session: FetchSession, now: float) -> tuple[list[FetchResult], list[Reading]]:
    """Errors, and the partitions to read, in their order. Those that have nothing are not ready any more."""
    failed: list[FetchResult] = []
    readings: list[Reading] = []
    find = broker.leaders.find
    for key in _in_turn(broker, session):
        entry = session.entries[key]
        try:
            log = find(entry.topic_id, entry.partition, entry.leader_epoch)
            high_watermark = log.high_watermark
            if entry.offset != high_watermark:
                start = log.log_start_offset
                if entry.offset > high_watermark:
                    broker.replication.refuse_end(log, now)
                if not start <= entry.offset < high_watermark:
                    raise OffsetOutOfRangeError(
                        f"offset {entry.offset} of {log.name}, which holds {start} to {high_watermark}"
                    )
                readings.append(Reading(entry, log, high_watermark))
            else:
                del session.ready[key]
        except TailraceError as error:
            failed.append(_failed(entry, error))
    return failed, readings


def _in_turn(broker: Broker, session: FetchSession) -> Sequence[PartitionKey]:
    """The partitions to look at: those of a session stand in line, else each fetch begins with another."""
    if session.number:
        return tuple(islice(session.ready, FETCH_READINGS_MAX))
    keys = tuple(session.ready)
    broker.turn += 1
    first = broker.turn % len(keys) if keys else 0
    return (*keys[first:], *keys[:first])


def _doubts(broker: Broker, session: FetchSession, now: float) -> list[FetchResult]:
    """Errors for what has been read to its end, as far as it is known here."""
    failed = []
    for key, entry in session.entries.items():
        if key not in session.ready:
            try:
                log = broker.leaders.find(*key, entry.leader_epoch)
                broker.replication.refuse_end(log, now)
            except TailraceError as error:
                failed.append(_failed(entry, error))
    return failed


def _doubted(broker: Broker, readings: Sequence[Reading]) -> Set[PartitionKey]:
    """Of these the CRC is checked: what comes from the disk, while another replica could lead with its own.

    Without one there is nothing better, and the consumer, which checks what it gets, may leave a batch out.
    """
    cold = [log for entry, log, _ in readings if entry.offset < log.hot_offset]
    return {log.key for log in cold if broker.replication.replaceable(log)}


def read_all(
    storage: Storage,
    readings: Sequence[Reading],
    reply: FetchReply,
    doubted: Set[PartitionKey] = frozenset(),
) -> list[FetchResult]:
    """Read one partition after the other into the reply. Any thread."""
    results: list[FetchResult] = []
    for reading in readings:
        if reply.full:
            break
        entry, log, high_watermark = reading
        before = len(reply.batches)
        keep = checked(log, reply.keep) if doubted and log.key in doubted else reply.keep
        try:
            found = storage.read(log, entry.offset, entry.max_bytes, high_watermark, keep)
        except TailraceError as error:
            reply.cut(before)
            results.append(_failed(entry, error))
            continue
        if found:
            if header_of(reply.batches[-1]).last_offset + 1 < high_watermark:
                reply.no_room += max(0, entry.max_bytes - sum(found))
            # A new leader's may be behind what its predecessor has told (R8).
            told = high_watermark if high_watermark >= log.epoch_start else -1
            results.append(
                FetchResult(entry.topic_id, entry.partition, OK, told, log.log_start_offset, len(found))
            )
    return results


def _read(
    storage: Storage,
    request_id: int,
    failed: list[FetchResult],
    readings: list[Reading],
    reply: FetchReply,
    *,
    doubted: Set[PartitionKey] = frozenset(),
) -> tuple[Fetched, Sequence[Buffer]]:
    results = read_all(storage, readings, reply, doubted)
    return Fetched(request_id, results=[*failed, *results]), reply.frames()


def _read_later(broker: Broker, session: FetchSession, read: Work) -> None:
    assert session.request is not None
    peer, request_id = session.peer, session.request.request_id
    if (peer, request_id) in broker.reading:
        _give_up(broker, session, MalformedRequestError(f"request {request_id} waits for the disk already"))
    elif not broker.fetch_slots.take(peer, 1):
        _give_up(broker, session, _busy(broker, peer))
    elif broker.reader.submit(peer, request_id, read):
        broker.reading[peer, request_id] = session
    else:
        broker.fetch_slots.release(peer, 1)
        _give_up(broker, session, _busy(broker, peer))


def _answer(broker: Broker, session: FetchSession, reply: Reply, frames: Sequence[Buffer]) -> None:
    broker.reply(session.peer, reply, frames)  # before the books, for which nobody has to wait
    if isinstance(reply, Fetched):
        broker.fetches.answered(session, map(_place, reply.results))
    else:
        broker.fetches.end(session)


def _give_up(broker: Broker, session: FetchSession, error: TailraceError) -> None:
    """Answer with an error; the client begins its session anew."""
    assert session.request is not None
    _answer(broker, session, failure(session.request.request_id, error), ())


def _busy(broker: Broker, peer: bytes) -> BusyError:
    return BusyError(_TOO_MANY.format(broker.fetch_slots.held(peer), broker.fetch_slots.total))


def _unread(broker: Broker, peer: bytes) -> BusyError:
    return BusyError(_UNREAD.format(broker.unsent.held(peer), broker.unsent.total))


def was_read(broker: Broker, peer: bytes, reply: Reply, frames: Sequence[Buffer]) -> None:
    """The reader thread is done with a request, a fetch or another."""
    broker.fetch_slots.release(peer, 1)
    reply = faults.noted(broker, reply)
    if frames and not broker.unsent.allows(peer):
        reply, frames = failure(reply.request_id, _unread(broker, peer)), ()
    session = broker.reading.pop((peer, reply.request_id), None)
    if session is None:
        broker.reply(peer, reply, frames)
    else:
        _answer(broker, session, reply, frames)


def unpark(broker: Broker, sessions: Sequence[FetchSession], now: float) -> None:
    """These were woken, or have waited enough. One that fails hurts no other, as in `dispatch`."""
    for session in sessions:
        broker.fetch_slots.release(session.peer, 1)
        assert session.request is not None
        try:
            serve(broker, session, session.request, now)
        except Exception as error:
            logger.exception("a parked fetch of peer %s failed", session.peer.hex())
            _give_up(broker, session, TailraceError(f"internal error: {error!r}"))


def release(broker: Broker, sessions: Sequence[FetchSession], error: TailraceError | None) -> None:
    """The node stops: answer with nothing, or with why."""
    for session in sessions:
        broker.fetch_slots.release(session.peer, 1)
        assert session.request is not None
        if error is None:
            _answer(broker, session, Fetched(session.request.request_id), ())
        else:
            _give_up(broker, session, error)


def _failed(entry: FetchEntry, error: TailraceError) -> FetchResult:
    return FetchResult(*_place(entry), error_info(error), -1, -1, 0)


def _place(entry: FetchEntry | FetchResult) -> tuple[bytes, int]:
    return entry.topic_id, entry.partition
