"""One partition's batches in order, and what its leader is known to have stored of them.

With idempotence a batch carries an identity (producer id, epoch) and the sequence number of its first
record. The node stores a batch once, and only right after the one before it. So a lane must send its
batches in order, and with the same numbers each time, for as long as it does not know that a batch was
*not* stored. The rules:

1. When anything in flight fails, the lane *drains*: it sends nothing until everything in flight is answered.
   Then it *settles*: what failed goes back, in order, to be sent again after a pause.
2. A batch is `maybe_stored` once an attempt ended without a clear answer (connection lost, time-out), and
   stays so. Such a batch is only ever sent again under the same numbers, where the node finds a duplicate:
   answers may overtake each other, so nothing is sent that would push the oldest in flight out of what the
   node remembers. What it does not remember all the same is stored if a later batch is known to be.
3. If every unanswered batch is certainly not stored, they get their numbers anew, following on the last
   one that is stored: a batch that was refused for good leaves no gap.
4. A batch that was given up although it may be stored leaves a *hole*. The batches behind it that may be
   stored are sent on: one that is taken proves that the hole was stored too. One that is refused proves
   that it was not.
5. When the hole is not filled, or the node has forgotten us, the old numbers lead nowhere: what may be
   stored fails (it is never sent under new numbers, so never stored twice), and the rest waits for an
   identity of a newer epoch, whose sequences begin at 0.
"""

from collections import deque
from itertools import takewhile
from typing import Final, NamedTuple

from tailrace.client.retry import Backoff
from tailrace.protocol.cluster import NO_LEADER
from tailrace.protocol.errors import (
    ErrorCode,
    LeaderNotAvailableError,
    TailraceError,
    TimedOutError,
    UnknownTopicError,
)
from tailrace.protocol.limits import IN_FLIGHT_BATCHES_MAX, PRODUCER_WINDOW_BATCHES
from tailrace.protocol.text import plural

from .batch import UNSTAMPED, Batch, Identity, Stamp, advance

NOT_STORED: Final = frozenset(
    {
        ErrorCode.MALFORMED_REQUEST,
        ErrorCode.UNSUPPORTED_VERSION,
        ErrorCode.REQUEST_TOO_LARGE,
        ErrorCode.BUSY,
        ErrorCode.CORRUPT_BATCH,
        ErrorCode.BATCH_TOO_LARGE,
        ErrorCode.INVALID_TIMESTAMP,
        ErrorCode.INVALID_RECORD,
        ErrorCode.UNKNOWN_TOPIC,
        ErrorCode.UNKNOWN_PARTITION,
        ErrorCode.NOT_LEADER,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.UNKNOWN_LEADER_EPOCH,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.OUT_OF_ORDER_SEQUENCE,
        ErrorCode.FENCED_PRODUCER,
        ErrorCode.UNKNOWN_PRODUCER_ID,
        ErrorCode.STORAGE_FULL,
        ErrorCode.INVALID_ARGUMENT,
    }
)
"""After these the attempt has left nothing in the log; after any other error it may have. INVALID_ARGUMENT
is our own: the batch could not be encoded."""

_SEQUENCE_ERRORS: Final = frozenset({ErrorCode.OUT_OF_ORDER_SEQUENCE, ErrorCode.UNKNOWN_PRODUCER_ID})
_NOT_HEARD_OF_YET: Final = frozenset({ErrorCode.UNKNOWN_TOPIC, ErrorCode.UNKNOWN_PARTITION})


class Resolved(NamedTuple):
    """What became of a batch. `base_offset` is -1 on an error and with acks=0."""

    batch: Batch
    base_offset: int
    error: TailraceError | None


class Lane:
    """One partition's way to its leader. Pure: time is given, what is resolved is put into `resolved`."""

    def __init__(
        self, topic_id: bytes, partition: int, *, idempotent: bool, backoff: Backoff, resolved: list[Resolved]
    ) -> None:
        self.topic_id = topic_id
        self.partition = partition
        self.leader = NO_LEADER
        self.leader_epoch = 0
        self.waiting: deque[Batch] = deque()
        self.in_flight: dict[Batch, None] = {}
        self.not_before = 0.0
        self.identity: Identity | None = None
        self.spent: Identity | None = None
        """An identity that led nowhere here."""
        self.gone = False
        """The topic was deleted."""
        self.queued = False
        """The sender's: it has the lane in a queue."""
        self._idempotent = idempotent
        self._backoff = backoff
        self._resolved = resolved
        self._returned: list[Batch] = []
        self._draining = False
        self._next_number = 1
        self._next_sequence = 0
        self._stored_number = 0
        self._expected_sequence = 0
        self._hole: int | None = None
        self._forgotten: TailraceError | None = None

    # ----------------------------------------------------------------- sending

    def add(self, batch: Batch) -> None:
        """One more batch, behind all others."""
        batch.number = self._next_number
        self._next_number += 1
        self.waiting.append(batch)

    def free(self, now: float) -> bool:
        """Could the next batch be sent, the first that waits or one to come?

        Behind a hole only those that were sent before may.
        """
        return (
            not self._draining
            and self.leader != NO_LEADER
            and now >= self.not_before
            and len(self.in_flight) < IN_FLIGHT_BATCHES_MAX
            and not (self._idempotent and self.identity is None)
            and not (self._idempotent and self.in_flight and not self._remembered())
            and (self._hole is None or (bool(self.waiting) and self.waiting[0].stamp is not UNSTAMPED))
        )

    def _remembered(self) -> bool:
        """Will the node still know the oldest batch in flight once it has stored the next one?"""
        oldest = next(iter(self.in_flight))  # they are in their order
        following = self.waiting[0].number if self.waiting else self._next_number
        return following - oldest.number < PRODUCER_WINDOW_BATCHES

    def starving(self) -> bool:
        """Is an identity missing? Asked for also while nothing waits: what is open waits for the lane."""
        return self._idempotent and self.identity is None and not self.gone

    def take(self) -> Batch:
        """The next batch, in flight from now on."""
        batch = self.waiting.popleft()
        if self._idempotent and batch.stamp is UNSTAMPED:
            assert self.identity is not None
            batch.stamp = Stamp(self.identity, self._next_sequence)
            self._next_sequence = advance(self._next_sequence, batch.count)
        batch.refused = False
        batch.attempts += 1
        self.in_flight[batch] = None
        return batch

    def next_stamp(self) -> Stamp | None:
        """What the next batch that is added will be sent under, if nothing fails; None while unknown."""
        if self.identity is None:
            return None
        ahead = sum(batch.count for batch in self.waiting if batch.stamp is UNSTAMPED)
        return Stamp(self.identity, advance(self._next_sequence, ahead))

    def adopt(self, identity: Identity) -> None:
        """Number from 0 under another identity. Nothing may be in flight."""
        assert not self.in_flight
        self.identity = identity
        self._next_sequence = 0
        self._stored_number = 0
        self._expected_sequence = 0

    def lead(self, leader: int, leader_epoch: int, now: float) -> None:
        """Another leader or epoch. What is in flight to the old one must be answered first."""
        if (leader, leader_epoch) == (self.leader, self.leader_epoch):
            return
        self.leader = leader
        self.leader_epoch = leader_epoch
        self.not_before = now
        self._draining = bool(self.in_flight)

    # ----------------------------------------------------------------- answers

    def stored(self, batch: Batch, base_offset: int, now: float) -> None:
        """The leader has the batch, now or since an earlier attempt."""
        del self.in_flight[batch]
        if batch.number > self._stored_number:
            self._stored_number = batch.number
            self._expected_sequence = advance(batch.stamp.sequence, batch.count)
            if self._hole is not None and self._hole < batch.number:
                self._hole = None
        self._backoff.reset()
        self._resolve(batch, base_offset, None)
        self._settle_if_drained(now)

    def failed(self, batch: Batch, error: TailraceError, now: float) -> None:
        """An attempt failed; what comes of it is decided when everything in flight is answered."""
        del self.in_flight[batch]
        self._draining = True
        if error.code not in NOT_STORED:
            batch.maybe_stored = True
        if error.code in _SEQUENCE_ERRORS and self._idempotent:
            batch.refused = True
            due = batch.number > self._stored_number and batch.stamp.sequence == self._expected_sequence
            known = self._stored_number > 0  # before that, "unknown" only says that the first is missing
            if due or (known and error.code == ErrorCode.UNKNOWN_PRODUCER_ID):
                self._forgotten = error
        if self.gone and (error.retriable or error.code in _NOT_HEARD_OF_YET):
            error = deleted(batch.outcome.topic)  # a node knows topics by their ids
        if batch.resolved or not self._may_retry(error):
            self._give_up(batch, _in_doubt(batch, error) if batch.maybe_stored else error)
        else:
            batch.last_error = error
            self._returned.append(batch)
        self._settle_if_drained(now)

    def expire(self, now: float, *, cut_off: bool = False) -> None:
        """Give up what was not stored in time. What is in flight stays there until it is answered.

        `cut_off`: there is no connection to the leader.
        """
        whom = _leader_in_words(self.leader, cut_off=cut_off)
        for batch in self.in_flight:
            if batch.deadline <= now:
                self._resolve(batch, -1, _too_late(batch, whom, in_doubt=True))
        expired = [batch for batch in self._returned if batch.deadline <= now]
        self._returned = [batch for batch in self._returned if batch.deadline > now]
        while self.waiting and self.waiting[0].deadline <= now:
            expired.append(self.waiting.popleft())
        for batch in expired:
            self._give_up(batch, _too_late(batch, whom, in_doubt=batch.maybe_stored))
        self._settle_if_drained(now)

    def next_deadline(self) -> float | None:
        """When `expire` has something to do."""
        unresolved = [*(batch for batch in self.in_flight if not batch.resolved), *self._returned]
        unresolved += [self.waiting[0]] if self.waiting else []
        return min((batch.deadline for batch in unresolved), default=None)

    def remove(self) -> None:
        """The topic was deleted: nothing can be sent, and nothing that fails is tried again."""
        self.gone = True
        self.leader = NO_LEADER
        for batch in (*self._returned, *self.waiting):
            self._give_up(batch, deleted(batch.outcome.topic))
        self._forget_queued()

    def abort(self, error: TailraceError) -> None:
        """Resolve everything at once; answers that still come change nothing."""
        for batch in self.in_flight:
            self._resolve(batch, -1, _in_doubt(batch, error))
        for batch in (*self._returned, *self.waiting):
            self._resolve(batch, -1, _in_doubt(batch, error) if batch.maybe_stored else error)
        self.gone = True
        self._forget_queued()

    def unresolved(self) -> int:
        """The number of batches that are here."""
        return len(self.waiting) + len(self._returned) + len(self.in_flight)

    def obstacle(self) -> TailraceError | None:
        """Why the batches that are here are not stored yet, as far as that is known. Any thread may ask."""
        batches = (*self.in_flight, *self._returned, *self.waiting)
        if not batches:
            return None
        name = batches[0].outcome.name
        if self.leader == NO_LEADER:
            return LeaderNotAvailableError(f"{name} has no live leader: start the nodes that hold it")
        error = next((batch.last_error for batch in batches if batch.last_error is not None), None)
        return None if error is None else type(error)(f"{name} at node {self.leader}: {error}")

    # ---------------------------------------------------------------- settling

    def _settle_if_drained(self, now: float) -> None:
        if not self._draining or self.in_flight:
            return
        self._draining = False
        if self._returned:
            self.not_before = now + self._backoff.pause()
            self.waiting.extendleft(sorted(self._returned, key=lambda batch: -batch.number))
            self._returned.clear()
        if self._idempotent and self.identity is not None:
            self._settle_sequences()

    def _settle_sequences(self) -> None:
        """Nothing is in flight: rules 2 to 5."""
        while self.waiting and self.waiting[0].refused and self.waiting[0].number <= self._stored_number:
            self._confirm_first()
        sent = [
            batch
            for batch in takewhile(lambda batch: batch.stamp is not UNSTAMPED, self.waiting)
            if batch.number > self._stored_number
        ]
        uncertain = [batch for batch in sent if batch.maybe_stored]
        if self._forgotten is None and self._hole is None:
            if not uncertain:
                self._renumber(sent, self._expected_sequence)
                return
            if self._follows(sent):
                return
            self._hole = sent[0].number - 1
        if self._forgotten is None and uncertain and not sent[0].refused:
            return
        self._begin_anew(uncertain)

    def _follows(self, sent: list[Batch]) -> bool:
        """Do the numbers follow on the last stored batch, without a gap?"""
        expected = self._expected_sequence
        for batch in sent:
            if batch.stamp.sequence != expected:
                return False
            expected = advance(expected, batch.count)
        return True

    def _begin_anew(self, uncertain: list[Batch]) -> None:
        for batch in uncertain:
            self.waiting.remove(batch)
            self._resolve(batch, -1, _in_doubt(batch, self._forgotten or batch.last_error))
        while self.waiting and self.waiting[0].number <= self._stored_number:
            self._confirm_first()
        self._renumber(self.waiting, 0)
        self._hole = None
        self._forgotten = None
        self.spent, self.identity = self.identity, None

    def _confirm_first(self) -> None:
        """A later one was acknowledged, so this one is stored; where, nobody can tell any more."""
        self._resolve(self.waiting.popleft(), -1, None)

    def _renumber(self, batches: "deque[Batch] | list[Batch]", next_sequence: int) -> None:
        for batch in batches:
            batch.stamp = UNSTAMPED
        self._next_sequence = next_sequence

    # ----------------------------------------------------------------- the end

    def _may_retry(self, error: TailraceError) -> bool:
        if self.gone:
            return False
        if error.code in _SEQUENCE_ERRORS:
            return self._idempotent
        return error.retriable or error.code in _NOT_HEARD_OF_YET

    def _give_up(self, batch: Batch, error: TailraceError) -> None:
        """The batch leaves the lane without having been confirmed."""
        if batch.stamp is not UNSTAMPED and batch.number > self._stored_number:
            self._draining = True
            if batch.maybe_stored:
                self._hole = max(self._hole or 0, batch.number)
        self._resolve(batch, -1, error)

    def _forget_queued(self) -> None:
        self._returned.clear()
        self.waiting.clear()

    def _resolve(self, batch: Batch, base_offset: int, error: TailraceError | None) -> None:
        if not batch.resolved:
            batch.resolved = True
            self._resolved.append(Resolved(batch, base_offset, error))


def deleted(topic: str) -> UnknownTopicError:
    """What a record fails with whose topic was deleted before it was stored."""
    return UnknownTopicError(f"topic {topic!r} was deleted")


def _records(batch: Batch) -> str:
    return f"{plural(batch.count, 'record')} to {batch.outcome.name}"


def _leader_in_words(leader: int, *, cut_off: bool) -> str:
    if leader == NO_LEADER:
        return "the partition has no live leader"
    return f"node {leader} leads the partition{', there is no connection to it' if cut_off else ''}"


def _too_late(batch: Batch, whom: str, *, in_doubt: bool) -> TimedOutError:
    doubt = ", but perhaps stored" if in_doubt else ""
    cause = f" (last error: {batch.last_error})" if batch.last_error is not None else ""
    return TimedOutError(
        f"{_records(batch)} not acknowledged within delivery_timeout_ms{doubt}: {whom}{cause}"
    )


def _in_doubt(batch: Batch, error: TailraceError | None) -> TailraceError:
    kind = TailraceError if error is None else type(error)
    return kind(f"{_records(batch)} may or may not be stored, an attempt was not answered: {error}")
